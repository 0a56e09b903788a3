// SPDX-License-Identifier: Apache-2.0
//
// A job file as questions to the ledger (plan_memory.h): one for what it says,
// and one for each way to change it.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ft/v1/job_spec.pb.h"
#include "jobspec/plan_memory.h"

namespace ft {

// What is known of the machines. Unset: nothing is compared with it.
struct PlanOptions {
  // Bytes of a device. Given, a job of CPU ranks is planned for devices.
  std::optional<int64_t> device_memory;
  // Bytes of the host, for all ranks together.
  std::optional<int64_t> host_memory;
  // Instead of those of the job file.
  std::optional<int> ranks;
  // Tokens of the longest example; unset: data.cutoff_len.
  std::optional<int64_t> longest;
  // Of all ranks together, as ftctl watch shows it.
  std::optional<double> tokens_per_second;
};

// A key of the job file and what to write there.
struct PlanChange {
  std::string key;    // "model.recompute"
  std::string value;  // "block"
};

// What a proposal may change, the cheapest first: time, then exactness, then
// another method. The chunk of the loss is the trainer's own choice
// (LossChunkRows) and never a question.
enum Rung {
  kRecompute,
  kMicro,
  kEightBit,
  kStage,
  kOffload,
  kLora,
  kNf4,
  kRungs,
};

// How far each rung is climbed: 0 is what the job file says.
using Levels = std::array<int, kRungs>;

// Whether weights of the base itself learn.
bool LearnsWholeBlocks(const v1::JobSpec& spec);

// Not thread-safe. The model must outlive it.
class JobQuestion {
 public:
  // Of the spec with its defaults, on the ranks of the options if they say so.
  JobQuestion(v1::JobSpec spec, const ModelShape& model,
              const PlanOptions& options);

  // What of the spec does not fit the model or the options; a line each,
  // "adaptation.lora.targets: ...".
  std::vector<std::string> Faults() const;

  const v1::JobSpec& spec() const { return spec_; }
  bool on_device() const { return on_device_; }
  // The job file asks for CPU ranks, the options name a device.
  bool is_moved_to_devices() const { return is_moved_to_devices_; }
  int ranks() const { return ranks_; }
  // Tokens of an example, at most.
  int64_t longest() const { return longest_; }
  // Examples of a lane's micro-batch: at a level of its rung, of a lane's share
  // of the batch at most.
  int64_t Micro(int level) const;
  // Whether an example is two sequences.
  bool IsPairs() const;
  // "LoRA of rank 16 on all over NF4".
  std::string Method() const;

  // What model.recompute: auto may come to.
  void RecomputeBlocks() { recomputes_ = true; }

  // The highest level of a rung.
  int Height(int rung, int ranks) const;
  // Whether jobspec/validate.h takes the job file so changed: stage 3 computes
  // blocks again, moments of 8 bits are divided, what learns is not quantised.
  bool IsAllowed(const Levels& levels) const;
  MemoryQuestion At(const Levels& levels, int ranks) const;
  // What to write for it.
  std::vector<PlanChange> Changes(const Levels& levels, int ranks) const;

 private:
  int64_t Lanes(int ranks) const;
  int64_t Tokens(int64_t micro) const;
  double MomentBytes() const;

  v1::JobSpec spec_;
  const ModelShape& model_;
  bool on_device_ = false;
  bool is_moved_to_devices_ = false;
  int ranks_ = 1;
  int64_t longest_ = 0;
  bool recomputes_ = false;
  bool has_lanes_ = false;  // By the job file; else there are as many as ranks.
};

}  // namespace ft
