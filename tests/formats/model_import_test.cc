// SPDX-License-Identifier: Apache-2.0

#include "formats/model_import.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "common/file.h"
#include "formats/hf_directory.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::Golden;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ModelImportTest, ADirectoryArrivesWithItsDigest) {
  TestDir dir;
  int64_t last = 0;
  FT_ASSERT_OK(ImportModel(
      Golden("models/tiny_chat"), dir / "root/tiny/",
      [&](const ImportProgress& progress) { last = progress.done_bytes; }));
  EXPECT_EQ(ModelDigest(dir / "root/tiny").value(),
            ModelDigest(Golden("models/tiny_chat")).value());
  EXPECT_GT(last, 0);
  EXPECT_EQ(ListDir(dir / "root").value(), std::vector<std::string>{"tiny"});
}

TEST(ModelImportTest, AGgufFileArrivesAsADirectory) {
  TestDir dir;
  FT_ASSERT_OK(ImportModel(Golden("models/tiny_chat.gguf"), dir / "tiny"));
  FT_EXPECT_OK(OpenHfDirectory(dir / "tiny"));
}

TEST(ModelImportTest, ADirectoryWithoutTokenizerIsRefused) {
  TestDir dir;
  EXPECT_THAT(ImportModel(Golden("models/llama_tied"), dir / "x"),
              Fails(absl::StatusCode::kNotFound, "tokenizer.json: is missing"));
  EXPECT_TRUE(ListDir(dir.path())->empty());
}

TEST(ModelImportTest, WhatIsNoFileIsNotOpened) {
  for (const char* name : {"config.json", "generation_config.json",
                           "model.safetensors", "tokenizer.json"}) {
    TestDir dir;
    std::filesystem::copy(Golden("models/tiny_chat"), dir / "source");
    std::filesystem::remove(JoinPath(dir / "source", name));
    ASSERT_EQ(mkfifo(JoinPath(dir / "source", name).c_str(), 0600), 0);
    EXPECT_THAT(ImportModel(dir / "source", dir / "x"), Fails(kInvalid, name))
        << name;
    EXPECT_FALSE(Exists(dir / "x"));
  }
}

TEST(ModelImportTest, OtherFilesAreRefusedWithTheWayOut) {
  TestDir dir;
  WriteBytes(dir / "model.pt", "PK\x03\x04");
  EXPECT_THAT(ImportModel(dir / "model.pt", dir / "x"),
              Fails(kInvalid, "never unpickled"));
  EXPECT_THAT(
      ImportModel(Golden("models/tiny_chat/model.safetensors"), dir / "x"),
      Fails(kInvalid, "give the directory"));
  EXPECT_THAT(ImportModel(dir / "none", dir / "x"),
              Fails(absl::StatusCode::kNotFound, "none"));
  WriteBytes(dir / "text.txt", "hello");
  EXPECT_THAT(ImportModel(dir / "text.txt", dir / "x"),
              Fails(kInvalid, "not a GGUF file"));
}

TEST(ModelImportTest, WhatIsThereStaysAsItIs) {
  TestDir dir;
  FT_ASSERT_OK(MakeDirs(dir / "x"));
  EXPECT_THAT(ImportModel(Golden("models/tiny_chat"), dir / "x"),
              Fails(absl::StatusCode::kAlreadyExists, "is already there"));
  EXPECT_TRUE(ListDir(dir / "x")->empty());
}

TEST(PublishDirectoryTest, AFailedFillLeavesNothing) {
  TestDir dir;
  EXPECT_THAT(PublishDirectory(dir / "x",
                               [](const std::string& into) {
                                 WriteBytes(JoinPath(into, "part"), "x");
                                 return absl::DataLossError("half way");
                               }),
              Fails(absl::StatusCode::kDataLoss, "half way"));
  EXPECT_TRUE(ListDir(dir.path())->empty());
}

}  // namespace
}  // namespace ft
