// SPDX-License-Identifier: Apache-2.0

#include "coordinator/lease_table.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/reasons.h"

namespace ft {

uint64_t LeaseTable::Grant(absl::string_view job_id) {
  const uint64_t epoch = ++last_epoch_;
  Adopt(job_id, epoch);
  return epoch;
}

void LeaseTable::Adopt(absl::string_view job_id, uint64_t epoch) {
  FT_CHECK(epoch <= last_epoch_);
  FT_CHECK(epoch_of_.emplace(job_id, epoch).second);
  FT_CHECK(job_of_.emplace(epoch, job_id).second);
}

void LeaseTable::End(absl::string_view job_id) {
  const auto held = epoch_of_.find(job_id);
  if (held == epoch_of_.end()) return;
  job_of_.erase(held->second);
  epoch_of_.erase(held);
}

absl::Status LeaseTable::Check(absl::string_view job_id, uint64_t epoch) const {
  const auto held = epoch_of_.find(job_id);
  if (held != epoch_of_.end() && held->second == epoch) {
    return absl::OkStatus();
  }
  return ReasonError(
      absl::StatusCode::kAborted, v1::REASON_STALE_EPOCH,
      absl::StrCat("epoch ", epoch, " no longer acts for job ", job_id));
}

std::string LeaseTable::JobOf(uint64_t epoch) const {
  const auto held = job_of_.find(epoch);
  return held == job_of_.end() ? std::string() : held->second;
}

uint64_t LeaseTable::EpochOf(absl::string_view job_id) const {
  const auto held = epoch_of_.find(job_id);
  return held == epoch_of_.end() ? 0 : held->second;
}

}  // namespace ft
