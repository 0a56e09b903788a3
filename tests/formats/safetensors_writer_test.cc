// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "formats/safetensors.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class WriterTest : public ::testing::Test {
 protected:
  std::vector<std::string> FilesInDir() { return ListDir(dir_.path()).value(); }

  TestDir dir_;
};

// Written by the safetensors library.
class RoundTripTest : public WriterTest,
                      public ::testing::WithParamInterface<const char*> {};

TEST_P(RoundTripTest, GivesTheBytesOfTheReference) {
  const std::string source = Golden(GetParam());
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                          SafetensorsFile::Open(source));
  std::vector<TensorBytes> tensors;
  for (const TensorView& view : file.tensors()) {
    // Backwards: the writer sorts.
    tensors.insert(tensors.begin(), {view, view.bytes});
  }
  FT_ASSERT_OK(WriteSafetensors(dir_ / "copy", tensors, file.metadata()));
  EXPECT_EQ(Sha256OfFile(dir_ / "copy").value(), Sha256OfFile(source).value());
}

INSTANTIATE_TEST_SUITE_P(
    Goldens, RoundTripTest,
    ::testing::Values("models/llama_tied/model.safetensors",
                      "models/llama_untied/expected.safetensors",
                      "models/tiny_chat/model.safetensors",
                      "training/llama_untied/data.safetensors",
                      "training/llama_untied/lora/adapter_init/"
                      "adapter_model.safetensors",
                      "quant/gguf.safetensors"));

TEST_F(WriterTest, PiecesInAnyOrderGiveTheSameBytes) {
  const std::vector<TensorInfo> infos = {{"b", DType::kU8, {4}},
                                         {"a", DType::kF32, {1}}};
  const std::string b = "wxyz";
  const float a = 1.5f;
  FT_ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer,
                          SafetensorsWriter::Create(dir_ / "pieces", infos));
  const auto b_bytes = std::as_bytes(std::span(b));
  FT_ASSERT_OK(writer.Append("b", b_bytes.first(1)));
  FT_ASSERT_OK(writer.Append("a", std::as_bytes(std::span(&a, 1))));
  FT_ASSERT_OK(writer.Append("b", b_bytes.subspan(1)));
  FT_ASSERT_OK(writer.Finish());

  FT_ASSERT_OK(WriteSafetensors(
      dir_ / "whole",
      std::vector<TensorBytes>{{infos[1], std::as_bytes(std::span(&a, 1))},
                               {infos[0], b_bytes}}));
  EXPECT_EQ(ReadAll(dir_ / "pieces"), ReadAll(dir_ / "whole"));
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                          SafetensorsFile::Open(dir_ / "pieces"));
  EXPECT_EQ(file.tensors()[0].name, "a");  // The wider type comes first.
}

TEST_F(WriterTest, AnUnfinishedFileNeverAppears) {
  WriteBytes(dir_ / "model", "old");
  {
    FT_ASSERT_OK_AND_ASSIGN(
        SafetensorsWriter writer,
        SafetensorsWriter::Create(dir_ / "model", {{"a", DType::kU8, {1}}}));
    EXPECT_EQ(FilesInDir().size(), 2u);
  }
  EXPECT_EQ(FilesInDir(), std::vector<std::string>{"model"});
  EXPECT_EQ(ReadAll(dir_ / "model"), "old");
}

TEST_F(WriterTest, BadTensorsAreRefusedAndLeaveNothing) {
  const auto create = [&](std::vector<TensorInfo> infos) {
    return SafetensorsWriter::Create(dir_ / "x", std::move(infos)).status();
  };
  EXPECT_THAT(create({{"a", DType::kU8, {1}}, {"a", DType::kF32, {1}}}),
              Fails(kInvalid, "stands twice"));
  EXPECT_THAT(create({{"", DType::kU8, {1}}}), Fails(kInvalid, "cannot name"));
  EXPECT_THAT(create({{"__metadata__", DType::kU8, {1}}}),
              Fails(kInvalid, "cannot name"));
  EXPECT_THAT(create({{"a", DType::kU8, {-1}}}), Fails(kInvalid, "bad shape"));
  EXPECT_THAT(create({{"a", DType::kF64, {int64_t{1} << 61}}}),
              Fails(kInvalid, "bad shape"));
  EXPECT_TRUE(FilesInDir().empty());
}

TEST_F(WriterTest, NamesAreEscaped) {
  const std::string name = "a\"b\\c\n\xc3\xa9";
  FT_ASSERT_OK(WriteSafetensors(
      dir_ / "x", std::vector<TensorBytes>{{{name, DType::kU8, {0}}, {}}},
      {{"k\"", "v\n"}}));
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                          SafetensorsFile::Open(dir_ / "x"));
  EXPECT_NE(file.Find(name), nullptr);
  EXPECT_EQ(file.metadata().at("k\""), "v\n");
}

TEST(WriterDeathTest, FinishingAnIncompleteFileIsABug) {
  TestDir dir;
  FT_ASSERT_OK_AND_ASSIGN(
      SafetensorsWriter writer,
      SafetensorsWriter::Create(dir / "x", {{"a", DType::kU8, {1}}}));
  EXPECT_DEATH(writer.Finish().IgnoreError(), "written");
}

}  // namespace
}  // namespace ft
