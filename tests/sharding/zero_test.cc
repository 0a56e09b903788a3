// SPDX-License-Identifier: Apache-2.0
//
// The equality matrix of stages 0 to 3: with the same lanes, parameters,
// moments and norms are the same bits at 1, 2 and 4 ranks, at every stage, at
// any bucket size, over threads and TCP; a checkpoint of N ranks continues on
// M, at any stage.

#include "sharding/zero.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <random>

#include "absl/strings/str_cat.h"
#include "collective/thread_collective.h"
#include "kernels/adamw_8bit.h"
#include "kernels/dynamic_code.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tcp_ranks.h"

namespace ft {
namespace {

using testing::Fails;
using testing::OnEveryRank;

const std::vector<PartitionInput> kToy = {
    {.name = "a", .shape = {37, 11}, .unit = 0},
    {.name = "b", .shape = {5}, .unit = 0, .decays = false},
    {.name = "c", .shape = {1300}, .unit = 1},
    {.name = "d", .shape = {2, 3, 7}, .unit = 2},
    {.name = "e", .shape = {1}, .unit = 2}};

// A gradient that is a function of step, round, lane, pass and tensor.
void FillGradient(int64_t step, int64_t round, int64_t lane, int64_t pass,
                  size_t tensor, const at::Tensor& gradient) {
  std::mt19937 random(static_cast<uint32_t>(
      1 + tensor + 10 * lane + 1000 * round + 10'000 * pass + 100'000 * step));
  std::normal_distribution<float> normal;
  float* values = gradient.data_ptr<float>();
  for (int64_t i = 0; i < gradient.numel(); ++i) {
    values[i] += normal(random) * std::exp(normal(random));
  }
}

enum class Transport { kThread, kTcp };

struct Setting {
  int ranks = 1;
  int stage = 1;
  int64_t lanes = 4;
  int64_t rounds = 2;
  int64_t passes = 1;  // Backward passes of a lane in a round.
  int64_t bucket_elements = kBucketElements;
  Transport transport = Transport::kThread;
  std::vector<PartitionInput> inputs = kToy;
  MomentFormat moments = MomentFormat::kFp32;
};

std::string Describe(const Setting& setting) {
  return absl::StrCat(setting.ranks, " ranks, stage ", setting.stage, ", ",
                      setting.lanes, " lanes, ", setting.rounds, " rounds of ",
                      setting.passes, " passes, buckets of ",
                      setting.bucket_elements);
}

// Pieces with storage of their own, as a checkpoint's file holds them.
struct Checkpoint {
  struct Piece {
    std::string name, kind;
    int64_t start;
    std::vector<std::byte> bytes;
  };
  std::vector<Piece> pieces;
  int64_t steps = 0;

  SavedPieces Saved() const {
    SavedPieces saved;
    for (const Piece& piece : pieces) {
      saved.Add({piece.name, piece.kind, piece.start, piece.bytes});
    }
    return saved;
  }
};

using StateByTensor = std::map<std::string, std::vector<std::byte>>;

struct Outcome {
  std::vector<std::vector<float>> parameters;  // By tensor.
  std::vector<double> norms;                   // By step.
  StateByTensor state;  // All ranks' pieces put together.
  Checkpoint checkpoint;
};

// Bitwise: -0 is not 0, and a NaN is itself.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)),
                            std::as_bytes(std::span(b)));
}

void ExpectSameBits(const Outcome& a, const Outcome& b,
                    const std::string& what) {
  EXPECT_EQ(a.norms, b.norms) << what;
  ASSERT_EQ(a.parameters.size(), b.parameters.size());
  for (size_t t = 0; t < a.parameters.size(); ++t) {
    EXPECT_TRUE(SameBits(a.parameters[t], b.parameters[t]))
        << what << ", tensor " << t;
  }
  for (const auto& [key, values] : a.state) {
    EXPECT_TRUE(values == b.state.at(key)) << what << ", " << key;
  }
}

void ExpectNear(const Outcome& a, const Outcome& b) {
  for (const auto& [key, bytes] : a.state) {
    const auto floats = [&](const std::vector<std::byte>& values) {
      std::vector<float> all(values.size() / sizeof(float));
      std::memcpy(all.data(), values.data(), values.size());
      return all;
    };
    const std::vector<float> mine = floats(bytes);
    const std::vector<float> others = floats(b.state.at(key));
    for (size_t i = 0; i < mine.size(); ++i) {
      EXPECT_NEAR(mine[i], others[i], 1e-4) << key << " " << i;
    }
  }
}

std::vector<std::unique_ptr<Collective>> Connect(const Setting& setting) {
  return setting.transport == Transport::kThread
             ? MakeThreadCollectives(setting.ranks)
             : testing::MakeTcpCollectives(setting.ranks);
}

StateByTensor Together(const Checkpoint& checkpoint, const Setting& setting) {
  StateByTensor state;
  const SavedPieces saved = checkpoint.Saved();
  const Partition whole(setting.inputs, 1);
  for (const Fragment& fragment : whole.fragments()) {
    std::vector<MomentKind> kinds =
        MomentKinds(setting.moments, fragment.numel);
    kinds.push_back({kMaster});
    for (const auto& [kind, block] : kinds) {
      const int64_t numel = (fragment.numel + block - 1) / block;
      std::vector<std::byte>& bytes =
          state[absl::StrCat(fragment.name, "/", kind)];
      bytes.resize(static_cast<size_t>(numel * StateElementBytes(kind)));
      FT_EXPECT_OK(saved.CheckCover(fragment.name, kind, numel));
      FT_EXPECT_OK(saved.Fill(fragment.name, kind, 0, bytes));
    }
  }
  return state;
}

// One rank of a toy training run.
class ToyRank {
 public:
  ToyRank(const Setting& setting, Collective& collective)
      : setting_(setting),
        first_lane_(collective.rank() * setting.lanes / setting.ranks),
        last_lane_((collective.rank() + 1) * setting.lanes / setting.ranks),
        optimizer_(
            Partition(setting.inputs, setting.ranks,
                      setting.stage == 3 ? 0 : setting.bucket_elements,
                      setting.moments == MomentFormat::k8Bit ? kDynamicBlock
                                                             : kFragmentAlign),
            {.zero_stage = setting.stage,
             .lanes_per_rank = last_lane_ - first_lane_,
             .weight_decay = 0.1,
             .moments = setting.moments},
            collective) {
    for (size_t t = 0; t < setting.inputs.size(); ++t) {
      const Fragment& fragment = optimizer_.partition().fragments()[t];
      optimizer_.SetParameter(
          t, std::vector<float>(fragment.numel, 0.5f + static_cast<float>(t)));
    }
  }

  ShardedOptimizer& optimizer() { return optimizer_; }

  // Returns the norm.
  absl::StatusOr<double> Step(int64_t step) {
    for (int64_t round = 0; round < setting_.rounds; ++round) {
      for (int64_t lane = first_lane_; lane < last_lane_; ++lane) {
        for (int64_t pass = 0; pass < setting_.passes; ++pass) {
          const auto add_up = [&](size_t t) {
            // "d" has no gradient on odd lanes.
            if (setting_.inputs[t].name == "d" && lane % 2 == 1) return;
            FillGradient(step, round, lane, pass, t,
                         optimizer_.GradientView(t));
          };
          FT_RETURN_IF_ERROR(Backward(pass + 1 == setting_.passes, add_up));
        }
        optimizer_.TakeLane();
      }
      FT_RETURN_IF_ERROR(optimizer_.ReduceScatterRound());
    }
    FT_ASSIGN_OR_RETURN(const double norm, optimizer_.ClipGradients(1.0));
    FT_RETURN_IF_ERROR(optimizer_.Update(0.01));
    return norm;
  }

  // One backward pass: unit after unit, the last first.
  template <typename AddUp>
  absl::Status Backward(bool is_last, const AddUp& add_up) {
    if (setting_.stage >= 2) optimizer_.BeginBackward(is_last);
    for (size_t t = setting_.inputs.size(); t-- > 0;) {
      const int64_t unit = setting_.inputs[t].unit;
      optimizer_.BeginGradients(unit);
      add_up(t);
      if (t == 0 || setting_.inputs[t - 1].unit != unit) {
        FT_RETURN_IF_ERROR(optimizer_.EndGradients(unit));
      }
    }
    return absl::OkStatus();
  }

  // Collective.
  std::vector<std::vector<float>> Parameters() {
    std::vector<std::vector<float>> parameters;
    for (size_t t = 0; t < setting_.inputs.size(); ++t) {
      const int64_t unit = setting_.inputs[t].unit;
      FT_EXPECT_OK(optimizer_.GatherUnit(unit));
      const at::Tensor view = optimizer_.ParameterView(t);
      parameters.emplace_back(view.data_ptr<float>(),
                              view.data_ptr<float>() + view.numel());
      optimizer_.ReleaseUnit(unit);
    }
    return parameters;
  }

 private:
  const Setting& setting_;
  const int64_t first_lane_, last_lane_;
  ShardedOptimizer optimizer_;
};

// README.md's table: S of this rank, P = N S with the padding.
void ExpectStateBytes(const Setting& setting, int rank,
                      const ShardedOptimizer& optimizer) {
  const Partition& partition = optimizer.partition();
  const int64_t shard = partition.shard_elements();
  const int64_t whole = shard * setting.ranks;
  int64_t places = 0, others = 0;  // Bucket 0, and the largest of the others.
  for (size_t b = 0; b < partition.buckets().size(); ++b) {
    const int64_t padded = partition.padded_size(static_cast<int64_t>(b));
    if (b == 0) places = padded;
    if (b > 0) others = std::max(others, padded);
  }
  places += others;
  const int stage = setting.stage;
  if (setting.moments == MomentFormat::kFp32) {
    EXPECT_EQ(optimizer.state_bytes(), 8 * (stage == 0 ? whole : shard));
  } else {
    int64_t small = 0;  // Its elements here, of tensors that stay in fp32.
    for (const Fragment& fragment : partition.fragments()) {
      if (fragment.numel >= kLeast8BitElements) continue;
      small += partition.OwnedPart(fragment, rank).size();
    }
    EXPECT_EQ(optimizer.state_bytes(),
              2 * shard + 2 * 4 * (shard / kDynamicBlock) + 8 * small);
  }
  EXPECT_EQ(optimizer.gradient_bytes(),
            4 * (shard + (stage < 2 ? whole : places)));
  EXPECT_EQ(optimizer.parameter_bytes(), 4 * (stage < 3 ? whole : shard));
  EXPECT_EQ(optimizer.gathered_bytes(), stage < 3 ? 0 : 4 * places);
}

// The outcome of a run that took only the last steps of this one.
Outcome LastNorms(Outcome outcome, int64_t steps) {
  outcome.norms.erase(outcome.norms.begin(), outcome.norms.end() - steps);
  return outcome;
}

// Takes steps [first, last), from `source` if given.
Outcome Train(const Setting& setting, int64_t first, int64_t last,
              const Checkpoint* source = nullptr) {
  const auto ranks = Connect(setting);
  std::vector<Outcome> outcomes(setting.ranks);
  Checkpoint checkpoint;
  std::mutex mutex;
  OnEveryRank(setting.ranks, [&](int rank) {
    ToyRank toy(setting, *ranks[rank]);
    if (source != nullptr) {
      FT_ASSERT_OK(toy.optimizer().LoadPieces(source->Saved()));
      toy.optimizer().set_steps(source->steps);
    }
    for (int64_t step = first; step < last; ++step) {
      FT_ASSERT_OK_AND_ASSIGN(const double norm, toy.Step(step));
      outcomes[rank].norms.push_back(norm);
    }
    outcomes[rank].parameters = toy.Parameters();
    ExpectStateBytes(setting, rank, toy.optimizer());
    const std::lock_guard lock(mutex);
    checkpoint.steps = toy.optimizer().steps();
    for (const StatePiece& piece : toy.optimizer().SavePieces()) {
      checkpoint.pieces.push_back(
          {piece.name, piece.kind, piece.start,
           std::vector<std::byte>(piece.bytes.begin(), piece.bytes.end())});
    }
  });
  for (const Outcome& outcome : outcomes) {
    ExpectSameBits(outcome, outcomes[0], "rank against rank 0");
  }
  outcomes[0].state = Together(checkpoint, setting);
  outcomes[0].checkpoint = std::move(checkpoint);
  return std::move(outcomes[0]);
}

TEST(ZeroTest, BitsAreEqualOverRanksStagesAndBuckets) {
  for (const int64_t rounds : {1, 3}) {
    const Outcome want = Train({.stage = 0, .rounds = rounds}, 0, 10);
    for (const int ranks : {1, 2, 4}) {
      for (const int stage : {0, 1, 2, 3}) {
        for (const int64_t bucket :
             {int64_t{1}, int64_t{600}, kBucketElements}) {
          const Setting setting{.ranks = ranks,
                                .stage = stage,
                                .rounds = rounds,
                                .bucket_elements = bucket};
          ExpectSameBits(Train(setting, 0, 10), want, Describe(setting));
        }
      }
    }
  }
}

TEST(ZeroTest, SeveralPassesOfALaneAreAddedInOneOrderAtEveryStage) {
  const Outcome want = Train({.stage = 0, .passes = 3}, 0, 5);
  for (const int ranks : {1, 2, 4}) {
    for (const int stage : {1, 2, 3}) {
      const Setting setting{.ranks = ranks, .stage = stage, .passes = 3};
      ExpectSameBits(Train(setting, 0, 5), want, Describe(setting));
    }
  }
}

// Of each size: whole blocks, a short last one, and one that stays fp32.
const std::vector<PartitionInput> kLarge = {
    {.name = "a", .shape = {8192}, .unit = 0},
    {.name = "b", .shape = {100}, .unit = 0, .decays = false},
    {.name = "c", .shape = {71, 101}, .unit = 1},
    {.name = "d", .shape = {5000}, .unit = 2},
    {.name = "e", .shape = {4095}, .unit = 2}};

TEST(ZeroTest, MomentsInEightBitsAreTheSameBitsOverRanksStagesAndBuckets) {
  Setting setting{.inputs = kLarge, .moments = MomentFormat::k8Bit};
  const Outcome want = Train(setting, 0, 10);
  for (const int ranks : {1, 2, 4}) {
    for (const int stage : {1, 2, 3}) {
      for (const int64_t bucket : {int64_t{1}, kBucketElements}) {
        setting.ranks = ranks;
        setting.stage = stage;
        setting.bucket_elements = bucket;
        ExpectSameBits(Train(setting, 0, 10), want, Describe(setting));
        const Outcome half = Train(setting, 0, 5);
        setting.ranks = 4 / ranks;
        setting.stage = 1 + stage % 3;
        ExpectSameBits(Train(setting, 5, 10, &half.checkpoint),
                       LastNorms(want, 5), "continued: " + Describe(setting));
      }
    }
  }
}

TEST(ZeroTest, AShardThatIsCopiedAndPutBackGoesOnToTheSameBits) {
  for (const MomentFormat format : {MomentFormat::kFp32, MomentFormat::k8Bit}) {
    for (const int stage : {0, 1, 2, 3}) {
      if (format == MomentFormat::k8Bit && stage == 0) continue;
      const Setting setting{
          .ranks = 2, .stage = stage, .inputs = kLarge, .moments = format};
      const Outcome want = Train(setting, 0, 6);
      const auto ranks = Connect(setting);
      OnEveryRank(2, [&](int rank) {
        ToyRank first(setting, *ranks[rank]);
        for (int64_t step = 0; step < 3; ++step) {
          FT_ASSERT_OK(first.Step(step).status());
        }
        std::vector<std::byte> kept(first.optimizer().shard_bytes());
        first.optimizer().CopyShard(kept);
        ToyRank second(setting, *ranks[rank]);
        FT_ASSERT_OK(second.optimizer().RestoreShard(kept));
        second.optimizer().set_steps(3);
        for (int64_t step = 3; step < 6; ++step) {
          FT_ASSERT_OK(second.Step(step).status());
        }
        EXPECT_EQ(second.Parameters(), want.parameters) << Describe(setting);
      });
    }
  }
}

TEST(ZeroTest, SixLanesAreEqualOnOneThreeAndSixRanks) {
  const Outcome want = Train({.lanes = 6}, 0, 5);
  for (const int ranks : {3, 6}) {
    ExpectSameBits(Train({.ranks = ranks, .lanes = 6}, 0, 5), want,
                   Describe({.ranks = ranks, .lanes = 6}));
  }
}

TEST(ZeroTest, OtherSplitsAgreeOverStagesToTheBitAndWithOneRankToRounding) {
  const Outcome one = Train({.lanes = 12}, 0, 10);
  for (const int ranks : {2, 4}) {
    const Outcome zero =
        Train({.ranks = ranks, .stage = 0, .lanes = 12}, 0, 10);
    for (const int stage : {1, 2, 3}) {
      const Setting setting{.ranks = ranks, .stage = stage, .lanes = 12};
      ExpectSameBits(Train(setting, 0, 10), zero, Describe(setting));
    }
    ExpectNear(zero, one);
  }
}

TEST(ZeroTest, TcpGivesTheBitsOfThreads) {
  for (const int ranks : {2, 3, 4}) {
    for (const int stage : {1, 3}) {
      Setting setting{.ranks = ranks, .stage = stage, .lanes = ranks};
      const Outcome threads = Train(setting, 0, 4);
      setting.transport = Transport::kTcp;
      ExpectSameBits(Train(setting, 0, 4), threads, Describe(setting));
    }
  }
}

TEST(ZeroTest, AnySizesOfTensorsWork) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{0},
                                            {1},
                                            {3, 4, 5},
                                            {0, 1, 0},
                                            {1023, 1025},
                                            {2, 3, 5, 7, 11, 13},
                                            {4096},
                                            {4097, 1}}) {
    std::vector<PartitionInput> inputs;
    for (size_t i = 0; i < sizes.size(); ++i) {
      inputs.push_back({.name = absl::StrCat("t", i),
                        .shape = {sizes[i]},
                        .unit = static_cast<int64_t>(i)});
    }
    const Outcome want = Train({.inputs = inputs}, 0, 3);
    for (const int ranks : {2, 4}) {
      for (const int stage : {0, 1, 2, 3}) {
        const Setting setting{.ranks = ranks, .stage = stage, .inputs = inputs};
        ExpectSameBits(Train(setting, 0, 3), want, Describe(setting));
      }
    }
  }
}

TEST(ZeroTest, ACheckpointOfNRanksContinuesOnM) {
  const int64_t lanes = 12;
  for (int from = 1; from <= 4; ++from) {
    const int stage = from - 1;
    const Outcome undisturbed =
        Train({.ranks = from, .stage = stage, .lanes = lanes}, 0, 8);
    const Outcome half =
        Train({.ranks = from, .stage = stage, .lanes = lanes}, 0, 5);
    for (int to = 1; to <= 4; ++to) {
      const Setting other{.ranks = to,
                          .stage = (stage + to) % 4,
                          .lanes = lanes,
                          .bucket_elements = 1};
      const Outcome loaded = Train(other, 5, 5, &half.checkpoint);
      EXPECT_EQ(loaded.state, half.state) << from << " to " << to;

      const Outcome rest = Train(other, 5, 8, &half.checkpoint);
      // 12 lanes on 1 and 3 ranks are aligned blocks of the same tree.
      const bool has_same_order = from == to || (from % 2 == 1 && to % 2 == 1);
      if (has_same_order) {
        EXPECT_EQ(rest.state, undisturbed.state) << from << " to " << to;
      } else {
        ExpectNear(rest, undisturbed);
      }
    }
  }
}

TEST(ZeroTest, AMissingOrForeignPieceIsNamedAndNothingChanges) {
  const Checkpoint whole = Train({.ranks = 2}, 0, 2).checkpoint;
  const auto ranks = MakeThreadCollectives(1);
  ShardedOptimizer optimizer(Partition(kToy, 1), {}, *ranks[0]);
  optimizer.ParameterView(0).fill_(7);

  Checkpoint holes = whole;
  std::erase_if(holes.pieces, [](const auto& piece) {
    return piece.name == "c" && piece.kind == kExpAvg && piece.start > 0;
  });
  EXPECT_THAT(optimizer.LoadPieces(holes.Saved()),
              Fails(absl::StatusCode::kDataLoss, "c (exp_avg)"));

  Checkpoint larger = whole;
  larger.pieces.push_back({"e", kMaster, 1, std::vector<std::byte>(4)});
  EXPECT_THAT(optimizer.LoadPieces(larger.Saved()),
              Fails(absl::StatusCode::kDataLoss, "e (master)"));

  Checkpoint foreign = whole;
  foreign.pieces.push_back({"f", kMaster, 0, std::vector<std::byte>(4)});
  EXPECT_THAT(optimizer.LoadPieces(foreign.Saved()),
              Fails(absl::StatusCode::kFailedPrecondition, "tensor f"));

  EXPECT_EQ((optimizer.ParameterView(0) == 7).all().item<bool>(), true);
  FT_EXPECT_OK(optimizer.LoadPieces(whole.Saved()));
}

TEST(ZeroTest, WhatIsNotFiniteOnOneRankIsOneVerdictOnAllAndChangesNothing) {
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    for (const int stage : {0, 1, 2, 3}) {
      const auto ranks = MakeThreadCollectives(4);
      OnEveryRank(4, [&](int rank) {
        const Setting setting{.ranks = 4, .stage = stage};
        ToyRank toy(setting, *ranks[rank]);
        FT_ASSERT_OK(toy.Step(0).status());
        const auto before = toy.Parameters();
        ShardedOptimizer& optimizer = toy.optimizer();
        FT_ASSERT_OK(toy.Backward(true, [&](size_t t) {
          if (rank == 3 && t == 2) optimizer.GradientView(t)[1299] = bad;
        }));
        optimizer.TakeLane();
        FT_ASSERT_OK(optimizer.ReduceScatterRound());
        FT_ASSERT_OK_AND_ASSIGN(const double norm, optimizer.ClipGradients(1));
        EXPECT_FALSE(std::isfinite(norm));
        optimizer.DropGradients();
        EXPECT_EQ(toy.Parameters(), before);
        // The next step knows nothing of it.
        FT_ASSERT_OK_AND_ASSIGN(const double next, toy.Step(1));
        EXPECT_TRUE(std::isfinite(next));
      });
    }
  }
}

TEST(ZeroTest, BytesSentAreThoseOfTheTable) {
  for (const int stage : {0, 1, 2, 3}) {
    const auto ranks = MakeThreadCollectives(4);
    const Setting setting{.ranks = 4, .stage = stage};
    int64_t shard = 0;
    OnEveryRank(4, [&](int rank) {
      ToyRank toy(setting, *ranks[rank]);
      ShardedOptimizer& optimizer = toy.optimizer();
      for (int round = 0; round < 3; ++round) {
        for (const int64_t unit : {0, 1, 2, 2, 1, 0}) {
          FT_ASSERT_OK(optimizer.GatherUnit(unit));
          optimizer.ReleaseUnit(unit);
        }
        FT_ASSERT_OK(toy.Backward(true, [](size_t) {}));
        optimizer.TakeLane();
        FT_ASSERT_OK(optimizer.ReduceScatterRound());
      }
      FT_ASSERT_OK(optimizer.Update(0.1));
      if (rank == 0) shard = optimizer.partition().shard_elements();
    });
    // J = 3 reductions; at stages 0 to 2 one gather, at stage 3 two of each
    // unit a micro-batch.
    const int64_t gathers = stage < 3 ? 1 : 2 * 3;
    for (const auto& rank : ranks) {
      EXPECT_EQ(rank->bytes_sent().all_to_all, 3 * 4 * shard * 3);
      EXPECT_EQ(rank->bytes_sent().all_gather, gathers * 4 * shard * 3);
    }
  }
}

TEST(ZeroTest, ARankThatDiesInAnyCallOfAStepIsAnErrorOnTheOthers) {
  // Reduce-scatter of two rounds, norm, gather.
  for (int calls_before_death = 0; calls_before_death <= 4;
       ++calls_before_death) {
    const Setting setting{.ranks = 3, .lanes = 3};
    auto ranks = testing::MakeTcpCollectives(3);
    OnEveryRank(3, [&](int rank) {
      if (rank != 1) {
        ToyRank toy(setting, *ranks[rank]);
        absl::Status status;
        for (int64_t step = 0; step < 2 && status.ok(); ++step) {
          status = toy.Step(step).status();
        }
        EXPECT_THAT(status, testing::HasCode(absl::StatusCode::kAborted));
        return;
      }
      ToyRank toy(setting, *ranks[1]);
      ShardedOptimizer& optimizer = toy.optimizer();
      for (int call = 0; call < calls_before_death; ++call) {
        if (call < 2) {
          optimizer.TakeLane();
          FT_ASSERT_OK(optimizer.ReduceScatterRound());
        } else if (call == 2) {
          FT_ASSERT_OK(optimizer.ClipGradients(1).status());
        } else {
          FT_ASSERT_OK(optimizer.Update(0.01));
        }
      }
      ranks[1].reset();
    });
  }
}

}  // namespace
}  // namespace ft
