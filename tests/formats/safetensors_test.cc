// SPDX-License-Identifier: Apache-2.0

#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_replace.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Bytes;
using ::ft::testing::Fails;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string FileWith(absl::string_view header, size_t data_bytes) {
  return absl::StrCat(Bytes<uint64_t>(header.size()), header,
                      std::string(data_bytes, 'd'));
}

class SafetensorsTest : public ::testing::Test {
 protected:
  absl::StatusOr<SafetensorsFile> OpenBytes(absl::string_view bytes) {
    WriteBytes(dir_ / "model.safetensors", bytes);
    return SafetensorsFile::Open(dir_ / "model.safetensors");
  }

  TestDir dir_;
};

TEST_F(SafetensorsTest, ReadsWhatTheReferenceWrote) {
  FT_ASSERT_OK_AND_ASSIGN(
      const SafetensorsFile file,
      SafetensorsFile::Open(Golden("models/llama_tied/expected.safetensors")));

  FT_ASSERT_OK_AND_ASSIGN(const TensorView* ids, file.Get("input_ids"));
  EXPECT_EQ(ids->dtype, DType::kI64);
  EXPECT_EQ(ids->shape, (std::vector<int64_t>{2, 24}));
  EXPECT_EQ(ids->bytes.size(), 2 * 24 * 8u);
  EXPECT_EQ(file.Find("hidden.1")->dtype, DType::kF32);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_THAT(file.Get("no.such"),
              Fails(absl::StatusCode::kNotFound, "no.such"));
}

TEST_F(SafetensorsTest, AcceptsScalarsEmptyTensorsAndEmptyFiles) {
  FT_ASSERT_OK_AND_ASSIGN(
      const SafetensorsFile file,
      OpenBytes(FileWith(
          R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
          R"("e":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]},)"
          R"("b":{"dtype":"BOOL","shape":[2],"data_offsets":[4,6]}}   )",
          6)));
  EXPECT_EQ(file.Find("s")->numel(), 1);
  EXPECT_EQ(file.Find("e")->numel(), 0);
  EXPECT_EQ(file.tensors().size(), 3u);
  FT_EXPECT_OK(OpenBytes(FileWith("{}", 0)));
}

struct BadFile {
  std::string name;
  std::string bytes;
  std::string message;
};

std::vector<BadFile> BadFiles() {
  const auto one = [](absl::string_view fields, size_t data_bytes) {
    return FileWith(absl::StrCat("{\"w\":{", fields, "}}"), data_bytes);
  };
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  return {
      {"Empty", "", "not a safetensors file"},
      {"OnlyALength", Bytes<uint64_t>(2), "not a safetensors file"},
      {"NoBrace", absl::StrCat(Bytes<uint64_t>(2), "[]"),
       "not a safetensors file"},
      {"HugeHeader", absl::StrCat(Bytes<uint64_t>(100'000'001), "{}"),
       "the limit is 100000000"},
      {"HeaderOf2To64", absl::StrCat(Bytes<uint64_t>(~uint64_t{0}), "{}"),
       "the limit is 100000000"},
      {"CutHeader", absl::StrCat(Bytes<uint64_t>(50), "{\"w\":"),
       "header has 50 bytes"},
      {"NotJson", FileWith("{\"w\":}", 0), "not valid JSON"},
      {"NaNSize", one(R"("dtype":"F32","shape":[NaN],"data_offsets":[0,4])", 4),
       "not valid JSON"},
      {"TrailingJson", FileWith("{}{}", 0), "not valid JSON"},
      {"BadUtf8", FileWith("{\"\xff\":1}", 0), "not valid JSON"},
      {"TensorIsANumber", FileWith(R"({"w":1})", 0), "a number in the wrong"},
      {"TensorIsNull", FileWith(R"({"w":null})", 0), "null in the wrong place"},
      {"NegativeDim",
       one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", 8),
       "negative number"},
      {"FractionalDim",
       one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", 8),
       "not an integer"},
      {"DimOver2To63",
       one(R"("dtype":"F32","shape":[9223372036854775808],)"
           R"("data_offsets":[0,8])",
           8),
       "over 2^63"},
      {"ProductOverflows",
       one(R"("dtype":"F32","shape":[4294967296,4294967296],)"
           R"("data_offsets":[0,0])",
           0),
       "more than 2^63 bytes"},
      {"NineDims",
       one(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1])",
           1),
       "more than 8 numbers"},
      {"UnknownType",
       one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])", 8),
       "unknown element type \"F31\""},
      {"NoShape", one(R"("dtype":"F32","data_offsets":[0,8])", 8), "missing"},
      {"UnknownKey", one(absl::StrCat(good, R"(,"code":"x")"), 8),
       "unknown key \"code\""},
      {"KeyTwice", one(absl::StrCat(good, R"(,"dtype":"F32")"), 8),
       "stands twice"},
      {"NameTwice",
       FileWith(absl::StrCat("{\"w\":{", good, "},\"w\":{", good, "}}"), 8),
       "the name stands twice"},
      {"LongName",
       FileWith(absl::StrCat("{\"", std::string(257, 'n'), "\":{", good, "}}"),
                8),
       "1 to 256 bytes"},
      {"MetadataNotText", FileWith(R"({"__metadata__":{"a":1}})", 0),
       "a number in the wrong place"},
      {"ThreeOffsets",
       one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])", 8),
       "more than 2 numbers"},
      {"OneOffset", one(R"("dtype":"F32","shape":[2],"data_offsets":[0])", 8),
       "not [begin, end]"},
      {"EndBeforeBegin",
       one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", 8),
       "not [begin, end]"},
      {"WrongNumel",
       one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", 8),
       "hold 8 bytes, dtype and shape say 12"},
      {"CutData", one(good, 7), "cut off"},
      {"DataTooLong", one(good, 9), "bytes too many"},
      {"BeyondTheFile",
       one(R"("dtype":"U8","shape":[9000000000000000000],)"
           R"("data_offsets":[0,9000000000000000000])",
           8),
       "cut off"},
      {"HoleAtTheStart",
       one(R"("dtype":"F32","shape":[2],"data_offsets":[4,12])", 12),
       "leaves a hole"},
      {"HoleBetween",
       FileWith(absl::StrCat("{\"v\":{", good,
                             R"(},"w":{"dtype":"U8","shape":[1],)"
                             R"("data_offsets":[9,10]}})"),
                10),
       "leaves a hole"},
      {"Overlap",
       FileWith(absl::StrCat("{\"v\":{", good,
                             R"(},"w":{"dtype":"U8","shape":[2],)"
                             R"("data_offsets":[7,9]}})"),
                9),
       "overlaps"},
      {"AliasedTensors",
       FileWith(absl::StrCat("{\"v\":{", good, "},\"w\":{", good, "}}"), 8),
       "overlaps"},
  };
}

class BadSafetensorsTest : public SafetensorsTest,
                           public ::testing::WithParamInterface<BadFile> {};

TEST_P(BadSafetensorsTest, IsRefusedByName) {
  const absl::StatusOr<SafetensorsFile> file = OpenBytes(GetParam().bytes);
  EXPECT_THAT(file, Fails(kInvalid, GetParam().message));
  EXPECT_THAT(file, Fails(kInvalid, dir_ / "model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(All, BadSafetensorsTest,
                         ::testing::ValuesIn(BadFiles()),
                         [](const auto& info) { return info.param.name; });

TEST_F(SafetensorsTest, AFileCutAnywhereIsRefused) {
  const std::string whole =
      ReadAll(Golden("training/llama_untied/lora/adapter_init/"
                     "adapter_model.safetensors"));
  for (size_t size = 0; size < whole.size(); size += 97) {
    EXPECT_FALSE(OpenBytes(absl::string_view(whole).substr(0, size)).ok())
        << size;
  }
}

TEST_F(SafetensorsTest, RandomDamageOfTheHeaderNeverLeavesTheFile) {
  const std::string whole =
      ReadAll(Golden("training/llama_untied/data.safetensors"));
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    std::string damaged = whole;
    for (int k = 0; k < 3; ++k) damaged[random() % 400] = random() % 256;
    const absl::StatusOr<SafetensorsFile> file = OpenBytes(damaged);
    if (!file.ok()) continue;
    int64_t total = 0;
    for (const TensorView& tensor : file->tensors()) {
      EXPECT_EQ(static_cast<int64_t>(tensor.bytes.size()), tensor.size_bytes());
      for (const std::byte byte : tensor.bytes)
        total += std::to_integer<int>(byte);
    }
    EXPECT_GE(total, 0);
  }
}

TEST_F(SafetensorsTest, ViewsOutliveAMoveAndForgetting) {
  FT_ASSERT_OK_AND_ASSIGN(
      SafetensorsFile first,
      SafetensorsFile::Open(Golden("models/tiny_chat/model.safetensors")));
  const TensorView* tensor = first.Find("model.embed_tokens.weight");
  const std::string before =
      Sha256Hex({reinterpret_cast<const char*>(tensor->bytes.data()),
                 tensor->bytes.size()});
  const SafetensorsFile moved = std::move(first);
  tensor = moved.Find("model.embed_tokens.weight");
  moved.Forget(*tensor);
  EXPECT_EQ(Sha256Hex({reinterpret_cast<const char*>(tensor->bytes.data()),
                       tensor->bytes.size()}),
            before);
}

TEST_F(SafetensorsTest, AMissingFileAndAFolderAreNamed) {
  EXPECT_THAT(SafetensorsFile::Open(dir_ / "none"),
              Fails(absl::StatusCode::kNotFound, dir_ / "none"));
  EXPECT_THAT(SafetensorsFile::Open(dir_.path()),
              Fails(kInvalid, "not a file"));
}

// A model in two files with an index.
class ShardedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteShard("model-00001-of-00002.safetensors", {"a", "b"});
    WriteShard("model-00002-of-00002.safetensors", {"c"});
  }
  void WriteShard(const std::string& name,
                  const std::vector<std::string>& tensors) {
    std::vector<TensorBytes> contents;
    for (const std::string& tensor : tensors) {
      contents.push_back({{tensor, DType::kU8, {1}},
                          std::as_bytes(std::span(tensor.data(), 1))});
    }
    FT_ASSERT_OK(WriteSafetensors(dir_ / name, contents));
  }
  absl::StatusOr<SafetensorsModel> OpenWithIndex(absl::string_view weight_map) {
    const std::string files = absl::StrReplaceAll(
        weight_map, {{"FILE1", "model-00001-of-00002.safetensors"},
                     {"FILE2", "model-00002-of-00002.safetensors"}});
    WriteBytes(dir_ / "model.safetensors.index.json",
               absl::StrCat("{\"weight_map\":", files, "}"));
    return SafetensorsModel::Open(dir_.path());
  }

  TestDir dir_;
};

TEST_F(ShardedTest, TensorsOfAllFilesAreFound) {
  FT_ASSERT_OK_AND_ASSIGN(
      const SafetensorsModel model,
      OpenWithIndex(R"({"a":"FILE1","b":"FILE1","c":"FILE2"})"));
  EXPECT_EQ(model.tensors().size(), 3u);
  FT_ASSERT_OK_AND_ASSIGN(const TensorView* c, model.Get("c"));
  EXPECT_EQ(c->bytes[0], std::byte{'c'});
  EXPECT_EQ(model.file_names().size(), 2u);
  FT_ASSERT_OK_AND_ASSIGN(const auto names, WeightFileNames(dir_.path()));
  EXPECT_EQ(names.size(), 3u);
}

TEST_F(ShardedTest, TheIndexAndTheFilesMustAgree) {
  EXPECT_THAT(OpenWithIndex(R"({"a":"FILE1","c":"FILE2"})"),
              Fails(kInvalid, "holds b, which the index does not name"));
  EXPECT_THAT(OpenWithIndex(R"({"a":"FILE1","b":"FILE2","c":"FILE2"})"),
              Fails(kInvalid, "says is in model-00002"));
  EXPECT_THAT(
      OpenWithIndex(R"({"a":"FILE1","b":"FILE1","c":"FILE2","d":"FILE2"})"),
      Fails(kInvalid, "d is not in model-00002"));
}

TEST_F(ShardedTest, AFileThatTheIndexDoesNotNameIsNotOpened) {
  WriteBytes(dir_ / "model-00002-of-00002.safetensors", "no safetensors");
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsModel model,
                          OpenWithIndex(R"({"a":"FILE1","b":"FILE1"})"));
  EXPECT_EQ(model.tensors().size(), 2u);
}

TEST_F(ShardedTest, AnIndexCannotPointOutOfTheFolder) {
  for (const char* name : {"../x.safetensors", "/etc/x.safetensors",
                           "sub/x.safetensors", "model.bin", ""}) {
    EXPECT_THAT(OpenWithIndex(absl::StrCat("{\"a\":\"", name, "\"}")),
                Fails(kInvalid, "weight_map"));
  }
  EXPECT_THAT(OpenWithIndex("[]"), Fails(kInvalid, "not an object"));
  EXPECT_THAT(OpenWithIndex("{}"), Fails(kInvalid, "names 0 files"));
  EXPECT_THAT(OpenWithIndex(R"({"a":"gone.safetensors"})"),
              Fails(absl::StatusCode::kNotFound, "gone.safetensors"));
}

TEST_F(ShardedTest, AFolderWithoutWeightsSaysWhatItWants) {
  EXPECT_THAT(SafetensorsModel::Open(dir_.path()),
              Fails(absl::StatusCode::kNotFound, "model.safetensors"));
}

}  // namespace
}  // namespace ft
