// SPDX-License-Identifier: Apache-2.0
//
// Where the local service lives: everything under the XDG directories, so that
// two users, or two HOMEs, never meet.

#pragma once

#include <string>

namespace ft {

// $XDG_DATA_HOME/ft, or ~/.local/share/ft.
std::string DataHome();
// The folder beside this program: where the other programs are.
std::string ProgramDir();

inline std::string ServiceDir() { return DataHome() + "/service"; }
inline std::string CoordinatorDir() { return ServiceDir() + "/coordinator"; }
inline std::string CoordinatorEndpoint() {
  return ServiceDir() + "/coordinator.json";
}
inline std::string AdminTokenFile() {
  return CoordinatorDir() + "/tokens/admin.token";
}
inline std::string WorkerTokenFile() {
  return CoordinatorDir() + "/tokens/worker.token";
}
std::string ModelRootDir();

}  // namespace ft
