// SPDX-License-Identifier: Apache-2.0

#include "formats/hf_directory.h"

#include <gtest/gtest.h>

#include <filesystem>

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
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class HfDirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy(Golden("models/tiny_chat"), dir_.path());
  }
  void Replace(const char* name, absl::string_view from, absl::string_view to) {
    std::string text = ReadAll(dir_ / name);
    const size_t at = text.find(std::string(from));
    FT_CHECK(at != std::string::npos);
    WriteBytes(dir_ / name, text.replace(at, from.size(), std::string(to)));
  }

  TestDir dir_;
};

TEST_F(HfDirectoryTest, OpensAModel) {
  FT_ASSERT_OK_AND_ASSIGN(const HfDirectory model,
                          OpenHfDirectory(dir_.path()));
  EXPECT_EQ(model.spec.vocab_size, 768);
  EXPECT_EQ(model.weights.tensors().size(), 20u);
}

TEST_F(HfDirectoryTest, WeightsThatDoNotFitTheConfigAreNamedAllAtOnce) {
  Replace("config.json", "\"num_hidden_layers\": 2",
          "\"num_hidden_layers\": 3");
  Replace("config.json", "\"vocab_size\": 768", "\"vocab_size\": 769");
  const absl::StatusOr<HfDirectory> model = OpenHfDirectory(dir_.path());
  EXPECT_THAT(model, Fails(kInvalid,
                           "model.embed_tokens.weight: shape is "
                           "[768, 64], the config says [769, 64]"));
  EXPECT_THAT(model, Fails(kInvalid,
                           "model.layers.2.mlp.up_proj.weight: is "
                           "missing"));
}

TEST_F(HfDirectoryTest, TensorsThatAreNoParameterAreNamed) {
  Replace("config.json", "\"num_hidden_layers\": 2",
          "\"num_hidden_layers\": 1");
  EXPECT_THAT(OpenHfDirectory(dir_.path()),
              Fails(kInvalid,
                    "model.layers.1.input_layernorm.weight: is no "
                    "parameter of a llama"));
}

TEST_F(HfDirectoryTest, AHeadBesideATiedEmbeddingIsIgnored) {
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                          SafetensorsFile::Open(dir_ / "model.safetensors"));
  std::vector<TensorBytes> tensors;
  for (const TensorView& view : file.tensors()) {
    tensors.push_back({view, view.bytes});
  }
  const TensorView* embedding = file.Find("model.embed_tokens.weight");
  tensors.push_back(
      {{"lm_head.weight", DType::kF32, embedding->shape}, embedding->bytes});
  FT_ASSERT_OK(WriteSafetensors(dir_ / "model.safetensors", tensors));
  FT_EXPECT_OK(OpenHfDirectory(dir_.path()));
}

TEST_F(HfDirectoryTest, AFolderOfPicklesSaysHowToConvertThem) {
  FT_ASSERT_OK(RemoveFile(dir_ / "model.safetensors"));
  EXPECT_THAT(OpenHfDirectory(dir_.path()),
              Fails(kNotFound, "model.safetensors"));
  WriteBytes(dir_ / "pytorch_model.bin", "PK\x03\x04");
  EXPECT_THAT(OpenHfDirectory(dir_.path()),
              Fails(kInvalid, "pytorch_model.bin: a pickle"));
}

TEST_F(HfDirectoryTest, APickleBesideSafetensorsIsNotLookedAt) {
  WriteBytes(dir_ / "training_args.bin", "PK\x03\x04");
  FT_EXPECT_OK(OpenHfDirectory(dir_.path()));
  FT_ASSERT_OK_AND_ASSIGN(const auto names, ModelFileNames(dir_.path()));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("training_args.bin")));
}

TEST_F(HfDirectoryTest, MissingFilesAreNamed) {
  EXPECT_THAT(OpenHfDirectory(dir_ / "none"), Fails(kNotFound, "none"));
  FT_ASSERT_OK(RemoveFile(dir_ / "config.json"));
  EXPECT_THAT(OpenHfDirectory(dir_.path()), Fails(kNotFound, "config.json"));
}

TEST_F(HfDirectoryTest, TheFilesOfAModelAreTheseAndNoOthers) {
  WriteBytes(dir_ / "README.md", "x");
  FT_ASSERT_OK_AND_ASSIGN(const auto names, ModelFileNames(dir_.path()));
  EXPECT_EQ(names, (std::vector<std::string>{
                       "chat_template.jinja", "config.json",
                       "generation_config.json", "model.safetensors",
                       "tokenizer.json", "tokenizer_config.json"}));
}

TEST_F(HfDirectoryTest, TheDigestChangesWithEveryFileOfTheModelOnly) {
  FT_ASSERT_OK_AND_ASSIGN(const std::string digest, ModelDigest(dir_.path()));
  WriteBytes(dir_ / "README.md", "x");
  EXPECT_EQ(ModelDigest(dir_.path()).value(), digest);
  FT_ASSERT_OK_AND_ASSIGN(const auto names, ModelFileNames(dir_.path()));
  for (const std::string& name : names) {
    const std::string before = ReadAll(dir_ / name);
    WriteBytes(dir_ / name, before + " ");
    EXPECT_NE(ModelDigest(dir_.path()).value(), digest) << name;
    WriteBytes(dir_ / name, before);
  }
  EXPECT_EQ(ModelDigest(dir_.path()).value(), digest);
}

TEST(ModelDigestTest, IsTheDigestOfTheSortedListOfSums) {
  const std::string a(64, 'a');
  const std::string b(64, 'b');
  EXPECT_EQ(ModelDigestOf({{"z", a}, {"y", b}}),
            Sha256Hex(absl::StrCat(b, "  y\n", a, "  z\n")));
}

}  // namespace
}  // namespace ft
