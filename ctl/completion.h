// SPDX-License-Identifier: Apache-2.0
//
// Scripts that let a shell complete verbs and options, made from the command
// line itself, so that none can be forgotten.

#pragma once

#include <string>

namespace CLI {
class App;
}  // namespace CLI

namespace ft {

// For `source <(ftctl completion bash)`. REQUIRES: bash, zsh or fish.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace ft
