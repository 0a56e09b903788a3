// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf_import.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "formats/hf_directory.h"
#include "tests/formats/gguf_builder.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::GgufBuilder;
using ::ft::testing::Golden;
using ::ft::testing::ReadJson;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
using nlohmann::json;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(ImportGgufTest, TinyChatBecomesTheReferencesTensors) {
  TestDir dir;
  std::vector<std::string> seen;
  int64_t last_done = 0;
  FT_ASSERT_OK(ImportGguf(Golden("models/tiny_chat.gguf"), dir / "out",
                          [&](const ImportProgress& progress) {
                            EXPECT_GE(progress.done_bytes, last_done);
                            EXPECT_LE(progress.done_bytes,
                                      progress.total_bytes);
                            last_done = progress.done_bytes;
                            seen.emplace_back(progress.what);
                          }));
  FT_ASSERT_OK_AND_ASSIGN(const HfDirectory model,
                          OpenHfDirectory(dir / "out"));
  const json golden = ReadJson(Golden("models/tiny_chat.gguf.json"))["tensors"];
  FT_ASSERT_OK_AND_ASSIGN(const GgufFile gguf,
                          GgufFile::Open(Golden("models/tiny_chat.gguf")));

  EXPECT_EQ(model.weights.tensors().size(), golden.size());
  for (const auto& [name, expected] : golden.items()) {
    FT_ASSERT_OK_AND_ASSIGN(const TensorView* tensor, model.weights.Get(name));
    EXPECT_EQ(tensor->shape, expected["shape"].get<std::vector<int64_t>>());
    EXPECT_EQ(tensor->dtype, DType::kF32);
    EXPECT_EQ(Sha256Hex({reinterpret_cast<const char*>(tensor->bytes.data()),
                         tensor->bytes.size()}),
              expected["sha256"].get<std::string>())
        << name;
    const GgufTensor* source =
        gguf.Find(expected["gguf_name"].get<std::string>());
    ASSERT_NE(source, nullptr);
    EXPECT_EQ(InfoOf(source->type).name, expected["type"].get<std::string>());
  }
  EXPECT_EQ(seen.size(), golden.size() + 1);
  EXPECT_EQ(seen.back(), "fsync");
}

TEST(ImportGgufTest, TinyChatsConfigIsTheOneItWasMadeFrom) {
  TestDir dir;
  FT_ASSERT_OK(ImportGguf(Golden("models/tiny_chat.gguf"), dir / "out"));
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec made,
                          ReadModelSpec(dir / "out/config.json"));
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec golden,
      ReadModelSpec(Golden("models/tiny_chat/config.json")));
  EXPECT_EQ(made, golden);
}

TEST(ImportGgufTest, TheSameFileGivesTheSameBytes) {
  TestDir dir;
  FT_ASSERT_OK(ImportGguf(Golden("models/tiny_chat.gguf"), dir / "one"));
  FT_ASSERT_OK(ImportGguf(Golden("models/tiny_chat.gguf"), dir / "two"));
  EXPECT_EQ(ModelDigest(dir / "one").value(), ModelDigest(dir / "two").value());
}

TEST(ImportGgufTest, WhatIsThereIsNotReplaced) {
  TestDir dir;
  FT_ASSERT_OK(ImportGguf(Golden("models/tiny_chat.gguf"), dir / "out"));
  EXPECT_THAT(ImportGguf(Golden("models/tiny_chat.gguf"), dir / "out"),
              Fails(absl::StatusCode::kAlreadyExists, "out"));
}

// A llama of one block, hidden 4, two heads of two, vocabulary 4.
class SmallGgufTest : public ::testing::Test {
 protected:
  GgufBuilder Metadata() {
    GgufBuilder builder;
    builder.String("general.architecture", architecture_)
        .U32("llama.block_count", 1)
        .U32("llama.context_length", 16)
        .U32("llama.embedding_length", 4)
        .U32("llama.feed_forward_length", 4)
        .U32("llama.attention.head_count", 2)
        .F32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .U32("tokenizer.ggml.eos_token_id", 0)
        .String("tokenizer.ggml.model", "gpt2")
        .String("tokenizer.ggml.pre", "gpt-2")
        .Strings("tokenizer.ggml.tokens", {"<e>", "a", "b", "ab"})
        .Ints("tokenizer.ggml.token_type", {3, 1, 1, 1})
        .Strings("tokenizer.ggml.merges", {"a b"});
    return builder;
  }
  void AddTensors(GgufBuilder& builder) {
    std::vector<float> matrix(16);
    for (int i = 0; i < 16; ++i) matrix[i] = static_cast<float>(i);
    const std::vector<float> ones(4, 1.0f);
    for (const char* name :
         {"token_embd", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v",
          "blk.0.attn_output", "blk.0.ffn_gate", "blk.0.ffn_up",
          "blk.0.ffn_down"}) {
      if (name == left_out_) continue;
      builder.Floats(absl::StrCat(name, ".weight"), {4, 4},
                     name == spoiled_ ? Spoiled(matrix) : matrix);
    }
    for (const char* name :
         {"output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"}) {
      builder.Floats(absl::StrCat(name, ".weight"), {4}, ones);
    }
  }
  static std::vector<float> Spoiled(std::vector<float> values) {
    values[5] = std::numeric_limits<float>::quiet_NaN();
    return values;
  }
  absl::Status Import(const GgufBuilder& builder) {
    WriteBytes(dir_ / "m.gguf", builder.Build());
    return ImportGguf(dir_ / "m.gguf", dir_ / "out");
  }
  absl::Status ImportWith(void (*change)(GgufBuilder&)) {
    GgufBuilder builder = Metadata();
    change(builder);
    AddTensors(builder);
    return Import(builder);
  }

  TestDir dir_;
  std::string architecture_ = "llama";
  std::string left_out_;
  std::string spoiled_;
};

TEST_F(SmallGgufTest, OnlyRowsOfQAndKAreMoved) {
  FT_ASSERT_OK(ImportWith([](GgufBuilder&) {}));
  FT_ASSERT_OK_AND_ASSIGN(const HfDirectory model,
                          OpenHfDirectory(dir_ / "out"));
  const auto first_column = [&](const char* name) {
    const TensorView* tensor = model.weights.Find(
        absl::StrCat("model.layers.0.self_attn.", name, ".weight"));
    std::vector<float> values(16);
    FT_CHECK(ToFloat(tensor->dtype, tensor->bytes, values).ok());
    return std::vector<float>{values[0], values[4], values[8], values[12]};
  };
  // Heads of two have one pair, which is its own two halves: all as it was.
  EXPECT_EQ(first_column("q_proj"), (std::vector<float>{0, 4, 8, 12}));
  EXPECT_EQ(first_column("v_proj"), (std::vector<float>{0, 4, 8, 12}));
  EXPECT_TRUE(model.spec.tie_word_embeddings);
}

TEST_F(SmallGgufTest, AnOutputMatrixUntiesTheHead) {
  FT_ASSERT_OK(ImportWith([](GgufBuilder& builder) {
    builder.Floats("output.weight", {4, 4}, std::vector<float>(16, 2.0f));
  }));
  FT_ASSERT_OK_AND_ASSIGN(const HfDirectory model,
                          OpenHfDirectory(dir_ / "out"));
  EXPECT_FALSE(model.spec.tie_word_embeddings);
}

TEST_F(SmallGgufTest, ScalingsOfTheMetadataAreKept) {
  FT_ASSERT_OK(ImportWith([](GgufBuilder& builder) {
    builder.String("llama.rope.scaling.type", "yarn")
        .F32("llama.rope.scaling.factor", 2.5f)
        .U32("llama.rope.scaling.original_context_length", 8);
  }));
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec,
                          ReadModelSpec(dir_ / "out/config.json"));
  EXPECT_EQ(spec.rope.kind, RopeKind::kYarn);
  EXPECT_EQ(spec.rope.factor, 2.5);
  EXPECT_EQ(spec.rope.original_max_position, 8);
}

TEST_F(SmallGgufTest, ALlama3ScalingIsKnownByItsDivisors) {
  // theta 10000, heads of two: one frequency, wavelength 2 pi, kept: 1.
  FT_ASSERT_OK(ImportWith([](GgufBuilder& builder) {
    builder.Floats("rope_freqs.weight", {1}, {1.0f});
  }));
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec,
                          ReadModelSpec(dir_ / "out/config.json"));
  EXPECT_EQ(spec.rope.kind, RopeKind::kLlama3);
  EXPECT_EQ(spec.rope.original_max_position, 8192);
}

TEST_F(SmallGgufTest, UnknownScalingsAreRefused) {
  EXPECT_THAT(ImportWith([](GgufBuilder& builder) {
                builder.Floats("rope_freqs.weight", {1}, {3.0f});
              }),
              Fails(kUnimplemented, "none of the known llama3 scalings"));
  EXPECT_THAT(ImportWith([](GgufBuilder& builder) {
                builder.String("llama.rope.scaling.type", "longrope");
              }),
              Fails(kUnimplemented, "\"longrope\""));
}

TEST_F(SmallGgufTest, MissingForeignAndMisshapenTensorsAreNamed) {
  left_out_ = "blk.0.attn_k";
  EXPECT_THAT(ImportWith([](GgufBuilder&) {}),
              Fails(kInvalid, "blk.0.attn_k.weight: is missing"));
  left_out_ = "";
  EXPECT_THAT(ImportWith([](GgufBuilder& builder) {
                builder.Floats("blk.0.ssm_a.weight", {4}, {1, 2, 3, 4});
              }),
              Fails(kInvalid, "blk.0.ssm_a.weight: is no part of a llama"));
  EXPECT_THAT(ImportWith([](GgufBuilder& builder) {
                builder.U32("llama.attention.head_count_kv", 1);
              }),
              Fails(kInvalid, "shape is [4, 4], the metadata say [2, 4]"));
}

TEST_F(SmallGgufTest, ValuesThatAreNotFiniteAreRefusedAndNothingIsLeft) {
  spoiled_ = "blk.0.ffn_up";
  EXPECT_THAT(ImportWith([](GgufBuilder&) {}),
              Fails(kInvalid, "blk.0.ffn_up.weight: holds a value"));
  EXPECT_EQ(ListDir(dir_.path()).value(), std::vector<std::string>{"m.gguf"});
}

TEST_F(SmallGgufTest, OtherArchitecturesAreRefusedByName) {
  architecture_ = "qwen2";
  EXPECT_THAT(ImportWith([](GgufBuilder&) {}),
              Fails(kUnimplemented,
                    "\"qwen2\" is not supported yet; supported: llama"));
  architecture_ = "llama";
  EXPECT_THAT(ImportWith([](GgufBuilder& builder) {
                builder.U32("llama.expert_count", 8);
              }),
              Fails(kUnimplemented, "mixtures of experts"));
  EXPECT_THAT(ImportWith([](GgufBuilder& builder) {
                builder.U32("llama.rope.dimension_count", 1);
              }),
              Fails(kUnimplemented, "1 rotated"));
}

}  // namespace
}  // namespace ft
