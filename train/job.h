// SPDX-License-Identifier: Apache-2.0
//
// What a rank is told to do: the frozen job spec, and where its inputs lie on
// this machine. From a daemon's RankStart, or from the command line.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "formats/model_spec.h"
#include "ft/v1/job_spec.pb.h"
#include "ft/v1/ranks.pb.h"
#include "train/learning_rate.h"

namespace ft {

struct RankJob {
  std::string job_id;
  uint64_t epoch = 0;
  int rank = 0;
  int world = 1;
  v1::JobSpec spec;  // Every default fixed (jobspec/defaults.h).
  std::string workspace;
  std::string model_dir;
  std::vector<std::string> train_files;  // Of spec.data.train, in order.
  std::string validation_file;           // Empty: none, or a share.
  std::string source_checkpoint_dir;     // Empty: from the beginning.
  // The ring of this rank's local snapshots, the most bytes it may take, and
  // the steps in it to go on from, the best first. Empty: no snapshots.
  std::string snapshot_ring;
  int64_t snapshot_bytes = 0;
  std::vector<int64_t> source_snapshot_steps;
  std::string secret;
  // A descriptor of memory that all ranks share, for they are all on this
  // machine; not owned. -1: they meet by TCP.
  int shared_memory = -1;
  std::string bind_address = "127.0.0.1";

  int64_t lanes() const { return spec.determinism().lanes(); }
  int64_t lanes_per_rank() const { return lanes() / world; }
};

RankJob JobOf(const v1::RankStart& start);

// The data options of the training files, and of the validation file, for a
// model with that many tokens.
DatasetOptions TrainDataOptions(const RankJob& job, int64_t vocab_size);
DatasetOptions ValidationDataOptions(const RankJob& job, int64_t vocab_size);

// The linears that learn; empty: all.
std::vector<std::string> LoraTargets(const v1::JobSpec& spec);

// How the base is quantised when it is loaded; nothing: not at all.
std::optional<Nf4Quantization> QuantizationOf(const v1::JobSpec& spec);

// What the job asks of the model that the model does not have, every fault with
// its key. Before any weight is read.
std::vector<std::string> FaultsWithModel(const v1::JobSpec& spec,
                                         const ModelSpec& model);

// "tokenizer", or the name of a built-in template.
std::string TemplateName(const v1::JobSpec& spec);

// The batches of this rank.
LoaderOptions TrainLoaderOptions(const RankJob& job);

// All steps of the job over `examples` training examples.
int64_t TotalSteps(const v1::JobSpec& spec, int64_t examples);

LearningRateSchedule ScheduleOf(const v1::JobSpec& spec, int64_t total_steps);

}  // namespace ft
