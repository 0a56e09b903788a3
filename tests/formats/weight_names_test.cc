// SPDX-License-Identifier: Apache-2.0

#include "formats/weight_names.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/formats/golden.h"

namespace ft {
namespace {

using ::ft::testing::Golden;
using ::ft::testing::ReadJson;

TEST(WeightNamesTest, AllTensorsOfAFileHaveTheReferencesNames) {
  const nlohmann::json golden = ReadJson(Golden("smollm2.json"));
  ASSERT_EQ(golden["gguf_tensors"].size(), 272u);
  for (const auto& [gguf, tensor] : golden["gguf_tensors"].items()) {
    EXPECT_EQ(HfNameOfGguf(gguf), tensor["hf_name"].get<std::string>());
    EXPECT_EQ(GgufNameOfHf(tensor["hf_name"].get<std::string>()), gguf);
  }
}

TEST(WeightNamesTest, OtherNamesHaveNoCounterpart) {
  for (const char* name :
       {"", "blk", "blk.", "blk.0", "blk.0.attn_q", "blk.x.attn_q.weight",
        "blk.-1.attn_q.weight", "blk.00.attn_q.weight", "blk.0.attn_q.scale",
        "blk.0.ssm_a.weight", "token_embd.bias", "rope_freqs.weight"}) {
    EXPECT_EQ(HfNameOfGguf(name), std::nullopt) << name;
  }
  EXPECT_EQ(HfNameOfGguf("blk.12.attn_k.bias"),
            "model.layers.12.self_attn.k_proj.bias");
}

TEST(WeightNamesTest, RowsOfQAndKMoveFromPairsToHalves) {
  // Two heads of four rows: the file has 0 2 | 1 3 of each head as pairs.
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 8; ++row) rows.push_back(GgufRowOf(row, 8, 2));
  EXPECT_EQ(rows, (std::vector<int64_t>{0, 2, 1, 3, 4, 6, 5, 7}));
}

TEST(WeightNamesTest, OnlyQAndKArePermutedByTheirOwnHeads) {
  ModelSpec spec;
  spec.num_heads = 9;
  spec.num_kv_heads = 3;
  EXPECT_EQ(PermutedHeads(spec, "model.layers.0.self_attn.q_proj.weight"), 9);
  EXPECT_EQ(PermutedHeads(spec, "model.layers.0.self_attn.k_proj.bias"), 3);
  EXPECT_EQ(PermutedHeads(spec, "model.layers.0.self_attn.v_proj.weight"), 0);
  EXPECT_EQ(PermutedHeads(spec, "model.embed_tokens.weight"), 0);
}

}  // namespace
}  // namespace ft
