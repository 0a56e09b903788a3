// SPDX-License-Identifier: Apache-2.0
//
// Ten AdamW steps of LoRA equal PEFT's: loss, gradient norm, learning rate and
// the final adapter (tests/golden/training/llama_untied/lora).

#include <cmath>

#include "collective/thread_collective.h"
#include "formats/peft_adapter.h"
#include "tests/model/golden.h"
#include "tests/testing/rank_threads.h"
#include "tests/testing/status_matchers.h"
#include "train/learning_rate.h"
#include "train/sharded_model.h"

namespace ft {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;
using testing::PackRows;
using testing::Supervised;

constexpr char kGolden[] = "training/llama_untied/lora/";

struct LogLine {
  double loss = 0, grad_norm = 0, learning_rate = 0;
};

// The golden's loop with its two micro-batches dealt as two rounds of one lane,
// or as one round of two lanes over `ranks` ranks.
struct Trained {
  std::vector<LogLine> log;
  std::map<std::string, at::Tensor> adapter;
};

Trained Train(bool as_lanes, int ranks) {
  const GoldenTensors data("training/llama_untied/data.safetensors");
  const auto expected = GoldenJson(std::string(kGolden) + "expected.json");
  const auto hyper = expected["hyper"];
  const auto group = MakeThreadCollectives(ranks);
  Trained trained;
  testing::OnEveryRank(ranks, [&](int rank) {
    const auto model = testing::LoadGoldenModel("llama_untied");
    FT_ASSERT_OK(
        model->LoadAdapter(GoldenPath(std::string(kGolden) + "adapter_init")));
    ShardedModel sharded(
        *model,
        {.zero = {.zero_stage = 1,
                  .lanes_per_rank = as_lanes && ranks == 1 ? 2 : 1,
                  .weight_decay = hyper["weight_decay"]}},
        *group[rank]);
    ShardedOptimizer& optimizer = sharded.optimizer();
    const LearningRateSchedule schedule{.peak = hyper["lr"],
                                        .warmup_steps = hyper["warmup"],
                                        .total_steps = hyper["steps"]};
    for (int64_t step = 0; step < 10; ++step) {
      std::vector<Supervised> micro;
      size_t targets = 0;
      for (int64_t m = 0; m < 2; ++m) {
        micro.push_back(PackRows(data["input_ids"][step][m],
                                 data["attention_mask"][step][m],
                                 data["labels"][step][m]));
        targets += micro.back().rows.size();
      }
      double loss = 0;
      for (int64_t m = 0; m < 2; ++m) {
        // With two ranks each takes its own lane.
        if (ranks == 2 && m != rank) continue;
        const at::Tensor part =
            model->LossSum(model->Forward(micro[m].batch), micro[m].rows,
                           micro[m].labels, 1.0 / static_cast<double>(targets));
        part.backward();
        loss += part.item<double>();
        optimizer.TakeLane();
        if (!as_lanes) {
          FT_ASSERT_OK(optimizer.ReduceScatterRound());
        }
      }
      if (as_lanes) {
        FT_ASSERT_OK(optimizer.ReduceScatterRound());
      }
      std::vector<double> losses = {loss};
      FT_ASSERT_OK(group[rank]->AllReduce(losses));
      FT_ASSERT_OK_AND_ASSIGN(const double norm,
                              optimizer.ClipGradients(hyper["clip"]));
      FT_ASSERT_OK(optimizer.Update(schedule.At(step)));
      if (rank == 0) {
        trained.log.push_back({losses[0], norm, schedule.At(step)});
      }
    }
    if (rank == 0) {
      for (const NamedParameter& parameter : model->Trainables()) {
        trained.adapter["base_model.model." + parameter.name + ".weight"] =
            parameter.tensor.detach().clone();
      }
    }
  });
  return trained;
}

void ExpectEqualsPeft(const Trained& trained) {
  const auto expected = GoldenJson(std::string(kGolden) + "expected.json");
  const GoldenTensors final_tensors(std::string(kGolden) + "final.safetensors");
  ASSERT_EQ(trained.log.size(), 10u);
  const auto allowed = [&](const char* what) {
    return std::max(2e-5,
                    10 * expected["noise_eager_vs_sdpa"][what].get<double>());
  };
  for (size_t step = 0; step < 10; ++step) {
    const auto& want = expected["log"][step];
    const double norm = want["grad_norm"], loss = want["loss"];
    EXPECT_NEAR(trained.log[step].loss, loss, allowed("loss")) << step;
    EXPECT_NEAR(trained.log[step].grad_norm, norm, allowed("grad_norm") * norm)
        << step;
    EXPECT_NEAR(trained.log[step].learning_rate, want["lr"], 1e-12) << step;
  }
  size_t compared = 0;
  for (const auto& [name, tensor] : trained.adapter) {
    const at::Tensor want = final_tensors[name];
    EXPECT_LE((tensor - want).abs().max().item<double>(), 2e-4) << name;
    EXPECT_LE(((tensor - want).norm() / want.norm()).item<double>(), 1e-5)
        << name;
    ++compared;
  }
  EXPECT_EQ(compared, 28u);
}

TEST(LoraGoldenTest, TwoRoundsOfOneLaneEqualPeft) {
  ExpectEqualsPeft(Train(/*as_lanes=*/false, /*ranks=*/1));
}

TEST(LoraGoldenTest, TwoLanesEqualPeftAndAreTheSameBitsOnTwoRanks) {
  const Trained one = Train(/*as_lanes=*/true, /*ranks=*/1);
  const Trained two = Train(/*as_lanes=*/true, /*ranks=*/2);
  ExpectEqualsPeft(one);
  for (const auto& [name, tensor] : one.adapter) {
    EXPECT_TRUE(tensor.equal(two.adapter.at(name))) << name;
  }
  for (size_t step = 0; step < 10; ++step) {
    EXPECT_EQ(one.log[step].loss, two.log[step].loss);
    EXPECT_EQ(one.log[step].grad_norm, two.log[step].grad_norm);
  }
}

}  // namespace
}  // namespace ft
