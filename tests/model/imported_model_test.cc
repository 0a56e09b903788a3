// SPDX-License-Identifier: Apache-2.0
//
// A model from its GGUF file to its words: import, tokenizer, forward and
// greedy generation against transformers on the same dequantised weights.
// SmolLM2 is the file that tools/bootstrap fetches; without it the test fails.

#include <ATen/ops/logsumexp.h>
#include <ATen/ops/topk.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "formats/model_import.h"
#include "model/generate.h"
#include "tests/model/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "text/tokenizer.h"

namespace ft {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::TestDir;

struct ImportedModel {
  explicit ImportedModel(const std::string& gguf) {
    const absl::Status status = ImportModel(gguf, dir / "model");
    EXPECT_TRUE(status.ok()) << status;
    model = Transformer::Load(OpenHfDirectory(dir / "model").value()).value();
    tokenizer = std::make_unique<Tokenizer>(
        Tokenizer::Parse(
            ReadFile(dir / "model/tokenizer.json", kMaxTokenizerBytes).value())
            .value());
  }
  const TestDir dir;
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Tokenizer> tokenizer;
};

const ImportedModel& SmolLm2() {
  static const auto* const model =
      new ImportedModel(FT_CACHE_DIR "/models-src/smollm2-135m-instruct.gguf");
  return *model;
}

std::vector<int64_t> Ints(const nlohmann::json& list) {
  return list.get<std::vector<int64_t>>();
}

at::Tensor LastLogits(Transformer& model, const std::vector<int64_t>& ids) {
  c10::NoGradGuard no_grad;
  return model.Logits(model.Forward(PackedBatch::Of({ids})),
                      {static_cast<int64_t>(ids.size()) - 1})[0];
}

// The ten likeliest tokens in the reference's order, and their logits.
void ExpectTopTen(const at::Tensor& logits_V, const nlohmann::json& golden,
                  double tolerance) {
  const auto [values, ids] = at::topk(logits_V, 10);
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(ids[i].item<int64_t>(), golden["top10_ids"][i]) << i;
    EXPECT_NEAR(values[i].item<double>(), golden["top10_logits"][i], tolerance)
        << i;
  }
}

class SmolLm2Test : public ::testing::TestWithParam<const char*> {
 protected:
  const nlohmann::json golden_ =
      GoldenJson("smollm2.json")["prompts"][GetParam()];
  const std::vector<int64_t> ids_ = Ints(golden_["input_ids"]);
  Transformer& model_ = *SmolLm2().model;
};

TEST_P(SmolLm2Test, TheTokenizerMadeFromTheFileGivesTheIds) {
  const absl::StatusOr<Encoding> encoded =
      SmolLm2().tokenizer->Encode(golden_["text"].get<std::string>());
  FT_ASSERT_OK(encoded.status());
  EXPECT_EQ(encoded->ids, ids_);
}

TEST_P(SmolLm2Test, TopTenLogitsEqualTheReference) {
  const at::Tensor logits = LastLogits(model_, ids_);
  ExpectTopTen(logits, golden_, 2e-3);
  EXPECT_NEAR(logits.mean().item<double>(), golden_["logits_mean"], 2e-3);
  EXPECT_NEAR(at::logsumexp(logits, 0).item<double>(),
              golden_["logits_logsumexp"], 2e-3);
}

TEST_P(SmolLm2Test, MeanNllOfThePromptEqualsTheReference) {
  c10::NoGradGuard no_grad;
  std::vector<int64_t> rows, labels;
  for (size_t t = 0; t + 1 < ids_.size(); ++t) {
    rows.push_back(static_cast<int64_t>(t));
    labels.push_back(ids_[t + 1]);
  }
  ASSERT_EQ(rows.size(), golden_["tokens_scored"].get<size_t>());
  const at::Tensor loss =
      model_.LossSum(model_.Forward(PackedBatch::Of({ids_})), rows, labels,
                     1.0 / static_cast<double>(rows.size()));
  EXPECT_NEAR(loss.item<double>(), golden_["mean_token_nll"], 1e-4);
}

TEST_P(SmolLm2Test, GreedyTokensEqualTheReference) {
  const std::vector<int64_t> tokens =
      Generate(model_, ids_, {.max_new_tokens = 48});
  EXPECT_EQ(tokens, Ints(golden_["greedy_48"]));
}

INSTANTIATE_TEST_SUITE_P(Prompts, SmolLm2Test,
                         ::testing::Values("plain", "chat", "passage"),
                         [](const auto& test) {
                           return std::string(test.param);
                         });

TEST(TinyChatGgufTest, LogitsOfTheQuantisedFileEqualTheReference) {
  const ImportedModel tiny(GoldenPath("models/tiny_chat.gguf"));
  const nlohmann::json golden =
      GoldenJson("models/tiny_chat.gguf.json")["prompt"];
  const absl::StatusOr<Encoding> encoded =
      tiny.tokenizer->Encode(golden["text"].get<std::string>());
  FT_ASSERT_OK(encoded.status());
  EXPECT_EQ(encoded->ids, Ints(golden["input_ids"]));
  ExpectTopTen(LastLogits(*tiny.model, encoded->ids), golden, 1e-4);
  EXPECT_EQ(Generate(*tiny.model, encoded->ids, {.max_new_tokens = 16}),
            Ints(golden["greedy"]));
}

}  // namespace
}  // namespace ft
