// SPDX-License-Identifier: Apache-2.0
//
// The models under a model root, as the daemons know them: name, digest and
// config.json. The door of the daemons to formats/.

#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ft/v1/resources.pb.h"

namespace ft {

// Remembers digests of files by size and time of change. Not thread-safe.
class ModelRoot {
 public:
  explicit ModelRoot(std::string root) : root_(std::move(root)) {}

  // Every folder that holds a model we support, by name. Others are left out,
  // with the reason in `problems`, if given.
  std::vector<v1::ModelInfo> List(std::vector<std::string>* problems = nullptr);

  std::string PathOf(const std::string& name) const;

 private:
  struct Stamp {
    int64_t bytes = 0;
    int64_t changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  const std::string root_;
  std::map<std::string, std::pair<Stamp, std::string>> digests_;
};

// [a-z0-9][a-z0-9._-]{0,62}: safe as the name of a folder.
bool IsModelName(const std::string& name);

}  // namespace ft
