// SPDX-License-Identifier: Apache-2.0
//
// The ledger against numbers that were worked out by hand for models that
// everybody knows: who trusts it queues a job of a day on them.

#include "jobspec/plan_memory.h"

#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

constexpr double kGiB = 1 << 30;

struct Shape {
  int64_t layers, hidden, heads, kv_heads, intermediate, vocabulary;
  bool is_tied = false;
};
constexpr Shape kSmolLm2{30, 576, 9, 3, 1536, 49152, true};
constexpr Shape kLlama2_7B{32, 4096, 32, 32, 11008, 32000};
constexpr Shape kLlama31_8B{32, 4096, 32, 8, 14336, 128256};
constexpr Shape kLlama_65B{80, 8192, 64, 64, 22016, 32000};
constexpr Shape kLlama3_70B{80, 8192, 64, 8, 28672, 128256};

ModelShape Llama(const Shape& shape) {
  return ParseModelShape(absl::StrFormat(
                             R"({"model_type": "llama", "architectures":
                     ["LlamaForCausalLM"], "num_hidden_layers": %d,
                     "hidden_size": %d, "num_attention_heads": %d,
                     "num_key_value_heads": %d, "intermediate_size": %d,
                     "vocab_size": %d, "tie_word_embeddings": %s,
                     "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
                     "hidden_act": "silu"})",
                             shape.layers, shape.hidden, shape.heads,
                             shape.kv_heads, shape.intermediate,
                             shape.vocabulary,
                             shape.is_tied ? "true" : "false"))
      .value();
}

TEST(PlanMemoryTest, ParametersAndAdaptersAreCounted) {
  struct Row {
    Shape shape;
    int64_t parameters;
    double lora_r8, lora_r16, lora_r64;  // Millions.
  };
  for (const Row& row :
       {Row{kSmolLm2, 134'515'008, 2.44, 4.88, 19.5},
        Row{kLlama2_7B, 6'738'415'616, 20.0, 40.0, 159.9},
        Row{kLlama31_8B, 8'030'261'248, 21.0, 41.9, 167.8},
        Row{kLlama_65B, 65'285'660'672, 99.9, 199.9, 799.5},
        Row{kLlama3_70B, 70'553'706'496, 103.5, 207.1, 828.4}}) {
    const auto trainable = [&](int64_t rank) {
      return static_cast<double>(
                 PlanMemory({.model = Llama(row.shape), .lora_rank = rank})
                     .trainable) /
             1e6;
    };
    EXPECT_EQ(PlanMemory({.model = Llama(row.shape)}).parameters,
              row.parameters);
    EXPECT_NEAR(trainable(8), row.lora_r8, 0.05);
    EXPECT_NEAR(trainable(16), row.lora_r16, 0.05);
    EXPECT_NEAR(trainable(64), row.lora_r64, 0.05);
  }
}

// arXiv:2305.14314 on one card: each term, the peak, and with the context.
TEST(PlanMemoryTest, QloraOnOneCard) {
  struct Row {
    const char* name;
    Shape shape;
    int64_t rank, tokens;
    double moment_bytes;
    double base, training, saved, block_or_loss, peak, device;  // GiB
  };
  const Row rows[] = {
      {"8B r16", kLlama31_8B, 16, 2048, 8, 5.31, 0.62, 0.50, 0.30, 6.94, 7.44},
      {"65B r64 512", kLlama_65B, 64, 512, 8, 32.09, 11.91, 0.63, 0.43, 46.4,
       46.9},
      {"65B r64 8-bit", kLlama_65B, 64, 2048, 2.03, 32.09, 7.47, 2.50, 0.72,
       44.1, 44.6},
      {"65B r16", kLlama_65B, 16, 2048, 8, 32.09, 2.98, 2.50, 0.72, 39.4, 39.9},
      {"70B r16", kLlama3_70B, 16, 2048, 8, 36.80, 3.09, 2.50, 0.82, 44.5,
       45.0},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const MemoryPlan plan = PlanMemory({.model = Llama(row.shape),
                                        .lora_rank = row.rank,
                                        .base = BaseStorage::kNf4Double,
                                        .moment_bytes = row.moment_bytes,
                                        .tokens = row.tokens});
    EXPECT_NEAR(plan.Bytes("weights") / kGiB, row.base, 0.01);
    EXPECT_NEAR((plan.Bytes("parameters") + plan.Bytes("gradients") +
                 plan.Bytes("optimizer")) /
                    kGiB,
                row.training, 0.01);
    EXPECT_NEAR(plan.Bytes("saved") / kGiB, row.saved, 0.01);
    EXPECT_NEAR(plan.Bytes("block or loss") / kGiB, row.block_or_loss, 0.01);
    EXPECT_NEAR(plan.peak_bytes / kGiB, row.peak, 0.05);
    EXPECT_NEAR(plan.device_bytes / kGiB, row.device, 0.05);
    EXPECT_EQ(plan.Bytes("exchange") + plan.Bytes("carry"), 0);
  }
}

// arXiv:1910.02054, table 1, for an 8B and a 70B model in bf16 with bf16
// gradients: GB of state a rank.
TEST(PlanMemoryTest, StagesDivideTheState) {
  const auto state = [](const Shape& shape, int stage, int ranks) {
    const MemoryPlan plan = PlanMemory({.model = Llama(shape),
                                        .working_bytes = 2,
                                        .gradient_bytes = 2,
                                        .master_bytes = 4,
                                        .zero_stage = stage,
                                        .ranks = ranks});
    return (plan.Bytes("parameters") + plan.Bytes("gradients") +
            plan.Bytes("optimizer")) /
           1e9;
  };
  EXPECT_NEAR(state(kLlama31_8B, 0, 8), 128.5, 0.1);
  EXPECT_NEAR(state(kLlama31_8B, 1, 8), 44.2, 0.1);
  EXPECT_NEAR(state(kLlama31_8B, 2, 8), 30.1 + 0.44, 0.1);  // One unit more.
  EXPECT_NEAR(state(kLlama31_8B, 3, 8), 16.1 + 0.44, 0.1);
  EXPECT_NEAR(state(kLlama3_70B, 0, 8), 1129, 1);
  EXPECT_NEAR(state(kLlama3_70B, 1, 8), 388, 1);
  EXPECT_NEAR(state(kLlama3_70B, 2, 8), 265 + 1.7, 1);
  EXPECT_NEAR(state(kLlama3_70B, 3, 8), 141 + 1.7, 1);
}

TEST(PlanMemoryTest, SmolLm2OnTheHost) {
  const MemoryPlan plan = PlanMemory({.model = Llama(kSmolLm2),
                                      .on_device = false,
                                      .activation_bytes = 4,
                                      .lora_rank = 8,
                                      .base = BaseStorage::kFp32,
                                      .tokens = 512,
                                      .supervised_tokens = 512,
                                      .recomputes_blocks = false});
  EXPECT_NEAR(plan.Bytes("weights") / 1e9, 0.54, 0.01);
  EXPECT_NEAR(plan.Bytes("saved") / 1e9, 0.39, 0.01);
  EXPECT_NEAR(plan.Bytes("block or loss") / 1e9, 0.10, 0.01);
  EXPECT_EQ(plan.peak_at, "loss");
  EXPECT_EQ(plan.device_bytes, plan.peak_bytes);
}

TEST(PlanMemoryTest, AFrozenBaseIsShardedAtStageThreeAndSmallAdaptersAreNot) {
  MemoryQuestion question{.model = Llama(kLlama31_8B),
                          .lora_rank = 16,
                          .base = BaseStorage::kNf4Double,
                          .zero_stage = 0,
                          .ranks = 4};
  const MemoryPlan whole = PlanMemory(question);
  question.zero_stage = 3;
  const MemoryPlan sharded = PlanMemory(question);
  EXPECT_DOUBLE_EQ(sharded.Bytes("weights"), whole.Bytes("weights") / 4);
  EXPECT_EQ(sharded.Bytes("parameters"), whole.Bytes("parameters"));
  EXPECT_DOUBLE_EQ(sharded.Bytes("optimizer"), whole.Bytes("optimizer") / 4);
  EXPECT_GT(sharded.Bytes("gathered"), 0);
}

// Lanes beyond ranks keep partial sums; rounds beyond one keep a shard.
TEST(PlanMemoryTest, LanesAndRoundsHaveTheirCarry) {
  MemoryQuestion question{.model = Llama(kSmolLm2), .lora_rank = 8};
  const double t = static_cast<double>(PlanMemory(question).trainable);
  question.lanes = 4;
  EXPECT_DOUBLE_EQ(PlanMemory(question).Bytes("carry"), 4 * t * 2);
  question.ranks = 2;
  EXPECT_DOUBLE_EQ(PlanMemory(question).Bytes("carry"), 4 * t);
  question.rounds = 3;
  EXPECT_DOUBLE_EQ(PlanMemory(question).Bytes("carry"), 4 * t + 4 * t / 2);
  EXPECT_DOUBLE_EQ(PlanMemory(question).Bytes("exchange"), 4 * t / 2);
}

}  // namespace
}  // namespace ft
