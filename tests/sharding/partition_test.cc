// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of the cuts: every element has one owner, at any size.

#include "sharding/partition.h"

#include <bit>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "collective/tree.h"
#include "sharding/lane_carry.h"
#include "sharding/shard_state.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::Fails;

std::vector<PartitionInput> Inputs(const std::vector<int64_t>& sizes) {
  std::vector<PartitionInput> inputs;
  for (size_t i = 0; i < sizes.size(); ++i) {
    inputs.push_back({.name = absl::StrCat("t", i),
                      .shape = {sizes[i]},
                      .unit = static_cast<int64_t>(i / 2)});
  }
  return inputs;
}

TEST(PartitionTest, EveryElementHasOneOwnerAndShardsAreEqual) {
  for (const int ranks : {1, 2, 3, 4, 7}) {
    for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{1},
                                              {2, 3, 5, 7},
                                              {1023, 1024, 1025},
                                              {7919, 1, 4096, 100'003},
                                              {0, 5, 0}}) {
      const Partition partition(Inputs(sizes), ranks);
      for (const Fragment& fragment : partition.fragments()) {
        int64_t owned = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          owned += partition.OwnedPart(fragment, rank).size();
        }
        EXPECT_EQ(owned, fragment.numel);
        EXPECT_EQ(fragment.start % kFragmentAlign, 0);
      }
      int64_t last = 0;
      for (const Fragment& fragment : partition.fragments()) {
        EXPECT_GE(fragment.start, last);
        last = fragment.start + fragment.numel;
      }
      for (size_t b = 0; b < partition.buckets().size(); ++b) {
        EXPECT_EQ(partition.buckets()[b].shard_size % kShardAlign, 0);
        EXPECT_GE(partition.padded_size(b), partition.buckets()[b].used);
        EXPECT_LT(partition.padded_size(b) - partition.buckets()[b].used,
                  ranks * kShardAlign);
      }
    }
  }
}

TEST(PartitionTest, UnitsBeginAtTilesSoNoCutMovesAnElementToAnotherTile) {
  const std::vector<PartitionInput> inputs = Inputs({100, 200, 3000, 7, 9});
  for (const int64_t bucket : {int64_t{1}, int64_t{1100}, kBucketElements}) {
    const Partition partition(inputs, 2, bucket);
    EXPECT_EQ(partition.fragments()[2].start % kShardAlign, 0);
    EXPECT_EQ(partition.fragments()[4].start % kShardAlign, 0);
  }
  EXPECT_EQ(Partition(inputs, 2, 1).buckets().size(), 3u);
  EXPECT_EQ(Partition(inputs, 2).buckets().size(), 1u);
}

TEST(PartitionTest, TheLastShardsOfASmallUnitAreEmpty) {
  const Partition partition(Inputs({3}), 4);
  EXPECT_EQ(partition.shard_elements(), kShardAlign);
  EXPECT_EQ(partition.OwnedPart(partition.fragments()[0], 0).size(), 3);
  for (int rank = 1; rank < 4; ++rank) {
    EXPECT_EQ(partition.OwnedPart(partition.fragments()[0], rank).size(), 0);
  }
}

TEST(PartitionTest, WithoutTensorsThereIsNothingToOwn) {
  EXPECT_EQ(Partition({}, 3).shard_elements(), 0);
}

TEST(PartitionTest, TheDigestTellsLayoutsApart) {
  const auto digest = [](int ranks, int64_t size) {
    return Partition(Inputs({size, 5}), ranks).Digest();
  };
  EXPECT_EQ(digest(2, 100), digest(2, 100));
  EXPECT_NE(digest(2, 100), digest(3, 100));
  EXPECT_NE(digest(2, 100), digest(2, 101));
}

struct VectorOps {
  static void Copy(std::vector<float>& into, const std::vector<float>& from) {
    into = from;
  }
  static void Add(std::vector<float>& into, const std::vector<float>& from) {
    for (size_t i = 0; i < into.size(); ++i) into[i] += from[i];
  }
};

TEST(LaneCarryTest, LanesAddUpInTheOrderOfTheTreeWithFewPartialSums) {
  LaneCarry<std::vector<float>, VectorOps> carry;
  for (const size_t lanes : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16}) {
    std::vector<std::vector<float>> values;
    for (size_t i = 0; i < lanes; ++i) {
      values.push_back(
          {1.0f / static_cast<float>(i + 3), std::sin(static_cast<float>(i))});
    }
    for (size_t i = 0; i + 1 < lanes; ++i) carry.Push(values[i]);
    std::vector<float> sum = values.back();
    carry.AddTo(sum);

    std::vector<const float*> parts;
    for (const auto& lane : values) parts.push_back(lane.data());
    std::vector<float> want(2);
    TreeSum(parts, want);
    EXPECT_EQ(sum, want) << lanes;
    EXPECT_LE(carry.buffers(), std::bit_width(lanes) - 1) << lanes;
  }
}

TEST(SavedPiecesTest, PiecesOfAnyCutGiveTheWhole) {
  std::vector<float> whole(1000);
  std::iota(whole.begin(), whole.end(), 0.0f);
  for (const int64_t cut : {1, 7, 333, 1000}) {
    SavedPieces saved;
    for (int64_t begin = 0; begin < 1000; begin += cut) {
      saved.Add({"t", kMaster, begin,
                 std::as_bytes(std::span(whole).subspan(
                     begin, std::min<int64_t>(cut, 1000 - begin)))});
    }
    std::vector<float> got(500);
    FT_ASSERT_OK(
        saved.Fill("t", kMaster, 250, std::as_writable_bytes(std::span(got))));
    EXPECT_TRUE(std::equal(got.begin(), got.end(), whole.begin() + 250));
  }
}

TEST(SavedPiecesTest, HolesAndOverlapsAreNamed) {
  const std::vector<float> values(10);
  SavedPieces holes;
  holes.Add({"t", kMaster, 0, std::as_bytes(std::span(values))});
  holes.Add({"t", kMaster, 15, std::as_bytes(std::span(values))});
  std::vector<float> out(25);
  EXPECT_THAT(
      holes.Fill("t", kMaster, 0, std::as_writable_bytes(std::span(out))),
      Fails(absl::StatusCode::kDataLoss, "elements 10 to 24"));
  EXPECT_THAT(
      holes.Fill("u", kMaster, 0, std::as_writable_bytes(std::span(out))),
      Fails(absl::StatusCode::kDataLoss, "u (master)"));
  SavedPieces overlap;
  overlap.Add({"t", kMaster, 0, std::as_bytes(std::span(values))});
  overlap.Add({"t", kMaster, 9, std::as_bytes(std::span(values))});
  EXPECT_THAT(overlap.Fill("t", kMaster, 0,
                           std::as_writable_bytes(std::span(out).first(19))),
              Fails(absl::StatusCode::kDataLoss, "two pieces"));
}

TEST(SavedPiecesTest, ACoverIsEachElementOnceAndNoMore) {
  const std::vector<float> values(10);
  SavedPieces saved;
  saved.Add({"t", kMaster, 10, std::as_bytes(std::span(values))});
  saved.Add({"t", kMaster, 0, std::as_bytes(std::span(values))});
  saved.Add({"a", kExpAvg, 0, std::as_bytes(std::span(values))});
  FT_EXPECT_OK(saved.CheckCover("t", kMaster, 20));
  FT_EXPECT_OK(saved.CheckCover("empty", kMaster, 0));
  EXPECT_EQ(saved.Names(), (std::vector<std::string>{"a", "t"}));
  EXPECT_THAT(saved.CheckCover("t", kMaster, 21),
              Fails(absl::StatusCode::kDataLoss, "elements 20 to 20"));
  EXPECT_THAT(saved.CheckCover("t", kMaster, 19),
              Fails(absl::StatusCode::kDataLoss, "has 20 elements"));
  EXPECT_THAT(saved.CheckCover("t", kExpAvg, 20),
              Fails(absl::StatusCode::kDataLoss, "t (exp_avg)"));
  saved.Add({"t", kMaster, 5, std::as_bytes(std::span(values))});
  EXPECT_THAT(saved.CheckCover("t", kMaster, 20),
              Fails(absl::StatusCode::kDataLoss, "element 5"));
}

TEST(SavedPiecesTest, CodesAreBytesAndScalesAreCounted) {
  const std::vector<std::byte> codes(512, std::byte{7});
  const std::vector<float> scales = {1.5f, 2.5f};
  SavedPieces saved;
  saved.Add({"t", kExpAvgQ8, 0, codes});
  saved.Add({"t", kExpAvgAbsmax, 0, std::as_bytes(std::span(scales))});
  FT_EXPECT_OK(saved.CheckCover("t", kExpAvgQ8, 512));
  FT_EXPECT_OK(saved.CheckCover("t", kExpAvgAbsmax, 2));
  std::vector<float> second(1);
  FT_ASSERT_OK(saved.Fill("t", kExpAvgAbsmax, 1,
                          std::as_writable_bytes(std::span(second))));
  EXPECT_EQ(second[0], 2.5f);
}

TEST(StatePieceTest, KeysReadBackAndOthersAreRefused) {
  const std::vector<float> values(3);
  const StatePiece piece{"model.layers.0.q@x", kExpAvg, 17,
                         std::as_bytes(std::span(values))};
  int64_t numel = 0;
  FT_ASSERT_OK_AND_ASSIGN(const StatePiece read,
                          ParseStateKey(piece.Key(), numel));
  EXPECT_EQ(read.name, piece.name);
  EXPECT_EQ(read.kind, kExpAvg);
  EXPECT_EQ(read.start, 17);
  EXPECT_EQ(numel, 3);
  for (const char* key :
       {"", "a", "a@1", "a@1:2", "a@x:2/m", "a@-1:2/m",
        "a@9223372036854775807:2/m", "a@1:99999999999999999999/m"}) {
    EXPECT_FALSE(ParseStateKey(key, numel).ok()) << key;
  }
}

}  // namespace
}  // namespace ft
