// SPDX-License-Identifier: Apache-2.0
//
// A job of seconds on tiny_chat, and ranks that run it as threads.

#pragma once

#include <functional>
#include <map>
#include <string>

#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/file.h"
#include "tests/testing/rank_threads.h"
#include "tests/testing/temp_dir.h"
#include "train/run.h"

namespace ft::testing {

// A link that keeps what it is told, and asks at a given step.
class RecordingLink : public Link {
 public:
  explicit RecordingLink(std::map<std::string, std::string>* keys,
                         absl::Mutex* mutex)
      : keys_(*keys), mutex_(*mutex) {}

  void Ready(const v1::RankReadyNotice& notice) override { ready = notice; }
  absl::Status WaitForBegin(absl::Duration) override {
    return absl::OkStatus();
  }
  void Step(const v1::StepMetrics& step) override { steps.push_back(step); }
  void SnapshotSealed(const v1::SnapshotSealed& sealed) override {
    absl::MutexLock lock(&mutex_);  // From the thread that hashes.
    sealed_steps.push_back(sealed.step());
  }
  void Checkpointed(const v1::CheckpointFiles& files) override {
    checkpoints.push_back(files);
  }
  void Exported(const v1::ExportFiles& files) override { exported = files; }
  void Tell(const v1::Event& event) override {
    events.push_back(event);
    if (on_event) on_event(event);
  }
  void Exit(const v1::RankExit&) override {}
  RankRequests TakeRequests() override {
    ++asked_;
    return {.checkpoint = asked_ == checkpoint_at,
            .yield = asked_ == yield_at,
            .stop = asked_ == stop_at};
  }
  absl::Status SetKey(absl::string_view key, absl::string_view value) override {
    absl::MutexLock lock(&mutex_);
    keys_[std::string(key)] = std::string(value);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> GetKey(absl::string_view key,
                                     absl::Duration timeout) override {
    absl::MutexLock lock(&mutex_);
    const auto is_set = [&] { return keys_.contains(std::string(key)); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&is_set), timeout)) {
      return absl::DeadlineExceededError("nobody came");
    }
    return keys_[std::string(key)];
  }

  // The n-th step from the start.
  int64_t checkpoint_at = 0, yield_at = 0, stop_at = 0;
  v1::RankReadyNotice ready;
  std::vector<v1::StepMetrics> steps;
  std::vector<int64_t> sealed_steps;
  std::vector<v1::CheckpointFiles> checkpoints;
  v1::ExportFiles exported;
  std::vector<v1::Event> events;
  std::function<void(const v1::Event&)> on_event;

 private:
  std::map<std::string, std::string>& keys_;
  absl::Mutex& mutex_;
  int64_t asked_ = 0;
};

inline v1::JobSpec TinySpec(int64_t lanes) {
  v1::JobSpec spec;
  spec.set_schema("ft.v1");
  spec.set_name("tiny");
  spec.mutable_model()->set_base("tiny-chat");
  v1::Dataset* dataset = spec.mutable_data()->add_train();
  dataset->set_format(v1::DATA_FORMAT_OPENAI);
  spec.mutable_data()->set_cutoff_len(256);
  spec.mutable_data()->set_packing(true);
  spec.mutable_stage()->mutable_sft();
  v1::Lora* lora = spec.mutable_adaptation()->mutable_lora();
  lora->set_rank(4);
  lora->set_alpha(8);
  lora->set_dropout(0.1);
  v1::AdamW* adamw = spec.mutable_optimizer()->mutable_adamw();
  adamw->set_beta1(0.9);
  adamw->set_beta2(0.999);
  adamw->set_eps(1e-8);
  adamw->set_weight_decay(0.01);
  spec.mutable_schedule()->set_epochs(3);
  spec.mutable_schedule()->set_learning_rate(0.01);
  spec.mutable_schedule()->set_warmup_ratio(0.1);
  spec.mutable_batch()->set_sequences(8);
  spec.mutable_batch()->set_micro(1);
  spec.mutable_batch()->set_max_grad_norm(1);
  spec.mutable_parallelism()->set_zero_stage(1);
  spec.mutable_determinism()->set_strict(true);
  spec.mutable_determinism()->set_seed(42);
  spec.mutable_determinism()->set_lanes(static_cast<int32_t>(lanes));
  spec.mutable_determinism()->set_threads(1);
  spec.mutable_data()->mutable_validation()->set_share(0.2);
  spec.mutable_evaluation()->mutable_every()->set_epochs(1);
  spec.mutable_checkpointing()->mutable_keep()->set_last(2);
  return spec;
}

// 21 rows whose answers have different lengths.
inline std::string TinyRows() {
  std::string rows;
  for (int i = 0; i < 21; ++i) {
    std::string answer = "It is";
    for (int j = 0; j <= i % 5; ++j) answer += " so";
    rows += R"({"messages": [{"role": "user", "content": "What is )" +
            std::to_string(i * 7) +
            R"(?"}, {"role": "assistant", "content": ")" + answer + ".\"}]}\n";
  }
  return rows;
}

struct TinyRun {
  std::vector<RunOutcome> outcomes;
  std::vector<std::unique_ptr<RecordingLink>> links;

  std::string AdapterBytes() const {
    return ReadFile(
               JoinPath(links[0]->exported.dir(), "adapter_model.safetensors"),
               1 << 24)
        .value();
  }
};

struct TinyOptions {
  int world = 1;
  int64_t yield_at = 0;
  int64_t checkpoint_at = 0;
  bool resume = false;
  bool validates_on_training_rows = false;  // For specs with validation.path.
  // Dies after that step: without a checkpoint, as if it was killed.
  int64_t stop_at = 0;
  // Local snapshots: rings snapshots/rank-N in the workspace.
  bool has_snapshots = false;
  int64_t snapshot_bytes = 64 << 20;
  std::vector<int64_t> source_snapshot_steps = {};
  std::string model_dir = FT_TEST_SOURCE_DIR "/tests/golden/models/tiny_chat";
  // What any rank tells; on their threads.
  std::function<void(const v1::Event&)> on_event = {};
};

inline std::string RingOf(const std::string& dir, int rank) {
  return dir + "/snapshots/rank-" + std::to_string(rank);
}

// Runs the job in `dir`; ranks share the workspace.
inline TinyRun RunTiny(const v1::JobSpec& spec, const std::string& dir,
                       const TinyOptions& options) {
  FT_CHECK(MakeDirs(dir + "/snapshots").ok());
  FT_CHECK(WriteFileAtomic(dir + "/train.jsonl", TinyRows()).ok());
  std::map<std::string, std::string> keys;
  absl::Mutex mutex;
  TinyRun run;
  run.outcomes.resize(options.world);
  for (int rank = 0; rank < options.world; ++rank) {
    run.links.push_back(std::make_unique<RecordingLink>(&keys, &mutex));
    run.links.back()->yield_at = rank == 0 ? options.yield_at : 0;
    run.links.back()->checkpoint_at = rank == 0 ? options.checkpoint_at : 0;
    run.links.back()->stop_at = rank == 0 ? options.stop_at : 0;
    run.links.back()->on_event = options.on_event;
  }
  OnEveryRank(options.world, [&](int rank) {
    const RankJob job{
        .job_id = "job-test",
        .epoch = 1,
        .rank = rank,
        .world = options.world,
        .spec = spec,
        .workspace = dir,
        .model_dir = options.model_dir,
        .train_files = {dir + "/train.jsonl"},
        .validation_file =
            options.validates_on_training_rows ? dir + "/train.jsonl" : "",
        .snapshot_ring = options.has_snapshots ? RingOf(dir, rank) : "",
        .snapshot_bytes = options.snapshot_bytes,
        .source_snapshot_steps = options.source_snapshot_steps,
        .secret = std::string(32, 's')};
    run.outcomes[rank] = RunRank(job, *run.links[rank], options.resume);
  });
  return run;
}

}  // namespace ft::testing
