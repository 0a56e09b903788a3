// SPDX-License-Identifier: Apache-2.0

#include "tests/simulation/timeline.h"

#include <algorithm>
#include <csignal>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/job_state.h"
#include "coordinator/proto_time.h"

namespace ft::testing {
namespace {

std::string FieldOf(const v1::Event& event, const std::string& name) {
  const auto entry = event.fields().find(name);
  return entry == event.fields().end() ? "" : entry->second;
}

int64_t NumberOf(const v1::Event& event, const std::string& name) {
  int64_t number = 0;
  return absl::SimpleAtoi(FieldOf(event, name), &number) ? number : 0;
}

template <typename Enum, typename Parse>
Enum EnumOf(const std::string& prefix, const std::string& name, Parse parse) {
  Enum value = {};
  parse(absl::StrCat(prefix, name), &value);
  return value;
}

v1::JobState StateOf(const std::string& name) {
  return EnumOf<v1::JobState>(
      "JOB_STATE_", name, [](const std::string& whole, v1::JobState* value) {
        v1::JobState_Parse(whole, value);
      });
}

v1::Placement PlacementOf(const std::string& text) {
  v1::Placement placement;
  for (const absl::string_view part : absl::StrSplit(text, ' ')) {
    const std::vector<std::string> words = absl::StrSplit(part, '/');
    if (words.size() != 2) continue;
    v1::RankPlacement& rank = *placement.add_ranks();
    rank.set_rank(placement.ranks_size() - 1);
    rank.set_worker_id(words[0]);
    int32_t slot = 0;
    if (absl::SimpleAtoi(words[1], &slot)) rank.set_slot(slot);
  }
  return placement;
}

}  // namespace

bool IsCrashRow(const v1::Attempt& attempt) {
  if (attempt.cause() == v1::ATTEMPT_CAUSE_RANK_SIGNAL) {
    return attempt.signal() != SIGKILL;
  }
  return attempt.cause() == v1::ATTEMPT_CAUSE_RANK_EXIT &&
         (attempt.status_code() == static_cast<int>(absl::StatusCode::kOk) ||
          attempt.status_code() ==
              static_cast<int>(absl::StatusCode::kInternal) ||
          attempt.status_code() ==
              static_cast<int>(absl::StatusCode::kUnknown));
}

std::string Timeline::Apply(const v1::Event& event) {
  if (event.job_seq() != ++seq_) {
    return absl::StrCat("event ", event.job_seq(), " comes after ", seq_ - 1);
  }
  switch (event.kind()) {
    case v1::EVENT_KIND_JOB_CREATED:
      status_.set_state(v1::JOB_STATE_QUEUED);
      *status_.mutable_created() = event.at();
      return "";
    case v1::EVENT_KIND_STATE_CHANGED:
      return OnState(event);
    case v1::EVENT_KIND_ATTEMPT_STARTED:
      OnStarted(event);
      return "";
    case v1::EVENT_KIND_ATTEMPT_CHANGED:
      attempts_.back().row.set_state(EnumOf<v1::AttemptState>(
          "ATTEMPT_STATE_", FieldOf(event, "state"),
          [](const std::string& whole, v1::AttemptState* value) {
            v1::AttemptState_Parse(whole, value);
          }));
      return "";
    case v1::EVENT_KIND_ATTEMPT_ENDED:
      OnEnded(event);
      return "";
    case v1::EVENT_KIND_CHECKPOINT_COMMITTED:
      OnCheckpoint(event);
      return "";
    case v1::EVENT_KIND_ARTIFACT_PUBLISHED:
      status_.set_artifact_name(FieldOf(event, "artifact"));
      status_.set_artifact_manifest_sha256(FieldOf(event, "manifest"));
      artifacts_.insert(FieldOf(event, "artifact"));
      return "";
    default:
      return "";
  }
}

std::string Timeline::OnState(const v1::Event& event) {
  const v1::JobState from = StateOf(FieldOf(event, "from"));
  const v1::JobState to = StateOf(FieldOf(event, "to"));
  if (from != status_.state()) {
    return absl::StrCat("an event says ", event.message(), ", the job was ",
                        ShortName(status_.state()));
  }
  status_.set_state(to);
  status_.set_reason(FieldOf(event, "reason"));
  status_.set_message(FieldOf(event, "message"));
  status_.set_attempts_without_progress(
      static_cast<int32_t>(NumberOf(event, "without_progress")));
  status_.clear_not_before();
  if (const int64_t us = NumberOf(event, "not_before_us"); us != 0) {
    *status_.mutable_not_before() = ToProto(absl::FromUnixMicros(us));
  }
  if (IsTerminal(to)) {
    *status_.mutable_ended() = event.at();
    ++ends_;
  }
  const bool was_failed = from == v1::JOB_STATE_FAILED;
  if ((was_failed || from == v1::JOB_STATE_HELD) &&
      to == v1::JOB_STATE_QUEUED) {
    status_.set_attempts_before_resume(static_cast<int32_t>(attempts_.size()));
    status_.clear_ended();
    ends_ -= was_failed ? 1 : 0;
    resumed_ends_ += was_failed ? 1 : 0;
  }
  if (attempts_.empty()) return "";
  Attempt& newest = attempts_.back();
  if (to == v1::JOB_STATE_RUNNING) {
    newest.row.set_state(v1::ATTEMPT_STATE_RUNNING);
  } else if (to == v1::JOB_STATE_YIELDING) {
    newest.row.set_state(v1::ATTEMPT_STATE_DRAINING);
  } else if (newest.row.state() == v1::ATTEMPT_STATE_ENDED &&
             (from == v1::JOB_STATE_STARTING || from == v1::JOB_STATE_RUNNING ||
              from == v1::JOB_STATE_FINALIZING)) {
    newest.counted = true;
    newest.had_progress = status_.checkpoint_step() > newest.row.source_step();
  }
  return "";
}

void Timeline::OnStarted(const v1::Event& event) {
  v1::Attempt& row = attempts_.emplace_back().row;
  row.set_epoch(event.epoch());
  row.set_number(static_cast<int32_t>(NumberOf(event, "number")));
  row.set_state(v1::ATTEMPT_STATE_LEASED);
  *row.mutable_placement() = PlacementOf(FieldOf(event, "placement"));
  *row.mutable_started() = event.at();
  row.set_isa_class(FieldOf(event, "isa_class"));
  row.set_source_step(NumberOf(event, "source_step"));
  row.set_source_manifest_sha256(FieldOf(event, "source_manifest"));
  model_digest_ = FieldOf(event, "model_digest");
  if (!status_.has_started()) *status_.mutable_started() = event.at();
  status_.clear_not_before();
}

void Timeline::OnEnded(const v1::Event& event) {
  v1::Attempt& row = attempts_.back().row;
  row.set_state(v1::ATTEMPT_STATE_ENDED);
  row.set_cause(EnumOf<v1::AttemptCause>(
      "ATTEMPT_CAUSE_", FieldOf(event, "cause"),
      [](const std::string& whole, v1::AttemptCause* value) {
        v1::AttemptCause_Parse(whole, value);
      }));
  row.set_message(FieldOf(event, "message"));
  row.set_failed_worker_id(FieldOf(event, "worker"));
  row.set_signal(static_cast<int32_t>(NumberOf(event, "signal")));
  row.set_status_code(static_cast<int32_t>(NumberOf(event, "status_code")));
  row.set_first_step(NumberOf(event, "first_step"));
  row.set_last_step(NumberOf(event, "last_step"));
  *row.mutable_ended() = event.at();
  if (event.fields().contains("exit_code")) {
    v1::ExitReport& report = *row.mutable_exit_report();
    report.set_rank(static_cast<int32_t>(NumberOf(event, "rank")));
    report.set_exit_code(static_cast<int32_t>(NumberOf(event, "exit_code")));
    report.set_oom_kills(static_cast<int32_t>(NumberOf(event, "oom_kills")));
  }
}

void Timeline::OnCheckpoint(const v1::Event& event) {
  if (NumberOf(event, "step") >= status_.checkpoint_step()) {
    status_.set_checkpoint_step(NumberOf(event, "step"));
    status_.set_checkpoint_manifest_sha256(FieldOf(event, "manifest"));
  }
  // The two newest stay.
  checkpoints_.insert(FieldOf(event, "artifact"));
  artifacts_.insert(FieldOf(event, "artifact"));
  while (checkpoints_.size() > 2) {
    artifacts_.erase(*checkpoints_.begin());
    checkpoints_.erase(checkpoints_.begin());
  }
}

std::string Timeline::Differs(v1::Job row) const {
  v1::JobStatus said = status_;
  for (const Attempt& attempt : attempts_) *said.add_attempts() = attempt.row;
  v1::JobStatus& stored = *row.mutable_status();
  stored.clear_progress();
  stored.clear_evaluation();
  for (v1::Attempt& attempt : *stored.mutable_attempts()) {
    if (attempt.state() != v1::ATTEMPT_STATE_ENDED) {
      attempt.clear_first_step();
      attempt.clear_last_step();
    }
    if (attempt.has_exit_report()) {
      attempt.mutable_exit_report()->clear_log_tail();
      attempt.mutable_exit_report()->clear_stack();
    }
  }
  if (row.spec().model().digest() != model_digest_) {
    return absl::StrCat("model digest ", row.spec().model().digest(), ", not ",
                        model_digest_);
  }
  if (stored.SerializeAsString() == said.SerializeAsString()) return "";
  return absl::StrCat("the row says\n", stored.DebugString(),
                      "the events say\n", said.DebugString());
}

std::string Timeline::JudgesOtherwise(v1::JobState to,
                                      const std::string& reason,
                                      int max_without_progress) const {
  const v1::Attempt& last = attempts_.back().row;
  int same_worker = 0;
  bool other_worker = false;
  int fruitless = 0;
  for (size_t i = status_.attempts_before_resume(); i < attempts_.size(); ++i) {
    const v1::Attempt& row = attempts_[i].row;
    if (IsCrashRow(row) && row.last_step() == last.last_step()) {
      (row.failed_worker_id() == last.failed_worker_id()
           ? static_cast<void>(++same_worker)
           : static_cast<void>(other_worker = true));
    }
    if (!attempts_[i].counted) continue;
    fruitless = attempts_[i].had_progress ? 0 : fruitless + 1;
  }
  std::string expected = "RECOVERING";
  if (last.cause() == v1::ATTEMPT_CAUSE_INVALID_ARGUMENT ||
      last.cause() == v1::ATTEMPT_CAUSE_OOM_HOST ||
      last.cause() == v1::ATTEMPT_CAUSE_NON_FINITE) {
    expected = "FAILED";
  } else if (IsCrashRow(last) && (other_worker || same_worker >= 3)) {
    expected = "HELD POISON";
  } else if (fruitless >= max_without_progress) {
    expected = "HELD NO_PROGRESS";
  }
  const std::string found = to == v1::JOB_STATE_HELD
                                ? absl::StrCat("HELD ", reason)
                                : std::string(ShortName(to));
  if (found == expected) return "";
  return absl::StrCat("after attempt ", last.number(), " (",
                      ShortName(last.cause()), ", signal ", last.signal(),
                      ", step ", last.last_step(), ") the job is ", found,
                      ", by the rule ", expected);
}

}  // namespace ft::testing
