// SPDX-License-Identifier: Apache-2.0
//
// checkpoint.json: what was written is read, and nothing else is believed.

#include "train/checkpoint_file.h"

#include "common/digest.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using nlohmann::json;
using testing::Fails;

constexpr auto kLost = absl::StatusCode::kDataLoss;

CheckpointFile Sample() {
  CheckpointFile file;
  file.info = {.job_id = "job-1",
               .step = 4,
               .ranks = 2,
               .lanes = 4,
               .seed = -7,
               .cursor = {.pass = 1, .index = 3},
               .fingerprint = {{"isa", "avx2"}}};
  file.tensors["lora_A"] = {{"shape", {2, 3}}, {"dtype", "F32"}};
  v1::LocalFile& shard = file.files.emplace_back();
  shard.set_path("shard-00000-of-00002.safetensors");
  shard.set_bytes(9);
  shard.set_sha256(std::string(64, 'a'));
  return file;
}

class CheckpointFileTest : public ::testing::Test {
 protected:
  // Reads root_ under the digest that it should have.
  absl::Status Read() {
    root_.erase("sha256");
    root_["sha256"] = Sha256Hex(root_.dump());
    return ParseCheckpointJson(root_.dump()).status();
  }
  json root_ = json::parse(CheckpointJson(Sample()));
};

TEST_F(CheckpointFileTest, WhatWasWrittenIsRead) {
  FT_ASSERT_OK_AND_ASSIGN(const CheckpointFile file,
                          ParseCheckpointJson(CheckpointJson(Sample())));
  EXPECT_EQ(file.info.step, 4);
  EXPECT_EQ(file.info.seed, -7);
  EXPECT_EQ(file.info.cursor, (Cursor{.pass = 1, .index = 3}));
  EXPECT_EQ(file.info.fingerprint.at("isa"), "avx2");
  EXPECT_EQ(file.tensors, Sample().tensors);
  ASSERT_EQ(file.files.size(), 1u);
  EXPECT_EQ(file.files[0].bytes(), 9);
}

TEST_F(CheckpointFileTest, AChangedByteIsFound) {
  const std::string text = CheckpointJson(Sample());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] ^= 1;
    EXPECT_FALSE(ParseCheckpointJson(changed).ok()) << i;
  }
}

TEST_F(CheckpointFileTest, ACutIsFoundWhereverItIs) {
  const std::string text = CheckpointJson(Sample());
  for (size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_THAT(ParseCheckpointJson(text.substr(0, size)),
                Fails(kLost, "is cut or no JSON"))
        << size;
  }
}

TEST_F(CheckpointFileTest, NumbersHaveRanges) {
  root_["step"] = -1;
  EXPECT_THAT(Read(), Fails(kLost, "step is -1, not in [0, "));
  root_["step"] = uint64_t{1} << 63;
  EXPECT_THAT(Read(), Fails(kLost, "step is 9223372036854775808, not in"));
  root_["step"] = 4.0;
  EXPECT_THAT(Read(), Fails(kLost, "step is missing or no integer"));
  root_["step"] = 4;
  root_["ranks"] = int64_t{1} << 32;
  EXPECT_THAT(Read(), Fails(kLost, "ranks is 4294967296, not in [1, 1048576]"));
  root_["ranks"] = 2;
  root_["zero_stage"] = 4;
  EXPECT_THAT(Read(), Fails(kLost, "zero_stage is 4, not in [0, 3]"));
}

TEST_F(CheckpointFileTest, FilesStayBelowTheFolder) {
  root_["files"][0]["name"] = "../shard";
  EXPECT_THAT(Read(), Fails(kLost, "no safe name"));
  root_["files"][0] = 1;
  EXPECT_THAT(Read(), Fails(kLost, "an entry of files is no object"));
  root_["files"] = json(kMaxCheckpointFiles + 1, json::object());
  EXPECT_THAT(Read(), Fails(kLost, "no list of at most 10000 entries"));
}

TEST_F(CheckpointFileTest, NestingAndSizeAreBounded) {
  EXPECT_THAT(ParseCheckpointJson(std::string(100'000, '[')),
              Fails(kLost, "nested deeper than 8"));
  EXPECT_THAT(ParseCheckpointJson(std::string(kMaxCheckpointJson + 1, ' ')),
              Fails(kLost, "16777217 bytes; the limit is 16777216"));
}

TEST_F(CheckpointFileTest, AnotherFormatIsNoLoss) {
  root_["format_version"] = 2;
  EXPECT_THAT(Read(), Fails(absl::StatusCode::kFailedPrecondition,
                            "format version 2 is not 1"));
}

}  // namespace
}  // namespace ft
