// SPDX-License-Identifier: Apache-2.0

#include "worker/inventory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

TEST(InventoryTest, CountsWhatThisProcessMayUse) {
  const testing::TestDir dir;
  WorkerConfig config;
  config.data_dir = dir.path();
  config.slots = 3;
  const v1::Inventory inventory = TakeInventory(config);
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  EXPECT_EQ(inventory.cpus(), CPU_COUNT(&set));
  EXPECT_THAT(inventory.isa_class(),
              ::testing::AnyOf("avx512", "avx2", "baseline"));
  EXPECT_NE(inventory.hostname(), "");
  EXPECT_GT(inventory.disk_free_bytes(), 0);
  ASSERT_EQ(inventory.slots_size(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(inventory.slots(i).index(), i);
    EXPECT_EQ(inventory.slots(i).kind(), v1::DEVICE_KIND_CPU);
    EXPECT_EQ(inventory.slots(i).memory_bytes(), inventory.memory_bytes() / 3);
  }
}

TEST(InventoryTest, OneCpuOfAllIsOne) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(TakeInventory({}).cpus(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(InventoryTest, TheBootIsKnown) {
  EXPECT_EQ(BootId().size(), 36u) << BootId();
  EXPECT_EQ(BootId(), BootId());
}

}  // namespace
}  // namespace ft
