// SPDX-License-Identifier: Apache-2.0
//
// The model of the demo: its GGUF file against what the reference read in it.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "absl/time/clock.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/hf_directory.h"
#include "formats/model_import.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::ReadJson;
using ::ft::testing::Sha256OfValues;
using ::ft::testing::TestDir;
using nlohmann::json;

// FT_CACHE of the environment, else that of the build.
std::string ModelPath() {
  const char* cache = std::getenv("FT_CACHE");
  return absl::StrCat(cache != nullptr ? cache : FT_CACHE_DIR,
                      "/models-src/smollm2-135m-instruct.gguf");
}

class SmolLM2Test : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Exists(ModelPath()))
        << ModelPath() << " is missing; tools/bootstrap fetches it";
  }

  const json golden_ = ReadJson(Golden("smollm2.json"));
};

TEST_F(SmolLM2Test, TheFileIsTheReferences) {
  EXPECT_EQ(Sha256OfFile(ModelPath()).value(), golden_["gguf_sha256"]);
}

TEST_F(SmolLM2Test, EveryTensorIsImportedToTheBit) {
  TestDir dir;
  const absl::Time begin = absl::Now();
  FT_ASSERT_OK(ImportModel(ModelPath(), dir / "smollm2"));
  RecordProperty("import_seconds",
                 absl::StrCat(absl::ToDoubleSeconds(absl::Now() - begin)));
  FT_ASSERT_OK_AND_ASSIGN(const HfDirectory model,
                          OpenHfDirectory(dir / "smollm2"));
  FT_ASSERT_OK_AND_ASSIGN(const GgufFile gguf, GgufFile::Open(ModelPath()));
  EXPECT_TRUE(model.warnings.empty());
  EXPECT_EQ(model.weights.tensors().size(), 272u);
  EXPECT_EQ(gguf.tensors().size(), 272u);

  for (const auto& [gguf_name, expected] : golden_["gguf_tensors"].items()) {
    const GgufTensor* source = gguf.Find(gguf_name);
    ASSERT_NE(source, nullptr) << gguf_name;
    EXPECT_EQ(InfoOf(source->type).name, expected["type"].get<std::string>());
    const std::string name = expected["hf_name"].get<std::string>();
    FT_ASSERT_OK_AND_ASSIGN(const TensorView* tensor, model.weights.Get(name));
    EXPECT_EQ(tensor->shape, expected["shape"].get<std::vector<int64_t>>());
    std::vector<float> values(tensor->numel());
    FT_ASSERT_OK(ToFloat(tensor->dtype, tensor->bytes, values));
    double sum = 0;
    double squares = 0;
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
    }
    const double l2 = expected["l2"].get<double>();
    EXPECT_NEAR(sum, expected["sum"].get<double>(), 1e-6 * l2) << name;
    EXPECT_NEAR(std::sqrt(squares), l2, 1e-9 * l2) << name;
    EXPECT_EQ(Sha256OfValues(values), expected["sha256"].get<std::string>())
        << name;
  }
}

TEST_F(SmolLM2Test, ConfigAndTokenizerAreTheReferences) {
  FT_ASSERT_OK_AND_ASSIGN(const GgufFile gguf, GgufFile::Open(ModelPath()));
  FT_ASSERT_OK_AND_ASSIGN(const TokenizerFiles files, MakeTokenizerFiles(gguf));
  const auto golden = [](const char* name) {
    return Golden(absl::StrCat("smollm2_tokenizer/", name));
  };

  EXPECT_EQ(files.tokenizer_json, ReadAll(golden("tokenizer.json")));
  json config = json::parse(files.tokenizer_config_json);
  json golden_config = ReadJson(golden("tokenizer_config.json"));
  // Ours keeps other readers from rebuilding the pre-tokenizer.
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  golden_config.erase("tokenizer_class");
  config.erase("tokenizer_class");
  EXPECT_EQ(config, golden_config);
  EXPECT_EQ(json::parse(files.special_tokens_map_json),
            ReadJson(golden("special_tokens_map.json")));
  EXPECT_EQ(json::parse(files.generation_config_json),
            ReadJson(golden("generation_config.json")));
}

TEST_F(SmolLM2Test, TheSpecIsTheReferences) {
  TestDir dir;
  FT_ASSERT_OK(ImportModel(ModelPath(), dir / "smollm2"));
  FT_ASSERT_OK_AND_ASSIGN(ModelSpec made,
                          ReadModelSpec(dir / "smollm2/config.json"));
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec golden,
      ReadModelSpec(Golden("smollm2_tokenizer/config.json")));
  EXPECT_EQ(made.dtype, DType::kF32);
  made.dtype = golden.dtype;  // The reference's is the bf16 copy.
  EXPECT_EQ(made, golden);
}

}  // namespace
}  // namespace ft
