// SPDX-License-Identifier: Apache-2.0
//
// The coordinator as one object: store, core, services, listeners. main.cc
// makes one from flags; tests make one in a temporary folder.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/janitor.h"
#include "coordinator/job_book.h"
#include "coordinator/timers.h"

namespace ft {

struct CoordinatorConfig {
  std::string data_dir;
  std::string client_address = "127.0.0.1:7443";
  std::string worker_address = "127.0.0.1:7444";
  std::string http_address = "127.0.0.1:7490";
  Timers timers;
  JanitorOptions janitor;

  // Called when the store can no longer be trusted; must end the process.
  std::function<void(const absl::Status&)> on_fatal;
};

class Coordinator {
 public:
  // Locks and loads the store, then listens.
  //
  //   INVALID_ARGUMENT     an address is not loopback.
  //   FAILED_PRECONDITION  another coordinator holds the data directory.
  //   UNAVAILABLE          an address is taken.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(
      CoordinatorConfig config);

  // Ends calls, commits what was posted, closes the store.
  ~Coordinator();

  const std::string& client_address() const;
  const std::string& worker_address() const;
  const std::string& http_address() const;
  int64_t incarnation() const;

  // Tokens of the two roles, from tokens/.
  const std::string& admin_token() const;
  const std::string& worker_token() const;

  JobBook& book();

 private:
  struct Parts;
  explicit Coordinator(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace ft
