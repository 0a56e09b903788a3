// SPDX-License-Identifier: Apache-2.0
//
// I4, I5, I7 and I8: steps and checkpoints, the bytes of the blobs, what is
// left of those who died, and secrets where none may be.

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <bitset>
#include <cstring>
#include <filesystem>
#include <unordered_map>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/file.h"
#include "tests/testing/invariants.h"

namespace ft::testing {
namespace {

constexpr int64_t kMaxFile = int64_t{1} << 30;

int64_t StepOf(const v1::Event& event, const std::string& key) {
  int64_t step = 0;
  const auto field = event.fields().find(key);
  if (field != event.fields().end()) absl::SimpleAtoi(field->second, &step);
  return step;
}

// Checkpoints and sources of one job: forward only, but for a rotten one.
void CheckDurableSteps(const std::string& job_id, const StoreView& store,
                       const std::vector<v1::Event>& events,
                       Violations& found) {
  int64_t durable = 0;
  int64_t committed = 0;
  bool may_go_back = false;
  for (const v1::Event& event : events) {
    switch (event.kind()) {
      case v1::EVENT_KIND_CHECKPOINT_COMMITTED: {
        const int64_t step = StepOf(event, "step");
        if (step < committed) {
          found.push_back(absl::StrCat("I5: ", job_id, " committed step ", step,
                                       " after step ", committed));
        }
        committed = step;
        durable = std::max(durable, step);
        break;
      }
      case v1::EVENT_KIND_ATTEMPT_STARTED: {
        // Beyond what is durable there may be a snapshot.
        const int64_t source = StepOf(event, "source_step");
        if (source < durable && !may_go_back) {
          found.push_back(absl::StrCat("I5: ", job_id, " began epoch ",
                                       event.epoch(), " from step ", source,
                                       ", durable was step ", durable));
        }
        committed = source;
        may_go_back = false;
        break;
      }
      case v1::EVENT_KIND_ATTEMPT_ENDED: {
        const auto row = store.attempts.find(event.epoch());
        may_go_back = row != store.attempts.end() &&
                      row->second.attempt.status_code() ==
                          static_cast<int>(absl::StatusCode::kDataLoss);
        break;
      }
      case v1::EVENT_KIND_DIVERGED:
        found.push_back(absl::StrCat("I5: ", job_id, ": ", event.message()));
        break;
      default:
        break;
    }
  }
  const int64_t row = store.jobs.at(job_id).status.checkpoint_step();
  if (row != durable) {
    found.push_back(absl::StrCat("I5: the row of ", job_id, " says step ", row,
                                 " is durable, its events say step ", durable));
  }
}

bool SameBits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

// Points of training, not of evaluation, by step.
void CheckPoints(const std::string& job_id, const StoreView::JobRow& job,
                 const std::vector<v1::ReportRequest>& reports,
                 Violations& found) {
  std::map<std::pair<uint64_t, std::string>, int64_t> last_seq;
  std::map<int64_t, v1::StepMetrics> points;
  for (const v1::ReportRequest& report : reports) {
    int64_t& seq = last_seq[{report.epoch(), report.worker_id()}];
    if (report.seq() <= seq) {
      found.push_back(absl::StrCat("I5: report ", report.seq(), " of epoch ",
                                   report.epoch(), " of ", job_id,
                                   " was stored after report ", seq));
    }
    seq = report.seq();
    std::set<int64_t> in_this;
    for (const v1::StepMetrics& point : report.metrics()) {
      if (point.has_eval_loss()) continue;
      const auto [entry, is_new] = points.emplace(point.step(), point);
      if (is_new) continue;
      const v1::StepMetrics& before = entry->second;
      if (!SameBits(before.loss(), point.loss()) ||
          !SameBits(before.grad_norm(), point.grad_norm())) {
        found.push_back(absl::StrCat("I5: step ", point.step(), " of ", job_id,
                                     " had loss ", before.loss(), " and then ",
                                     point.loss()));
      }
      if (before.attempt_epoch() == report.epoch() ||
          !in_this.insert(point.step()).second) {
        found.push_back(absl::StrCat("I5: step ", point.step(), " of ", job_id,
                                     " is stored twice for epoch ",
                                     report.epoch()));
      }
      entry->second = point;
    }
  }
  int64_t through = job.status.checkpoint_step();
  if (job.state == v1::JOB_STATE_SUCCEEDED) {
    through = std::max(through, job.status.progress().total_steps());
  }
  std::vector<int64_t> missing;
  for (int64_t step = 1; step <= through; ++step) {
    if (!points.contains(step)) missing.push_back(step);
  }
  if (!missing.empty()) {
    found.push_back(absl::StrCat(
        "I5: ", missing.size(), " of ", through, " steps of ", job_id,
        " have no point; the first is step ", missing.front()));
  }
}

// A file and the digest that its name says.
void CheckBlob(const std::string& path, std::set<std::string>& whole,
               Violations& found) {
  const std::string name = BaseName(path);
  const std::string sha256 = Sha256OfFile(path).value_or("nothing readable");
  if (sha256 == name) {
    whole.insert(name);
    return;
  }
  if (!Exists(path)) return;  // Swept meanwhile.
  found.push_back(absl::StrCat("I4: blob ", name.substr(0, 12),
                               "... has the bytes of ", sha256.substr(0, 12),
                               "..."));
}

void CheckArtifact(const std::string& name, const v1::Artifact& artifact,
                   const std::string& blobs, const std::set<std::string>& whole,
                   Violations& found) {
  const std::string& sha256 = artifact.manifest_sha256();
  if (!whole.contains(sha256)) {
    found.push_back(
        absl::StrCat("I4: the manifest of ", name, " is no whole blob"));
    return;
  }
  const std::string path = JoinPath(blobs, sha256.substr(0, 2) + "/" + sha256);
  if (ReadFile(path, kMaxFile).value_or("") !=
      SerializeManifest(artifact.manifest())) {
    found.push_back(absl::StrCat("I4: the row of ", name,
                                 " is not what its manifest says"));
  }
  for (const v1::FileEntry& file : artifact.manifest().files()) {
    if (!whole.contains(file.sha256())) {
      found.push_back(
          absl::StrCat("I4: ", file.path(), " of ", name, " is no whole blob"));
    }
  }
}

bool IsTemporary(absl::string_view name) {
  return absl::StrContains(name, ".tmp-") || absl::EndsWith(name, ".part");
}

std::vector<std::string> FilesBelow(const std::string& dir) {
  std::vector<std::string> files;
  std::error_code error;
  std::filesystem::recursive_directory_iterator entry(dir, error), end;
  for (; !error && entry != end; entry.increment(error)) {
    if (!entry->is_directory(error)) files.push_back(entry->path());
  }
  return files;
}

std::string CommandLine(const std::string& pid) {
  return absl::StrReplaceAll(
      ReadFile("/proc/" + pid + "/cmdline", 1 << 16).value_or(""),
      {{std::string(1, '\0'), " "}});
}

// Looks for many secrets at once: by their first eight bytes.
class Secrets {
 public:
  void Add(const std::string& secret, const std::string& name) {
    if (secret.size() < kHead) return;
    by_head_[HeadAt(secret.data())].push_back({secret, name});
    is_second_byte_[static_cast<unsigned char>(secret[0])].set(
        static_cast<unsigned char>(secret[1]));
  }
  // Raw bytes, and as people print them.
  void AddBytes(const std::string& secret, const std::string& name) {
    Add(secret, name);
    Add(absl::BytesToHexString(secret), name);
    Add(absl::Base64Escape(secret), name);
  }

  void Search(const std::string& where, const std::string& bytes,
              Violations& found) const {
    for (size_t i = 0; i + kHead <= bytes.size(); ++i) {
      if (!is_second_byte_[static_cast<unsigned char>(bytes[i])].test(
              static_cast<unsigned char>(bytes[i + 1]))) {
        continue;
      }
      const auto candidates = by_head_.find(HeadAt(bytes.data() + i));
      if (candidates == by_head_.end()) continue;
      for (const auto& [secret, name] : candidates->second) {
        if (bytes.compare(i, secret.size(), secret) == 0) {
          found.push_back(absl::StrCat("I8: ", name, " stands in ", where));
        }
      }
    }
  }

 private:
  static constexpr size_t kHead = sizeof(uint64_t);
  static uint64_t HeadAt(const char* bytes) {
    uint64_t head;
    std::memcpy(&head, bytes, kHead);
    return head;
  }

  std::unordered_map<uint64_t, std::vector<std::pair<std::string, std::string>>>
      by_head_;
  std::array<std::bitset<256>, 256> is_second_byte_ = {};
};

Secrets SecretsOf(const StoreView& store, const std::string& coordinator_dir) {
  Secrets secrets;
  const std::string tokens = JoinPath(coordinator_dir, "tokens");
  for (const char* name : {"admin.token", "worker.token"}) {
    std::string token = ReadFile(JoinPath(tokens, name), 4096).value_or("");
    absl::StripTrailingAsciiWhitespace(&token);
    secrets.Add(token, name);
  }
  for (const auto& [epoch, row] : store.attempts) {
    secrets.AddBytes(
        HmacSha256(store.cluster_key, absl::StrCat("attempt/", epoch)),
        absl::StrCat("the secret of epoch ", epoch));
  }
  return secrets;
}

}  // namespace

std::map<pid_t, std::string> CommandLinesWith(const std::string& text) {
  std::map<pid_t, std::string> lines;
  for (const std::string& name :
       ListDir("/proc").value_or(std::vector<std::string>())) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(name, &pid) || pid == getpid() || pid == getppid()) {
      continue;
    }
    // A process that has ended and is not waited for has an empty line.
    std::string line = CommandLine(name);
    if (absl::StrContains(line, text)) lines[pid] = std::move(line);
  }
  return lines;
}

void CheckSteps(const StoreView& store, Violations& found) {
  for (const auto& [job_id, job] : store.jobs) {
    const auto events = store.events.find(job_id);
    if (events == store.events.end()) continue;  // Told by CheckJobs.
    CheckDurableSteps(job_id, store, events->second, found);
    const auto reports = store.reports.find(job_id);
    CheckPoints(job_id, job,
                reports == store.reports.end()
                    ? std::vector<v1::ReportRequest>()
                    : reports->second,
                found);
  }
}

void CheckBlobs(const StoreView& store, const std::string& coordinator_dir,
                Violations& found) {
  std::set<std::string> whole;
  for (const std::string& path : ListBlobs(coordinator_dir)) {
    CheckBlob(path, whole, found);
  }
  const std::string blobs = JoinPath(coordinator_dir, "blobs");
  for (const auto& [name, artifact] : store.artifacts) {
    CheckArtifact(name, artifact, blobs, whole, found);
  }
  for (const auto& [job_id, job] : store.jobs) {
    for (const v1::Dataset& dataset : job.spec.data().train()) {
      if (!whole.contains(dataset.sha256())) {
        found.push_back(absl::StrCat("I4: ", dataset.path(), " of ", job_id,
                                     " is no whole blob"));
      }
    }
  }
}

// A rank that a living worker keeps for the next job: with a job it would have
// gone into its workspace.
bool StandsBy(pid_t pid, const std::string& line,
              const std::map<pid_t, std::string>& all) {
  if (!absl::StrContains(line, " --standby")) return false;
  const std::string proc = absl::StrCat("/proc/", pid);
  std::error_code error;
  const std::string where =
      std::filesystem::read_symlink(proc + "/cwd", error).string();
  const std::string status = ReadFile(proc + "/status", 1 << 16).value_or("");
  const size_t at = status.find("PPid:");
  pid_t parent = 0;
  return !absl::StrContains(where, "/jobs/") && at != std::string::npos &&
         absl::SimpleAtoi(status.substr(at + 5, status.find('\n', at) - at - 5),
                          &parent) &&
         all.contains(parent);
}

void CheckLeavings(const Evidence& evidence, Violations& found) {
  if (!evidence.at_rest) return;
  const auto lines = CommandLinesWith(evidence.process_mark);
  const std::map<pid_t, std::string> all(lines.begin(), lines.end());
  for (const auto& [pid, line] : lines) {
    if (absl::StrContains(line, " rank ") && !StandsBy(pid, line, all)) {
      found.push_back(absl::StrCat("I7: process ", pid, " is left: ", line));
    }
  }
  for (const std::string& dir : evidence.worker_dirs) {
    for (const std::string& path : FilesBelow(dir)) {
      const bool is_input = DirName(path) == JoinPath(dir, "cache/blobs") &&
                            IsSha256Hex(BaseName(path));
      if (!is_input && path != JoinPath(dir, "lock") &&
          path != JoinPath(dir, "reserve")) {
        found.push_back(absl::StrCat("I7: ", path, " is left"));
      }
    }
  }
  for (const std::string& path : FilesBelow(evidence.coordinator_dir)) {
    if (IsTemporary(BaseName(path))) {
      found.push_back(absl::StrCat("I7: ", path, " is left"));
    }
  }
}

void CheckSecrets(const StoreView& store, const Evidence& evidence,
                  Violations& found) {
  const Secrets secrets = SecretsOf(store, evidence.coordinator_dir);
  Secrets and_key = secrets;
  // In the store by design, and nowhere else.
  and_key.AddBytes(store.cluster_key, "the key of the cluster");
  std::vector<std::string> files = evidence.log_files;
  for (const std::string& dir : evidence.worker_dirs) {
    for (std::string& path : FilesBelow(dir)) files.push_back(std::move(path));
  }
  for (std::string& path : FilesBelow(evidence.coordinator_dir)) {
    if (absl::StrContains(path, "/tokens/")) continue;
    files.push_back(std::move(path));
  }
  for (const std::string& path : files) {
    const bool is_store = absl::StrContains(path, "/state/");
    (is_store ? secrets : and_key)
        .Search(path, ReadFile(path, kMaxFile).value_or(""), found);
  }
  for (const auto& [pid, line] : CommandLinesWith(evidence.process_mark)) {
    and_key.Search(absl::StrCat("the command line of process ", pid), line,
                   found);
  }
}

}  // namespace ft::testing
