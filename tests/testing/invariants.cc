// SPDX-License-Identifier: Apache-2.0
//
// I1, I2, I3 and I6: what the tables and the event log say, and whether clients
// were told the same.

#include "tests/testing/invariants.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file.h"

namespace ft::testing {
namespace {

constexpr char kNoState[] = "nothing";

std::string FieldOf(const v1::Event& event, const std::string& key) {
  const auto field = event.fields().find(key);
  return field == event.fields().end() ? "" : field->second;
}

std::string CauseText(v1::AttemptCause cause) {
  return v1::AttemptCause_Name(cause).substr(sizeof("ATTEMPT_CAUSE_") - 1);
}

bool IsTerminalText(const std::string& state) {
  return state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED";
}

// The states of one job as its events tell them.
void CheckStates(const std::string& job_id, const StoreView::JobRow& job,
                 const std::vector<v1::Event>& events, Violations& found) {
  std::string state = kNoState;
  for (const v1::Event& event : events) {
    if (event.kind() == v1::EVENT_KIND_JOB_CREATED) {
      if (state != kNoState) {
        found.push_back(absl::StrCat("I2: ", job_id, " was created twice"));
      }
      state = "QUEUED";
      continue;
    }
    if (event.kind() != v1::EVENT_KIND_STATE_CHANGED) continue;
    // A person may take back a failure.
    const bool is_resumed =
        state == "FAILED" && FieldOf(event, "to") == "QUEUED";
    if (IsTerminalText(state) && !is_resumed) {
      found.push_back(absl::StrCat("I2: ", job_id, " had ended ", state,
                                   " and then became ", FieldOf(event, "to")));
    } else if (FieldOf(event, "from") != state) {
      found.push_back(absl::StrCat("I2: ", job_id, " was ", state,
                                   ", but event ", event.job_seq(), " says ",
                                   event.message()));
    }
    state = FieldOf(event, "to");
  }
  if (state != StateText(job.state)) {
    found.push_back(absl::StrCat("I2: the row of ", job_id, " says ",
                                 StateText(job.state), ", its events end in ",
                                 state));
  }
  if (job.has_ended != IsTerminalText(StateText(job.state))) {
    found.push_back(absl::StrCat("I2: ", job_id, " is ", StateText(job.state),
                                 job.has_ended ? " and has" : " without",
                                 " a time of its end"));
  }
}

void CheckPublication(const std::string& job_id, const StoreView& store,
                      const std::vector<v1::Event>& events, Violations& found) {
  const StoreView::JobRow& job = store.jobs.at(job_id);
  std::vector<const v1::Event*> published;
  for (const v1::Event& event : events) {
    if (event.kind() == v1::EVENT_KIND_ARTIFACT_PUBLISHED) {
      published.push_back(&event);
    }
  }
  const size_t wanted = job.state == v1::JOB_STATE_SUCCEEDED ? 1 : 0;
  if (published.size() != wanted) {
    found.push_back(absl::StrCat("I2: ", job_id, " is ", StateText(job.state),
                                 " and was published ", published.size(),
                                 " times"));
  }
  if (published.empty()) return;
  uint64_t last_epoch = 0;
  for (const auto& [epoch, row] : store.attempts) {
    if (row.job_id == job_id) last_epoch = std::max(last_epoch, epoch);
  }
  if (published.back()->epoch() != last_epoch) {
    found.push_back(absl::StrCat("I3: ", job_id, " was published by epoch ",
                                 published.back()->epoch(),
                                 ", its last epoch is ", last_epoch));
  }
  const auto artifact = store.artifacts.find(job.status.artifact_name());
  if (artifact == store.artifacts.end()) {
    found.push_back(absl::StrCat("I2: ", job_id, " published '",
                                 job.status.artifact_name(),
                                 "', which is no artifact"));
  } else if (artifact->second.manifest_sha256() !=
                 job.status.artifact_manifest_sha256() ||
             artifact->second.manifest().epoch() != last_epoch) {
    found.push_back(absl::StrCat("I2: the artifact of ", job_id,
                                 " is not the one that its last attempt "
                                 "published"));
  }
}

void CheckAdapter(const std::string& job_id, const StoreView& store,
                  const std::map<std::string, std::string>& wanted,
                  Violations& found) {
  const StoreView::JobRow& job = store.jobs.at(job_id);
  if (job.state != v1::JOB_STATE_SUCCEEDED) return;
  const auto artifact = store.artifacts.find(job.status.artifact_name());
  if (artifact == store.artifacts.end()) return;  // Told above.
  std::map<std::string, std::string> files;
  for (const v1::FileEntry& file : artifact->second.manifest().files()) {
    files[file.path()] = file.sha256();
  }
  for (const auto& [path, sha256] : wanted) {
    if (files[path] == sha256) continue;
    found.push_back(absl::StrCat(
        "I6: ", path, " of ", job_id, " has sha256 ", files[path].substr(0, 12),
        "..., that of the undisturbed run ", sha256.substr(0, 12), "..."));
  }
}

void CheckTold(const StoreView& store, const ClientMemory& clients,
               Violations& found) {
  std::map<std::string, std::string> request_of;
  for (const auto& [request_id, job_id] : clients.jobs) {
    if (!store.jobs.contains(job_id) && !clients.deleted.contains(job_id)) {
      found.push_back(absl::StrCat("I1: a client was told that request ",
                                   request_id, " made ", job_id,
                                   ", which is not in the store"));
    }
    const auto [entry, is_new] = request_of.emplace(job_id, request_id);
    if (!is_new) {
      found.push_back(absl::StrCat("I1: requests ", entry->second, " and ",
                                   request_id, " were both answered with ",
                                   job_id));
    }
  }
  if (!clients.knows_all_jobs) return;
  for (const auto& [job_id, job] : store.jobs) {
    if (request_of.contains(job_id)) continue;
    found.push_back(absl::StrCat("I1: ", job_id,
                                 " is in the store, but no request was "
                                 "answered with it: it was made twice"));
  }
}

// Where an attempt is in its life, as the events tell it.
struct AttemptStory {
  std::string job_id;
  bool has_ended = false;
  std::string cause;
};

}  // namespace

void CheckJobs(const StoreView& store, const ClientMemory& clients,
               Violations& found) {
  CheckTold(store, clients, found);
  for (const auto& [job_id, job] : store.jobs) {
    const auto events = store.events.find(job_id);
    if (events == store.events.end()) {
      found.push_back(absl::StrCat("I1: ", job_id, " has no event"));
      continue;
    }
    CheckStates(job_id, job, events->second, found);
    CheckPublication(job_id, store, events->second, found);
    const auto wanted = clients.results.find(job_id);
    if (wanted != clients.results.end()) {
      CheckAdapter(job_id, store, wanted->second, found);
    }
  }
  for (const auto& [job_id, events] : store.events) {
    if (!store.jobs.contains(job_id)) {
      found.push_back(
          absl::StrCat("I1: ", job_id, " has events and no row: it was lost"));
    }
  }
}

void CheckAttempts(const StoreView& store, Violations& found) {
  std::map<uint64_t, AttemptStory> stories;
  std::map<std::string, uint64_t> live;
  uint64_t newest = 0;
  for (const v1::Event& event : store.all_events) {
    const uint64_t epoch = event.epoch();
    if (event.kind() == v1::EVENT_KIND_ATTEMPT_STARTED) {
      if (epoch <= newest) {
        found.push_back(absl::StrCat("I3: ", event.job_id(), " began epoch ",
                                     epoch, " after epoch ", newest));
      }
      newest = std::max(newest, epoch);
      if (live.contains(event.job_id())) {
        found.push_back(absl::StrCat("I3: ", event.job_id(), " began epoch ",
                                     epoch, " while epoch ",
                                     live[event.job_id()], " lived"));
      }
      stories[epoch].job_id = event.job_id();
      live[event.job_id()] = epoch;
      continue;
    }
    // DIVERGED is told of whichever attempt it was; it is a fault by itself.
    if (epoch == 0 || event.kind() == v1::EVENT_KIND_DIVERGED) continue;
    const auto acting = live.find(event.job_id());
    if (acting == live.end() || acting->second != epoch) {
      found.push_back(absl::StrCat(
          "I3: event ", event.job_seq(), " of ", event.job_id(), " (",
          event.message(), ") is of epoch ", epoch, " while ",
          acting == live.end() ? "none" : absl::StrCat(acting->second),
          " acted"));
    }
    if (event.kind() == v1::EVENT_KIND_ATTEMPT_ENDED) {
      stories[epoch].has_ended = true;
      stories[epoch].cause = FieldOf(event, "cause");
      live.erase(event.job_id());
    }
  }
  if (newest > store.last_epoch) {
    found.push_back(absl::StrCat("I3: epoch ", newest, " was begun, but the ",
                                 "store would give out ", store.last_epoch + 1,
                                 " next"));
  }
  for (const auto& [epoch, story] : stories) {
    const auto row = store.attempts.find(epoch);
    if (row == store.attempts.end() || row->second.job_id != story.job_id) {
      found.push_back(absl::StrCat("I3: epoch ", epoch, " of ", story.job_id,
                                   " is in the events, its row is ",
                                   row == store.attempts.end()
                                       ? "missing"
                                       : "of " + row->second.job_id));
      continue;
    }
    const std::string cause =
        row->second.has_cause ? CauseText(row->second.attempt.cause()) : "";
    if (cause != story.cause) {
      found.push_back(absl::StrCat("I3: the row of epoch ", epoch, " of ",
                                   story.job_id, " ended '", cause,
                                   "', its events say '", story.cause, "'"));
    }
  }
  for (const auto& [epoch, row] : store.attempts) {
    if (!stories.contains(epoch)) {
      found.push_back(absl::StrCat("I3: epoch ", epoch, " of ", row.job_id,
                                   " has a row and no event"));
    }
  }
}

void CheckEvents(const StoreView& store, const ClientMemory& clients,
                 Violations& found) {
  for (const auto& [job_id, events] : store.events) {
    int64_t last = 0;
    for (const v1::Event& event : events) {
      if (event.job_seq() != last + 1) {
        found.push_back(absl::StrCat("I1: event ", last, " of ", job_id,
                                     " is followed by event ",
                                     event.job_seq()));
      }
      last = event.job_seq();
    }
  }
  for (const auto& [job_id, told] : clients.events) {
    if (clients.deleted.contains(job_id)) continue;
    const auto stored = store.events.find(job_id);
    int64_t last = 0;
    for (const v1::Event& event : told) {
      if (event.job_seq() != last + 1) {
        found.push_back(absl::StrCat("I1: a watcher of ", job_id,
                                     " was told event ", event.job_seq(),
                                     " after event ", last));
      }
      last = event.job_seq();
      const v1::Event* kept = nullptr;
      if (stored != store.events.end()) {
        for (const v1::Event& candidate : stored->second) {
          if (candidate.job_seq() == event.job_seq()) kept = &candidate;
        }
      }
      if (kept == nullptr) {
        found.push_back(absl::StrCat("I1: a watcher of ", job_id,
                                     " was told event ", event.job_seq(),
                                     ", which is not in the store"));
      } else if (kept->message() != event.message() ||
                 kept->kind() != event.kind() ||
                 kept->epoch() != event.epoch()) {
        found.push_back(absl::StrCat(
            "I1: event ", event.job_seq(), " of ", job_id, " was told as '",
            event.message(), "', the store says '", kept->message(), "'"));
      }
    }
  }
}

Violations CheckInvariants(const Evidence& evidence) {
  Violations found;
  const absl::StatusOr<StoreView> store = ReadStore(evidence.coordinator_dir);
  if (!store.ok()) {
    found.push_back(
        absl::StrCat("the store cannot be read: ", store.status().message()));
    return found;
  }
  if (store->integrity != "ok") {
    found.push_back(
        absl::StrCat("I1: the store is damaged: ", store->integrity));
  }
  if (!evidence.sync_audit.empty()) {
    const std::string faults =
        ReadFile(evidence.sync_audit, 1 << 24).value_or("");
    for (const absl::string_view fault :
         absl::StrSplit(faults, '\n', absl::SkipEmpty())) {
      found.push_back(absl::StrCat("I1: ", fault));
    }
  }
  CheckJobs(*store, evidence.clients, found);
  CheckAttempts(*store, found);
  CheckEvents(*store, evidence.clients, found);
  CheckSteps(*store, found);
  CheckBlobs(*store, evidence.coordinator_dir, found);
  CheckLeavings(evidence, found);
  CheckSecrets(*store, evidence, found);
  return found;
}

}  // namespace ft::testing
