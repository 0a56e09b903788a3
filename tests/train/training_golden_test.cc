// SPDX-License-Identifier: Apache-2.0
//
// Ten optimizer steps equal the reference's, whatever learns and however it is
// divided: loss, gradient norm, learning rate and final weights of LoRA (PEFT),
// full and last-block fine-tuning (torch), tests/golden/training/llama_untied.
// Those of LoRA on a quantised base equal, to the bit, those on the weights it
// stands for.

#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "collective/thread_collective.h"
#include "formats/peft_adapter.h"
#include "tests/model/golden.h"
#include "tests/model/packed_model.h"
#include "tests/testing/rank_threads.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "train/learning_rate.h"
#include "train/sharded_model.h"

namespace ft {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;
using testing::PackRows;
using testing::Supervised;

constexpr char kRoot[] = "training/llama_untied/";

struct LogLine {
  double loss = 0, grad_norm = 0, learning_rate = 0;
};

// The golden's loop with its two micro-batches dealt as two rounds of one lane,
// or as one round of two lanes over `ranks` ranks.
struct Division {
  bool as_lanes = true;
  int ranks = 1;
  int zero_stage = 1;
  bool recomputes = false;
};

std::string Describe(const Division& division) {
  return absl::StrCat(division.as_lanes ? "lanes" : "rounds", ", ",
                      division.ranks, " ranks, stage ", division.zero_stage,
                      division.recomputes ? ", recomputed" : "");
}

struct Trained {
  std::vector<LogLine> log;
  std::map<std::string, at::Tensor> weights;  // By their names in the golden.
};

struct Recipe {
  std::string model_dir = GoldenPath("models/llama_untied");
  std::optional<Nf4Quantization> quantize;
  double peak = 0, weight_decay = 0.01, clip = 1;
  int64_t warmup = 0, steps = 0;
  MomentFormat moments = MomentFormat::kFp32;
};

// What learns, after the last step. Collective.
std::map<std::string, at::Tensor> WeightsOf(ShardedModel& sharded) {
  std::map<std::string, at::Tensor> weights;
  FT_EXPECT_OK(sharded.ForEachUnit([&](int64_t unit) {
    for (const NamedParameter& parameter : sharded.model().Trainables()) {
      if (parameter.unit != unit) continue;
      const std::string name =
          parameter.is_adapter
              ? absl::StrCat("base_model.model.", parameter.name, ".weight")
              : parameter.name;
      weights[name] = parameter.tensor.detach().clone();
    }
  }));
  return weights;
}

Trained Train(const std::string& method, const Recipe& recipe,
              const Division& division) {
  const int ranks = division.ranks;
  const GoldenTensors data(absl::StrCat(kRoot, "data.safetensors"));
  const auto group = MakeThreadCollectives(ranks);
  Trained trained;
  testing::OnEveryRank(ranks, [&](int rank) {
    const auto model =
        Transformer::Load(OpenHfDirectory(recipe.model_dir).value(),
                          recipe.quantize)
            .value();
    if (method == "lora") {
      FT_ASSERT_OK(model->LoadAdapter(
          GoldenPath(absl::StrCat(kRoot, "lora/adapter_init"))));
    } else if (method == "full") {
      model->TrainEverything();
    } else {
      model->TrainBlocks(1);
    }
    const bool as_lanes = division.as_lanes;
    ShardedModel sharded(
        *model,
        {.zero = {.zero_stage = division.zero_stage,
                  .lanes_per_rank = as_lanes && ranks == 1 ? 2 : 1,
                  .weight_decay = recipe.weight_decay,
                  .moments = recipe.moments},
         .recomputes_blocks = division.recomputes},
        *group[rank]);
    ShardedOptimizer& optimizer = sharded.optimizer();
    const LearningRateSchedule schedule{.peak = recipe.peak,
                                        .warmup_steps = recipe.warmup,
                                        .total_steps = recipe.steps};
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
        sharded.BeginPass(/*is_last_of_lane=*/true);
        const at::Tensor part =
            model->LossSum(model->Forward(micro[m].batch), micro[m].rows,
                           micro[m].labels, 1.0 / static_cast<double>(targets));
        part.backward();
        FT_ASSERT_OK(sharded.status());
        loss += part.item<double>();
        optimizer.TakeLane();
        if (!as_lanes) FT_ASSERT_OK(optimizer.ReduceScatterRound());
      }
      if (as_lanes) FT_ASSERT_OK(optimizer.ReduceScatterRound());
      std::vector<double> losses = {loss};
      FT_ASSERT_OK(group[rank]->AllReduce(losses));
      FT_ASSERT_OK_AND_ASSIGN(const double norm,
                              optimizer.ClipGradients(recipe.clip));
      FT_ASSERT_OK(optimizer.Update(schedule.At(step)));
      if (rank == 0) {
        trained.log.push_back({losses[0], norm, schedule.At(step)});
      }
    }
    auto weights = WeightsOf(sharded);
    if (rank == 0) trained.weights = std::move(weights);
  });
  return trained;
}

Recipe RecipeOf(const nlohmann::json& expected) {
  const auto& hyper = expected["hyper"];
  return {.peak = hyper["lr"],
          .weight_decay = hyper["weight_decay"],
          .clip = hyper["clip"],
          .warmup = hyper["warmup"],
          .steps = hyper["steps"]};
}

void ExpectSameBits(const Trained& one, const Trained& other,
                    const std::string& what) {
  ASSERT_EQ(one.weights.size(), other.weights.size());
  for (const auto& [name, tensor] : one.weights) {
    EXPECT_TRUE(tensor.equal(other.weights.at(name))) << what << ", " << name;
  }
  for (size_t step = 0; step < 10; ++step) {
    EXPECT_EQ(one.log[step].loss, other.log[step].loss) << what;
    EXPECT_EQ(one.log[step].grad_norm, other.log[step].grad_norm) << what;
  }
}

class TrainingGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  const std::string method_ = GetParam();
  const nlohmann::json expected_ =
      GoldenJson(absl::StrCat(kRoot, method_, "/expected.json"));

  Trained Train(const Division& division) {
    return ft::Train(method_, RecipeOf(expected_), division);
  }

  void ExpectEqualsReference(const Trained& trained) {
    const GoldenTensors final_tensors(
        absl::StrCat(kRoot, method_, "/final.safetensors"));
    ASSERT_EQ(trained.log.size(), 10u);
    const auto allowed = [&](const char* what) {
      return std::max(
          2e-5, 10 * expected_["noise_eager_vs_sdpa"][what].get<double>());
    };
    for (size_t step = 0; step < 10; ++step) {
      const auto& want = expected_["log"][step];
      const double norm = want["grad_norm"], loss = want["loss"];
      EXPECT_NEAR(trained.log[step].loss, loss, allowed("loss")) << step;
      EXPECT_NEAR(trained.log[step].grad_norm, norm,
                  allowed("grad_norm") * norm)
          << step;
      EXPECT_NEAR(trained.log[step].learning_rate, want["lr"], 1e-12) << step;
    }
    for (const auto& [name, tensor] : trained.weights) {
      const at::Tensor want = final_tensors[name];
      EXPECT_LE((tensor - want).abs().max().item<double>(), 2e-4) << name;
      EXPECT_LE(((tensor - want).norm() / want.norm()).item<double>(), 1e-5)
          << name;
    }
    const size_t tensors = method_ == "lora" ? 28 : method_ == "full" ? 21 : 9;
    EXPECT_EQ(trained.weights.size(), tensors);
  }
};

TEST_P(TrainingGoldenTest, TwoRoundsOfOneLaneEqualTheReference) {
  ExpectEqualsReference(Train({.as_lanes = false}));
}

TEST_P(TrainingGoldenTest, HoweverItIsDividedItIsTheReferenceToTheSameBits) {
  const Trained one = Train({});
  ExpectEqualsReference(one);
  for (const int ranks : {1, 2}) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const bool recomputes : {false, true}) {
        const Division division{
            .ranks = ranks, .zero_stage = stage, .recomputes = recomputes};
        ExpectSameBits(one, Train(division), Describe(division));
      }
    }
  }
}

TEST(QloraTest, TenStepsEqualThoseOnTheExpandedWeightsHoweverTheyAreDivided) {
  const testing::TestDir dir;
  const Recipe plain =
      RecipeOf(GoldenJson("training/llama_untied/lora/expected.json"));
  Recipe quantised = plain, expanded = plain;
  quantised.quantize = Nf4Quantization{};
  testing::ExpandedCopy(plain.model_dir, Nf4Quantization{}, dir.path());
  expanded.model_dir = dir.path();
  const Trained want = Train("lora", expanded, {});
  for (const int ranks : {1, 2}) {
    for (const int stage : {1, 3}) {
      const Division division{.ranks = ranks, .zero_stage = stage};
      ExpectSameBits(want, Train("lora", quantised, division),
                     Describe(division));
    }
  }
  EXPECT_NE(want.log[0].loss, Train("lora", plain, {}).log[0].loss);
}

// Leaves in its n-th call, as a rank that is killed.
class LeavingCollective : public Collective {
 public:
  LeavingCollective(Collective& inner, int leaves_at)
      : inner_(inner), left_(leaves_at) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  absl::Status AllGather(std::span<std::byte> out,
                         std::span<const std::byte> in) override {
    Count();
    return inner_.AllGather(out, in);
  }
  absl::Status AllToAll(std::span<std::byte> out,
                        std::span<const std::byte> in) override {
    Count();
    return inner_.AllToAll(out, in);
  }
  absl::Status Broadcast(std::span<std::byte> data, int root) override {
    return inner_.Broadcast(data, root);
  }
  absl::Status Barrier() override { return inner_.Barrier(); }
  void Abort(const absl::Status& why) override { inner_.Abort(why); }
  uint64_t sequence_hash() const override { return inner_.sequence_hash(); }
  const CollectiveBytes& bytes_sent() const override {
    return inner_.bytes_sent();
  }
  bool has_left() const { return left_ < 0; }

 private:
  void Count() {
    if (left_-- == 0) inner_.Abort(absl::CancelledError("killed"));
  }

  Collective& inner_;
  int left_;
};

// Of one step; the first error.
absl::Status TakeStep(ShardedModel& sharded, const Supervised& batch) {
  Transformer& model = sharded.model();
  ShardedOptimizer& optimizer = sharded.optimizer();
  sharded.BeginPass(/*is_last_of_lane=*/true);
  model
      .LossSum(model.Forward(batch.batch), batch.rows, batch.labels,
               1.0 / static_cast<double>(batch.rows.size()))
      .backward();
  FT_RETURN_IF_ERROR(sharded.status());
  optimizer.TakeLane();
  FT_RETURN_IF_ERROR(optimizer.ReduceScatterRound());
  FT_RETURN_IF_ERROR(optimizer.ClipGradients(1).status());
  return optimizer.Update(0.01);
}

TEST(ShardedModelTest, ARankThatLeavesInAnyCallIsAnErrorOfTheOthersAndNoCrash) {
  const GoldenTensors data(absl::StrCat(kRoot, "data.safetensors"));
  const Supervised batch =
      PackRows(data["input_ids"][0][0], data["attention_mask"][0][0],
               data["labels"][0][0]);
  for (const int stage : {2, 3}) {
    bool has_left = true;
    for (int call = 0; has_left; ++call) {
      ASSERT_LT(call, 100);
      const auto group = MakeThreadCollectives(2);
      std::array<absl::Status, 2> statuses;
      testing::OnEveryRank(2, [&](int rank) {
        const auto model = testing::LoadGoldenModel("llama_untied");
        model->TrainEverything();
        LeavingCollective leaving(*group[rank], rank == 1 ? call : 1 << 20);
        ShardedModel sharded(*model, {.zero = {.zero_stage = stage}}, leaving);
        statuses[rank] = TakeStep(sharded, batch);
        if (rank == 1) has_left = leaving.has_left();
      });
      for (const absl::Status& status : statuses) {
        EXPECT_EQ(status.ok(), !has_left)
            << "stage " << stage << ", call " << call << ": " << status;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, TrainingGoldenTest,
                         ::testing::Values("lora", "full", "freeze"));

}  // namespace
}  // namespace ft
