// SPDX-License-Identifier: Apache-2.0
//
// The order of the examples: every one once a pass, the same for any number of
// ranks, and the cursor is all there is to know.

#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/shuffle.h"

namespace ft {
namespace {

std::vector<TokenizedExample> Examples(int64_t count) {
  std::vector<TokenizedExample> examples;
  for (int64_t i = 0; i < count; ++i) {
    TokenizedExample example;
    for (int64_t t = 0; t < 3 + i % 4; ++t) {
      example.ids.push_back(static_cast<int32_t>(100 * i + t));
      example.learned.push_back(t >= 1 + i % 2);
    }
    examples.push_back(example);
  }
  return examples;
}

TEST(PermutationTest, EveryPassIsAnotherBijection) {
  for (const int64_t size : {1, 2, 3, 7, 16, 17, 1000}) {
    std::vector<std::vector<int64_t>> orders;
    for (int64_t pass = 0; pass < 3; ++pass) {
      const Permutation permutation(size, 42, pass);
      std::vector<int64_t> order;
      for (int64_t i = 0; i < size; ++i) order.push_back(permutation(i));
      orders.push_back(order);
      std::sort(order.begin(), order.end());
      for (int64_t i = 0; i < size; ++i) ASSERT_EQ(order[i], i);
    }
    if (size > 7) {
      EXPECT_NE(orders[0], orders[1]);
      EXPECT_NE(orders[1], orders[2]);
    }
  }
}

TEST(PermutationTest, TheOrderIsPartOfTheContract) {
  const Permutation permutation(10, 42, 0);
  std::vector<int64_t> order;
  for (int64_t i = 0; i < 10; ++i) order.push_back(permutation(i));
  EXPECT_EQ(order, (std::vector<int64_t>{1, 8, 5, 0, 2, 7, 6, 9, 4, 3}));
}

std::vector<int64_t> ExamplesOf(const StepPlan& plan) {
  std::vector<int64_t> all;
  for (const auto& round : plan.rounds) {
    for (const auto& lane : round) {
      for (const MicroBatch& batch : lane) {
        all.insert(all.end(), batch.examples.begin(), batch.examples.end());
      }
    }
  }
  return all;
}

TEST(LoaderTest, APassHoldsEveryExampleOnceAndEndsWithAShortStep) {
  const auto examples = Examples(11);
  const Loader loader(examples, {.sequences = 4,
                                 .micro = 1,
                                 .lanes = 2,
                                 .first_lane = 0,
                                 .last_lane = 2});
  EXPECT_EQ(loader.steps_per_pass(), 3);
  Cursor cursor;
  std::vector<int64_t> seen;
  for (int step = 0; step < 3; ++step) {
    const StepPlan plan = loader.Plan(cursor);
    const std::vector<int64_t> these = ExamplesOf(plan);
    seen.insert(seen.end(), these.begin(), these.end());
    cursor = plan.after;
  }
  EXPECT_EQ(cursor, (Cursor{1, 0}));
  std::sort(seen.begin(), seen.end());
  for (int64_t i = 0; i < 11; ++i) EXPECT_EQ(seen[i], i);
}

TEST(LoaderTest, ALaneGetsTheSameHoweverManyRanksThereAre) {
  const auto examples = Examples(13);
  const LoaderOptions base{.sequences = 7, .micro = 1, .lanes = 4};
  LoaderOptions all = base;
  all.last_lane = 4;
  const StepPlan whole = Loader(examples, all).Plan({});
  for (int64_t lane = 0; lane < 4; ++lane) {
    LoaderOptions one = base;
    one.first_lane = lane;
    one.last_lane = lane + 1;
    const StepPlan mine = Loader(examples, one).Plan({});
    EXPECT_EQ(mine.targets, whole.targets);
    EXPECT_EQ(mine.after, whole.after);
    ASSERT_EQ(mine.rounds.size(), whole.rounds.size());
    for (size_t round = 0; round < mine.rounds.size(); ++round) {
      const auto& a = mine.rounds[round][0];
      const auto& b = whole.rounds[round][lane];
      ASSERT_EQ(a.size(), b.size());
      for (size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].ids, b[i].ids);
        EXPECT_EQ(a[i].rows, b[i].rows);
        EXPECT_EQ(a[i].labels, b[i].labels);
      }
    }
  }
}

TEST(LoaderTest, ExamplesAreDealtInTurnAndTheLastRoundIsSmaller) {
  const auto examples = Examples(7);
  const StepPlan plan = Loader(examples, {.sequences = 7,
                                          .micro = 2,
                                          .lanes = 2,
                                          .first_lane = 0,
                                          .last_lane = 2,
                                          .shuffle = false})
                            .Plan({});
  ASSERT_EQ(plan.rounds.size(), 2u);
  EXPECT_EQ(plan.rounds[0][0][0].examples, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(plan.rounds[0][1][0].examples, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(plan.rounds[1][0][0].examples, (std::vector<int64_t>{4, 6}));
  EXPECT_EQ(plan.rounds[1][1][0].examples, (std::vector<int64_t>{5}));
}

TEST(LoaderTest, LabelsAreTheNextTokensOfTheSameExample) {
  const auto examples = Examples(2);
  const StepPlan plan =
      Loader(examples, {.sequences = 2, .micro = 2, .shuffle = false}).Plan({});
  const MicroBatch& batch = plan.rounds[0][0][0];
  EXPECT_EQ(batch.ids, (std::vector<int64_t>{0, 1, 2, 100, 101, 102, 103}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 3, 7}));
  EXPECT_EQ(batch.rows, (std::vector<int64_t>{0, 1, 4, 5}));
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{1, 2, 102, 103}));
  EXPECT_EQ(plan.targets, 4);
}

TEST(LoaderTest, ARunResumedAtACursorGetsWhatAnUninterruptedOneGets) {
  const auto examples = Examples(23);
  const LoaderOptions options{
      .sequences = 5, .micro = 2, .lanes = 2, .last_lane = 2, .seed = 7};
  const Loader loader(examples, options);
  std::vector<std::vector<int64_t>> steps;
  std::vector<Cursor> cursors;
  Cursor cursor;
  for (int step = 0; step < 12; ++step) {
    cursors.push_back(cursor);
    const StepPlan plan = loader.Plan(cursor);
    steps.push_back(ExamplesOf(plan));
    cursor = plan.after;
  }
  EXPECT_EQ(cursor, (Cursor{2, 10}));
  EXPECT_NE(steps[0], steps[5]);
  for (size_t from = 0; from < steps.size(); ++from) {
    const Loader resumed(examples, options);
    Cursor at = cursors[from];
    for (size_t step = from; step < steps.size(); ++step) {
      const StepPlan plan = resumed.Plan(at);
      EXPECT_EQ(ExamplesOf(plan), steps[step]);
      at = plan.after;
    }
    EXPECT_EQ(at, cursor);
  }
}

TEST(LoaderTest, LanesAndMicroRegroupAStepButNotWhatIsInIt) {
  const auto examples = Examples(23);
  const auto contents = [&](int64_t micro, int64_t lanes) {
    const StepPlan plan = Loader(examples, {.sequences = 12,
                                            .micro = micro,
                                            .lanes = lanes,
                                            .last_lane = lanes})
                              .Plan({.pass = 1, .index = 12});
    std::vector<int64_t> all = ExamplesOf(plan);
    std::sort(all.begin(), all.end());
    all.push_back(plan.targets);
    all.push_back(plan.tokens);
    return all;
  };
  const std::vector<int64_t> one = contents(1, 1);
  EXPECT_EQ(one.size(), 11u + 2u);
  for (const int64_t micro : {1, 2, 3, 12, 100}) {
    for (const int64_t lanes : {1, 2, 3, 4, 16}) {
      EXPECT_EQ(contents(micro, lanes), one) << micro << " " << lanes;
    }
  }
}

TEST(LoaderTest, WithoutPackingEachExampleStandsAlone) {
  const auto examples = Examples(4);
  const StepPlan plan =
      Loader(examples, {.sequences = 4, .micro = 4, .packing = false}).Plan({});
  EXPECT_EQ(plan.rounds[0][0].size(), 4u);
}

}  // namespace
}  // namespace ft
