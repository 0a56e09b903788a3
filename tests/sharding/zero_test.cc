// SPDX-License-Identifier: Apache-2.0
//
// The equality matrix of stages 0 and 1: with the same lanes, parameters, norms
// and moments are the same bits at 1, 2 and 4 ranks, at both stages, at any
// bucket size, over threads; a checkpoint of N ranks continues on M.

#include "sharding/zero.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <random>

#include "collective/thread_collective.h"
#include "tests/testing/rank_threads.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::OnEveryRank;

const std::vector<PartitionInput>& Inputs() {
  static const auto* const kInputs = new std::vector<PartitionInput>{
      {.name = "a", .shape = {37, 11}, .unit = 0},
      {.name = "b", .shape = {5}, .unit = 0, .decays = false},
      {.name = "c", .shape = {1300}, .unit = 1},
      {.name = "d", .shape = {2, 3, 7}, .unit = 2},
      {.name = "e", .shape = {1}, .unit = 2}};
  return *kInputs;
}

// A gradient that is a function of step, round, lane and tensor.
void FillGradient(int64_t step, int64_t round, int64_t lane, size_t tensor,
                  const at::Tensor& gradient) {
  std::mt19937 random(static_cast<uint32_t>(1 + tensor + 10 * lane +
                                            1000 * round + 100'000 * step));
  std::normal_distribution<float> normal;
  float* values = gradient.data_ptr<float>();
  for (int64_t i = 0; i < gradient.numel(); ++i) {
    values[i] += normal(random) * std::exp(normal(random));
  }
}

struct Setting {
  int ranks = 1;
  int stage = 1;
  int64_t lanes = 4;
  int64_t rounds = 2;
  int64_t bucket_elements = kBucketElements;
};

struct Outcome {
  std::vector<std::vector<float>> parameters;  // By tensor.
  std::vector<double> norms;                   // By step.
  bool operator==(const Outcome&) const = default;
};

// Pieces with storage of their own, as a checkpoint's file holds them.
struct Checkpoint {
  struct Piece {
    std::string name, kind;
    int64_t start;
    std::vector<float> values;
  };
  std::vector<Piece> pieces;
  int64_t steps = 0;
};

class ToyRun {
 public:
  explicit ToyRun(const Setting& setting) : setting_(setting) {}

  // Takes steps [first, last); begins from `source` if given, and leaves a
  // checkpoint of the end in `checkpoint`.
  Outcome Steps(int64_t first, int64_t last, const Checkpoint* source = nullptr,
                Checkpoint* checkpoint = nullptr) {
    const auto ranks = MakeThreadCollectives(setting_.ranks);
    std::vector<Outcome> outcomes(setting_.ranks);
    std::mutex mutex;
    OnEveryRank(setting_.ranks, [&](int rank) {
      const int64_t mine = setting_.lanes / setting_.ranks;
      ShardedOptimizer optimizer(
          Partition(Inputs(), setting_.ranks, setting_.bucket_elements),
          {.zero_stage = setting_.stage,
           .lanes_per_rank = mine,
           .weight_decay = 0.1},
          *ranks[rank]);
      for (size_t t = 0; t < Inputs().size(); ++t) {
        optimizer.ParameterView(t).fill_(0.5f + static_cast<float>(t));
      }
      if (source != nullptr) {
        SavedPieces pieces;
        for (const auto& piece : source->pieces) {
          pieces.Add({piece.name, piece.kind, piece.start, piece.values});
        }
        FT_ASSERT_OK(optimizer.LoadPieces(pieces));
        optimizer.set_steps(source->steps);
      }
      for (int64_t step = first; step < last; ++step) {
        for (int64_t round = 0; round < setting_.rounds; ++round) {
          for (int64_t lane = rank * mine; lane < (rank + 1) * mine; ++lane) {
            for (size_t t = 0; t < Inputs().size(); ++t) {
              // "d" has no gradient on odd lanes.
              if (Inputs()[t].name == "d" && lane % 2 == 1) continue;
              FillGradient(step, round, lane, t, optimizer.GradientView(t));
            }
            optimizer.TakeLane();
          }
          FT_ASSERT_OK(optimizer.ReduceScatterRound());
        }
        FT_ASSERT_OK_AND_ASSIGN(const double norm,
                                optimizer.ClipGradients(1.0));
        outcomes[rank].norms.push_back(norm);
        FT_ASSERT_OK(optimizer.Update(0.01));
      }
      for (size_t t = 0; t < Inputs().size(); ++t) {
        const at::Tensor view = optimizer.ParameterView(t);
        outcomes[rank].parameters.emplace_back(
            view.data_ptr<float>(), view.data_ptr<float>() + view.numel());
      }
      int64_t shard = optimizer.partition().shard_elements();
      EXPECT_EQ(optimizer.state_bytes(),
                8 * shard * (setting_.stage == 0 ? setting_.ranks : 1));
      if (checkpoint == nullptr) return;
      const std::lock_guard lock(mutex);
      checkpoint->steps = optimizer.steps();
      for (const StatePiece& piece : optimizer.SavePieces()) {
        checkpoint->pieces.push_back(
            {piece.name, piece.kind, piece.start,
             std::vector<float>(piece.values.begin(), piece.values.end())});
      }
    });
    for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome, outcomes[0]);
    return outcomes[0];
  }

 private:
  const Setting setting_;
};

TEST(ZeroTest, BitsAreEqualOverRanksStagesAndBuckets) {
  for (const int64_t rounds : {1, 3}) {
    const Outcome want =
        ToyRun({.ranks = 1, .stage = 0, .rounds = rounds}).Steps(0, 10);
    for (const int ranks : {1, 2, 4}) {
      for (const int stage : {0, 1}) {
        for (const int64_t bucket : {int64_t{1}, kBucketElements}) {
          EXPECT_EQ(ToyRun({.ranks = ranks,
                            .stage = stage,
                            .rounds = rounds,
                            .bucket_elements = bucket})
                        .Steps(0, 10),
                    want)
              << ranks << " ranks, stage " << stage << ", bucket " << bucket;
        }
      }
    }
  }
}

TEST(ZeroTest, ThreeRanksAgreeOverStagesToTheBitAndWithOneToRounding) {
  const Outcome zero =
      ToyRun({.ranks = 3, .stage = 0, .lanes = 3}).Steps(0, 10);
  EXPECT_EQ(ToyRun({.ranks = 3, .stage = 1, .lanes = 3}).Steps(0, 10), zero);
  const Outcome one = ToyRun({.ranks = 1, .stage = 1, .lanes = 3}).Steps(0, 10);
  for (size_t t = 0; t < zero.parameters.size(); ++t) {
    for (size_t i = 0; i < zero.parameters[t].size(); ++i) {
      EXPECT_NEAR(zero.parameters[t][i], one.parameters[t][i], 1e-4);
    }
  }
}

TEST(ZeroTest, ACheckpointOfNRanksContinuesOnMToTheBit) {
  const Outcome want = ToyRun({.ranks = 1}).Steps(0, 8);
  for (const int from : {1, 2, 4}) {
    for (const int to : {1, 2, 4}) {
      for (const int stage : {0, 1}) {
        Checkpoint checkpoint;
        ToyRun({.ranks = from, .stage = stage})
            .Steps(0, 5, nullptr, &checkpoint);
        const Outcome rest =
            ToyRun({.ranks = to, .stage = 1 - stage, .bucket_elements = 1})
                .Steps(5, 8, &checkpoint);
        EXPECT_EQ(rest.parameters, want.parameters)
            << from << " to " << to << " from stage " << stage;
      }
    }
  }
}

TEST(ZeroTest, AMissingPieceIsNamedAndNothingStaysAtItsInitialValue) {
  Checkpoint checkpoint;
  ToyRun({.ranks = 2}).Steps(0, 2, nullptr, &checkpoint);
  std::erase_if(checkpoint.pieces, [](const auto& piece) {
    return piece.name == "c" && piece.kind == kExpAvg && piece.start > 0;
  });
  const auto ranks = MakeThreadCollectives(1);
  ShardedOptimizer optimizer(Partition(Inputs(), 1), {}, *ranks[0]);
  SavedPieces pieces;
  for (const auto& piece : checkpoint.pieces) {
    pieces.Add({piece.name, piece.kind, piece.start, piece.values});
  }
  EXPECT_THAT(optimizer.LoadPieces(pieces),
              testing::Fails(absl::StatusCode::kDataLoss, "c (exp_avg)"));
}

TEST(ZeroTest, InfinityOnOneRankIsOneVerdictOnAll) {
  const auto ranks = MakeThreadCollectives(2);
  OnEveryRank(2, [&](int rank) {
    ShardedOptimizer optimizer(Partition(Inputs(), 2), {}, *ranks[rank]);
    if (rank == 1) {
      optimizer.GradientView(0)[0] = std::numeric_limits<float>::infinity();
    }
    optimizer.TakeLane();
    FT_ASSERT_OK(optimizer.ReduceScatterRound());
    FT_ASSERT_OK_AND_ASSIGN(const double norm, optimizer.ClipGradients(1));
    EXPECT_FALSE(std::isfinite(norm));
    optimizer.DropGradients();
    EXPECT_EQ(optimizer.ParameterView(0).abs().max().item<float>(), 0);
  });
}

TEST(ZeroTest, BytesSentAreThoseOfTheTable) {
  for (const int stage : {0, 1}) {
    const auto ranks = MakeThreadCollectives(4);
    OnEveryRank(4, [&](int rank) {
      ShardedOptimizer optimizer(Partition(Inputs(), 4), {.zero_stage = stage},
                                 *ranks[rank]);
      for (int round = 0; round < 3; ++round) {
        optimizer.TakeLane();
        FT_ASSERT_OK(optimizer.ReduceScatterRound());
      }
      FT_ASSERT_OK(optimizer.Update(0.1));
    });
    const int64_t shard = Partition(Inputs(), 4).shard_elements();
    EXPECT_EQ(ranks[0]->bytes_sent().all_to_all, 3 * 4 * shard * 3);
    EXPECT_EQ(ranks[0]->bytes_sent().all_gather, 4 * shard * 3);
  }
}

}  // namespace
}  // namespace ft
