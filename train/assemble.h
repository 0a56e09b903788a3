// SPDX-License-Identifier: Apache-2.0
//
// Names in a job spec become objects here, and nowhere else.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "collective/collective.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "model/transformer.h"
#include "text/model_text.h"
#include "train/job.h"
#include "train/link.h"
#include "train/objective.h"
#include "train/sharded_model.h"
#include "train/trainer.h"

namespace ft {

// Everything a rank trains with. Members are destroyed in reverse order.
struct Assembly {
  std::unique_ptr<ModelText> text;
  Dataset train_data;
  Dataset validation_data;  // train is empty: no evaluation.
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Collective> ranks;
  std::unique_ptr<ShardedModel> sharded;
  std::unique_ptr<Objective> objective;
  std::unique_ptr<Loader> train_loader;
  std::unique_ptr<Loader> validation_loader;  // Null: no evaluation.
  std::unique_ptr<Trainer> trainer;
  std::string model_digest;
  int64_t total_steps = 0;

  ShardedOptimizer& optimizer() { return sharded->optimizer(); }
};

// Loads the model and the data, meets the other ranks by `link` and puts the
// trainer together at step 0.
// INVALID_ARGUMENT: the model or the data are wrong; every fault is named.
absl::StatusOr<std::unique_ptr<Assembly>> Assemble(const RankJob& job,
                                                   Link& link);

}  // namespace ft
