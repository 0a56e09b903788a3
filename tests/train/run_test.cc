// SPDX-License-Identifier: Apache-2.0
//
// Whole runs on tiny_chat: it learns, and the adapter is the same to the bit on
// one, two and four ranks, resumed or not.

#include "train/run.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "formats/hf_directory.h"
#include "formats/peft_adapter.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "sharding/partition.h"
#include "tests/testing/status_matchers.h"
#include "tests/train/tiny_job.h"
#include "train/checkpoint.h"

namespace ft {
namespace {

using testing::RunTiny;
using testing::TinyOptions;
using testing::TinyRun;
using testing::TinySpec;

class RunTest : public ::testing::Test {
 protected:
  testing::TestDir dir_;
};

std::unique_ptr<Transformer> LoadTinyChat() {
  return Transformer::Load(OpenHfDirectory(FT_TEST_SOURCE_DIR
                                           "/tests/golden/models/tiny_chat")
                               .value())
      .value();
}

void ExpectOk(const TinyRun& run) {
  for (const RunOutcome& outcome : run.outcomes) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  }
}

std::vector<double> Losses(const TinyRun& run) {
  std::vector<double> losses;
  for (const v1::StepMetrics& step : run.links[0]->steps) {
    losses.push_back(step.has_eval_loss() ? step.eval_loss() : step.loss());
  }
  return losses;
}

TEST_F(RunTest, AJobLearnsTellsItsProgressAndExportsAnAdapter) {
  const TinyRun run = RunTiny(TinySpec(1), dir_ / "a", {});
  ExpectOk(run);
  const auto& steps = run.links[0]->steps;
  ASSERT_GT(steps.size(), 6u);
  EXPECT_LT(steps[steps.size() - 2].loss(), steps[0].loss() - 0.3);
  EXPECT_EQ(steps.back().step(), steps.back().total_steps());
  EXPECT_TRUE(steps.back().has_eval_loss());
  EXPECT_EQ(steps[0].learning_rate(), 0);  // Warm-up begins at 0.
  EXPECT_EQ(run.outcomes[0].last_step, steps.back().total_steps());
  EXPECT_EQ(run.links[0]->exported.files_size(), 2);
  EXPECT_TRUE(Exists(dir_ / "a/export/adapter_config.json"));
}

TEST_F(RunTest, OneTwoAndFourRanksGiveTheSameAdapterToTheBit) {
  const TinyRun one = RunTiny(TinySpec(4), dir_ / "1", {.world = 1});
  const TinyRun two = RunTiny(TinySpec(4), dir_ / "2", {.world = 2});
  const TinyRun four = RunTiny(TinySpec(4), dir_ / "4", {.world = 4});
  for (const TinyRun* run : {&one, &two, &four}) ExpectOk(*run);
  EXPECT_EQ(Losses(two), Losses(one));
  EXPECT_EQ(Losses(four), Losses(one));
  EXPECT_TRUE(two.AdapterBytes() == one.AdapterBytes());
  EXPECT_TRUE(four.AdapterBytes() == one.AdapterBytes());
}

// What the last checkpoint in a run's folder holds: parameters and moments of
// every tensor that learns, put together.
std::map<std::string, std::vector<std::byte>> StateOf(const std::string& dir) {
  const std::string newest =
      ListCheckpoints(JoinPath(dir, "checkpoints")).front();
  std::map<std::string, std::vector<std::byte>> state;
  for (const auto& entry : std::filesystem::directory_iterator(newest)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file =
        SafetensorsFile::Open(entry.path().string()).value();
    for (const TensorView& view : file.tensors()) {
      int64_t numel = 0;
      const StatePiece piece = ParseStateKey(view.name, numel).value();
      std::vector<std::byte>& bytes = state[piece.name + "/" + piece.kind];
      const size_t begin = piece.start * StateElementBytes(piece.kind);
      bytes.resize(std::max(bytes.size(), begin + view.bytes.size()));
      std::ranges::copy(view.bytes, bytes.begin() + begin);
    }
  }
  return state;
}

// Stages, ranks and recomputation change memory and traffic, never a bit.
void ExpectOneResult(const testing::TestDir& dir, v1::JobSpec spec,
                     const TinyOptions& options = {}) {
  spec.mutable_checkpointing()->mutable_every()->set_steps(3);
  spec.mutable_schedule()->set_steps(6);
  std::map<std::string, std::vector<std::byte>> want;
  std::vector<double> losses;
  for (const int world : {1, 2, 4}) {
    for (const int stage : {0, 1, 2, 3}) {
      if (stage == 0 && spec.optimizer().has_adamw_8bit()) continue;
      for (const bool recomputes : {false, true}) {
        const std::string name =
            absl::StrCat(world, "-", stage, recomputes ? "-recompute" : "");
        SCOPED_TRACE(name);
        spec.mutable_parallelism()->set_zero_stage(stage);
        spec.mutable_model()->set_recompute(recomputes ? v1::RECOMPUTE_BLOCK
                                                       : v1::RECOMPUTE_NONE);
        TinyOptions of_world = options;
        of_world.world = world;
        const TinyRun run = RunTiny(spec, dir / name, of_world);
        ExpectOk(run);
        if (want.empty()) {
          want = StateOf(dir / name);
          losses = Losses(run);
        }
        EXPECT_EQ(Losses(run), losses);
        EXPECT_TRUE(StateOf(dir / name) == want);
      }
    }
  }
}

TEST_F(RunTest, StagesRanksAndRecomputationGiveTheSameAdapterToTheBit) {
  ExpectOneResult(dir_, TinySpec(4));
}

TEST_F(RunTest, StagesRanksAndRecomputationGiveTheSameModelToTheBit) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_full();
  ExpectOneResult(dir_, spec);
}

TEST_F(RunTest, StagesRanksAndRecomputationGiveTheSameLastBlockToTheBit) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_freeze()->set_last_blocks(1);
  ExpectOneResult(dir_, spec);
}

// The gradient passes through blocks that do not learn.
TEST_F(RunTest, StagesRanksAndRecomputationGiveTheSameFirstBlockToTheBit) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_freeze()->set_last_blocks(-1);
  ExpectOneResult(dir_, spec);
}

// tiny_chat with a head of its own.
std::string MakeUntied(const std::string& dir) {
  const std::string from = FT_TEST_SOURCE_DIR "/tests/golden/models/tiny_chat";
  std::filesystem::copy(from, dir);
  const std::string path = dir + "/model.safetensors";
  const SafetensorsFile file =
      SafetensorsFile::Open(from + "/model.safetensors").value();
  std::vector<TensorBytes> tensors;
  for (const TensorView& view : file.tensors()) {
    tensors.push_back({view, view.bytes});
    if (view.name != "model.embed_tokens.weight") continue;
    TensorInfo head = view;
    head.name = "lm_head.weight";
    tensors.push_back({head, view.bytes});
  }
  std::filesystem::remove(path);
  FT_CHECK(WriteSafetensors(path, tensors).ok());
  const std::string config = ReadFile(dir + "/config.json", 1 << 20).value();
  std::filesystem::remove(dir + "/config.json");
  FT_CHECK(WriteFileAtomic(dir + "/config.json",
                           absl::StrReplaceAll(
                               config, {{"\"tie_word_embeddings\": true",
                                         "\"tie_word_embeddings\": false"}}))
               .ok());
  return dir;
}

TEST_F(RunTest, AHeadOfItsOwnGivesTheSameModelToTheBit) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_full();
  ExpectOneResult(dir_, spec, {.model_dir = MakeUntied(dir_ / "untied")});
}

TEST_F(RunTest, APublishedModelHoldsWhatLearnedAndWhatDidNot) {
  const std::string source =
      FT_TEST_SOURCE_DIR "/tests/golden/models/tiny_chat";
  for (const int stage : {1, 3}) {
    const std::string path = dir_ / absl::StrCat(stage);
    v1::JobSpec spec = TinySpec(2);
    spec.mutable_adaptation()->mutable_freeze()->set_last_blocks(1);
    spec.mutable_parallelism()->set_zero_stage(stage);
    spec.mutable_schedule()->set_steps(4);
    spec.mutable_checkpointing()->mutable_every()->set_steps(4);
    ExpectOk(RunTiny(spec, path, {.world = 2}));
    const auto state = StateOf(path);
    FT_ASSERT_OK_AND_ASSIGN(const HfDirectory model,
                            OpenHfDirectory(path + "/export"));
    FT_ASSERT_OK_AND_ASSIGN(const HfDirectory before, OpenHfDirectory(source));
    size_t learned = 0;
    for (const TensorView* view : model.weights.tensors()) {
      const auto known = state.find(view->name + "/master");
      const std::span<const std::byte> was =
          before.weights.Find(view->name)->bytes;
      learned += known != state.end();
      EXPECT_EQ(known != state.end(),
                absl::StartsWith(view->name, "model.layers.1."))
          << view->name;
      EXPECT_TRUE(std::ranges::equal(
          view->bytes, known == state.end()
                           ? was
                           : std::span<const std::byte>(known->second)))
          << view->name;
    }
    EXPECT_EQ(learned, 9u);  // Seven linears and two norms.
    EXPECT_TRUE(Exists(path + "/export/tokenizer.json"));
  }
}

TEST_F(RunTest, EightBitMomentsGiveOneModelToTheBitOverRanksAndStages) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_full();
  const v1::AdamW adamw = spec.optimizer().adamw();
  *spec.mutable_optimizer()->mutable_adamw_8bit() = adamw;
  ExpectOneResult(dir_, spec);
}

TEST_F(RunTest, ExamplesByThemselvesGiveTheSameModelToTheBitAtEveryStage) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_full();
  spec.mutable_data()->set_packing(false);
  spec.mutable_batch()->set_sequences(12);
  spec.mutable_batch()->set_micro(2);  // Lanes differ in their micro-batches.
  ExpectOneResult(dir_, spec);
}

TEST_F(RunTest, AQuantisedBaseGivesOneAdapterOnOneTwoAndFourRanks) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_quantization()->set_weights(v1::QUANTIZED_WEIGHTS_NF4);
  spec.mutable_quantization()->set_double_quant(true);
  const TinyRun one = RunTiny(spec, dir_ / "1", {.world = 1});
  const TinyRun two = RunTiny(spec, dir_ / "2", {.world = 2});
  const TinyRun four = RunTiny(spec, dir_ / "4", {.world = 4});
  for (const TinyRun* run : {&one, &two, &four}) {
    ExpectOk(*run);
    EXPECT_EQ(Losses(*run), Losses(one));
    EXPECT_TRUE(run->AdapterBytes() == one.AdapterBytes());
  }
  const auto& steps = one.links[0]->steps;
  EXPECT_LT(steps[steps.size() - 2].loss(), steps[0].loss() - 0.3);
  EXPECT_NE(Losses(one), Losses(RunTiny(TinySpec(4), dir_ / "full", {})));
  // Whoever merges it learns what it was trained on.
  FT_ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter,
                          OpenPeftAdapter(dir_ / "1/export"));
  EXPECT_EQ(adapter.base_quantization, Nf4Quantization{.double_quant = true});
  FT_ASSERT_OK_AND_ASSIGN(const PeftAdapter plain,
                          OpenPeftAdapter(dir_ / "full/export"));
  EXPECT_EQ(plain.base_quantization, std::nullopt);
}

TEST_F(RunTest, AQuantisedBaseDividedOverItsRanksGivesTheSameAdapter) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_quantization()->set_weights(v1::QUANTIZED_WEIGHTS_NF4);
  spec.mutable_quantization()->set_double_quant(true);
  ExpectOneResult(dir_, spec);
}

// The layout of TinySpec's adapter over `ranks`.
Partition TinyPartition(int ranks) {
  const auto model = LoadTinyChat();
  FT_CHECK(model->AddLora({.lora_rank = 4}).ok());
  std::vector<PartitionInput> inputs;
  for (const NamedParameter& parameter : model->Trainables()) {
    inputs.push_back({.name = parameter.name,
                      .shape = parameter.tensor.sizes().vec(),
                      .unit = parameter.unit});
  }
  return Partition(inputs, ranks);
}

TEST_F(RunTest, StateIsTheLayoutsShardInBytes) {
  // Two moments of four bytes; at stage 0 those of all shards.
  constexpr int64_t kBytes = 2 * 4;
  for (const int world : {1, 2, 4}) {
    const int64_t shard = TinyPartition(world).shard_elements();
    for (const int stage : {0, 1}) {
      v1::JobSpec spec = TinySpec(4);
      spec.mutable_parallelism()->set_zero_stage(stage);
      spec.mutable_schedule()->set_steps(1);
      const TinyRun run = RunTiny(spec, dir_ / absl::StrCat(world, "-", stage),
                                  {.world = world});
      ExpectOk(run);
      for (const auto& link : run.links) {
        EXPECT_EQ(link->ready.optimizer_state_bytes(),
                  kBytes * shard * (stage == 0 ? world : 1));
      }
    }
  }
}

TEST_F(RunTest, AYieldedRunContinuesToTheSameBitsOnOneTwoOrFourRanks) {
  const TinyRun whole = RunTiny(TinySpec(4), dir_ / "whole", {.world = 2});
  for (const int from : {1, 2, 4}) {
    for (const int to : {1, 2, 4}) {
      SCOPED_TRACE(absl::StrCat(from, " to ", to));
      const std::string path = dir_ / absl::StrCat(from, "-", to);
      const TinyRun first =
          RunTiny(TinySpec(4), path, {.world = from, .yield_at = 4});
      ExpectOk(first);
      for (const RunOutcome& outcome : first.outcomes) {
        EXPECT_TRUE(outcome.yielded);
        EXPECT_EQ(outcome.last_step, 4);
      }
      const TinyRun rest =
          RunTiny(TinySpec(4), path, {.world = to, .resume = true});
      ExpectOk(rest);
      EXPECT_EQ(rest.links[0]->ready.completed_steps(), 4);
      EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
    }
  }
}

TEST_F(RunTest, AYieldedModelContinuesToTheSameBitsOnOtherRanksAtOtherStages) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_adaptation()->mutable_full();
  spec.mutable_schedule()->set_steps(6);
  const auto at = [&spec](int stage) {
    v1::JobSpec staged = spec;
    staged.mutable_parallelism()->set_zero_stage(stage);
    return staged;
  };
  const auto model_of = [](const TinyRun& run) {
    return ReadFile(JoinPath(run.links[0]->exported.dir(), "model.safetensors"),
                    1 << 24)
        .value();
  };
  const std::string whole =
      model_of(RunTiny(at(1), dir_ / "whole", {.world = 2}));
  struct Half {
    int world, stage;
  };
  for (const auto& [from, to] : {std::pair{Half{1, 0}, Half{4, 3}},
                                 {Half{4, 3}, Half{2, 1}},
                                 {Half{2, 2}, Half{1, 3}},
                                 {Half{4, 2}, Half{2, 3}},
                                 {Half{2, 3}, Half{4, 0}},
                                 {Half{4, 1}, Half{4, 2}}}) {
    const std::string name =
        absl::StrCat(from.world, "-", from.stage, "-", to.world, "-", to.stage);
    SCOPED_TRACE(name);
    ExpectOk(RunTiny(at(from.stage), dir_ / name,
                     {.world = from.world, .yield_at = 3}));
    const TinyRun rest =
        RunTiny(at(to.stage), dir_ / name, {.world = to.world, .resume = true});
    ExpectOk(rest);
    EXPECT_EQ(rest.links[0]->ready.completed_steps(), 3);
    EXPECT_TRUE(model_of(rest) == whole);
  }
}

// Of the tensors of two adapters.
double LargestDifference(const TinyRun& a, const TinyRun& b) {
  const auto open = [](const TinyRun& run) {
    return SafetensorsFile::Open(
               JoinPath(run.links[0]->exported.dir(), kAdapterWeightsName))
        .value();
  };
  const SafetensorsFile mine = open(a), other = open(b);
  double largest = 0;
  for (const TensorView& view : mine.tensors()) {
    const at::Tensor difference =
        TensorOf(view).value() -
        TensorOf(*other.Get(view.name).value()).value();
    largest = std::max(largest, difference.abs().max().item<double>());
  }
  return largest;
}

TEST_F(RunTest, RegroupingMicroAndLanesAgreesToRounding) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_adaptation()->mutable_lora()->set_dropout(0);
  const TinyRun base = RunTiny(spec, dir_ / "a", {});
  spec.mutable_batch()->set_micro(4);
  const TinyRun micro = RunTiny(spec, dir_ / "b", {});
  spec.mutable_determinism()->set_lanes(3);
  const TinyRun lanes = RunTiny(spec, dir_ / "c", {.world = 3});
  spec.mutable_data()->set_packing(false);
  const TinyRun unpacked = RunTiny(spec, dir_ / "d", {.world = 1});
  for (const TinyRun* run : {&micro, &lanes, &unpacked}) {
    ExpectOk(*run);
    ASSERT_EQ(Losses(*run).size(), Losses(base).size());
    EXPECT_NEAR(Losses(*run)[0], Losses(base)[0], 1e-6 * Losses(base)[0]);
    for (size_t i = 0; i < Losses(base).size(); ++i) {
      EXPECT_NEAR(Losses(*run)[i], Losses(base)[i], 2e-5);
    }
    EXPECT_LE(LargestDifference(*run, base), 2e-4);
  }
}

TEST_F(RunTest, PackedLossesEqualUnpackedOnes) {
  v1::JobSpec spec = TinySpec(2);
  spec.mutable_adaptation()->mutable_lora()->set_dropout(0);
  spec.mutable_batch()->set_micro(3);
  const TinyRun packed = RunTiny(spec, dir_ / "a", {});
  spec.mutable_data()->set_packing(false);
  const TinyRun unpacked = RunTiny(spec, dir_ / "b", {});
  ExpectOk(packed);
  ExpectOk(unpacked);
  ASSERT_EQ(Losses(packed).size(), Losses(unpacked).size());
  for (size_t i = 0; i < Losses(packed).size(); ++i) {
    EXPECT_NEAR(Losses(packed)[i], Losses(unpacked)[i],
                1e-5 * Losses(unpacked)[i]);
  }
}

TEST_F(RunTest, EvaluationIsTheMeanOverAllTargets) {
  // At a learning rate of 0 the steps of a pass are one evaluation in pieces.
  v1::JobSpec spec = TinySpec(3);
  spec.mutable_adaptation()->mutable_lora()->set_dropout(0);
  spec.mutable_schedule()->set_learning_rate(0);
  spec.mutable_schedule()->set_epochs(1);
  spec.mutable_data()->mutable_validation()->set_path("train.jsonl");
  spec.mutable_data()->mutable_validation()->set_format(v1::DATA_FORMAT_OPENAI);
  for (const int world : {1, 3}) {
    const TinyRun run =
        RunTiny(spec, dir_ / absl::StrCat(world),
                {.world = world, .validates_on_training_rows = true});
    ExpectOk(run);
    double sum = 0, targets = 0;
    const auto& steps = run.links[0]->steps;
    ASSERT_EQ(steps.size(), 4u);  // 8, 8 and 5 rows, and the evaluation.
    for (size_t i = 0; i < 3; ++i) {
      sum += steps[i].loss() * static_cast<double>(steps[i].targets());
      targets += static_cast<double>(steps[i].targets());
    }
    EXPECT_NEAR(steps[3].eval_loss(), sum / targets, 1e-6 * sum / targets);
  }
}

TEST_F(RunTest, AnAdapterOfSomeLinearsOpensAgain) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_schedule()->set_steps(2);
  spec.mutable_adaptation()->mutable_lora()->add_targets(
      "layers.1.self_attn.q_proj");
  spec.mutable_adaptation()->mutable_lora()->add_targets("down_proj");
  const TinyRun run = RunTiny(spec, dir_ / "a", {});
  ExpectOk(run);
  const auto model = LoadTinyChat();
  FT_ASSERT_OK(model->LoadAdapter(run.links[0]->exported.dir()));
  // q of one block, and down of each.
  EXPECT_EQ(model->Trainables().size(),
            static_cast<size_t>(2 * (1 + model->spec().num_layers)));
}

TEST_F(RunTest, FewerRowsThanLanesAndLargerMicroThanAStepAreNoFault) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_data()->mutable_train(0)->set_max_samples(1);
  spec.mutable_data()->clear_validation();
  spec.clear_evaluation();
  spec.mutable_batch()->set_micro(64);
  const TinyRun one = RunTiny(spec, dir_ / "1", {.world = 1});
  const TinyRun four = RunTiny(spec, dir_ / "4", {.world = 4});
  ExpectOk(one);
  ExpectOk(four);
  EXPECT_EQ(Losses(one).size(), 3u);
  EXPECT_EQ(Losses(four), Losses(one));
  EXPECT_TRUE(four.AdapterBytes() == one.AdapterBytes());
}

TEST_F(RunTest, ARottenCheckpointIsNamedAndTheOneBeforeIsUsed) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_checkpointing()->mutable_every()->set_steps(2);
  const TinyRun whole = RunTiny(spec, dir_ / "whole", {});
  const TinyRun cut = RunTiny(spec, dir_ / "cut", {.yield_at = 4});
  ExpectOk(cut);
  const std::string shard =
      dir_ / "cut/checkpoints/step-000004/shard-00000-of-00001.safetensors";
  std::string bytes = ReadFile(shard, 1 << 24).value();
  bytes[bytes.size() / 2] ^= 1;
  FT_ASSERT_OK(WriteFileAtomic(shard, bytes));
  const TinyRun rest = RunTiny(spec, dir_ / "cut", {.resume = true});
  ExpectOk(rest);
  ASSERT_EQ(rest.links[0]->events.size(), 2u);
  EXPECT_THAT(rest.links[0]->events[0].message(),
              ::testing::HasSubstr("sha256"));
  EXPECT_EQ(rest.links[0]->ready.completed_steps(), 2);
  EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
}

TEST_F(RunTest, OtherDataOrSeedCannotContinueACheckpoint) {
  RunTiny(TinySpec(1), dir_ / "a", {.yield_at = 2});
  v1::JobSpec other = TinySpec(1);
  other.mutable_determinism()->set_seed(43);
  const TinyRun rest = RunTiny(other, dir_ / "a", {.resume = true});
  EXPECT_EQ(rest.outcomes[0].status.code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(RunTest, ANonFiniteStepStopsBeforeAnyParameterChanges) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_schedule()->set_learning_rate(1e30);
  spec.mutable_batch()->set_max_grad_norm(0);
  const TinyRun run = RunTiny(spec, dir_ / "a", {});
  EXPECT_FALSE(run.outcomes[0].status.ok());
  EXPECT_TRUE(run.outcomes[0].non_finite);
}

}  // namespace
}  // namespace ft
