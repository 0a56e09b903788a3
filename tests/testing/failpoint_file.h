// SPDX-License-Identifier: Apache-2.0
//
// The test's side of common/failpoint.h: makes the table that daemons are
// started with, arms points, and counts who passed and who died.

#pragma once

#include <cstdint>
#include <string>

#include "common/failpoint.h"

namespace ft::testing {

class FailpointFile {
 public:
  // Makes a table in which nothing is armed.
  explicit FailpointFile(const std::string& path);
  ~FailpointFile();
  FailpointFile(const FailpointFile&) = delete;
  FailpointFile& operator=(const FailpointFile&) = delete;

  const std::string& path() const { return path_; }

  // Whoever passes `point` as the `nth` from now on dies there. Once.
  void Arm(Failpoint point, int64_t nth = 1);
  void Disarm(Failpoint point);

  int64_t passed(Failpoint point) const { return slot(point).passed.load(); }
  int64_t killed(Failpoint point) const { return slot(point).killed.load(); }

 private:
  FailpointTable::Slot& slot(Failpoint point) const {
    return table_->slots[static_cast<int>(point)];
  }

  const std::string path_;
  FailpointTable* table_ = nullptr;
};

}  // namespace ft::testing
