// SPDX-License-Identifier: Apache-2.0
//
// The llama row against transformers (tests/golden/models): logits, loss, every
// gradient, greedy tokens, over all ropes; LoRA against PEFT.

#include "model/transformer.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "formats/peft_adapter.h"
#include "model/generate.h"
#include "tests/model/golden.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::GoldenJson;
using testing::GoldenTensors;
using testing::LoadGoldenModel;
using testing::PackRows;
using testing::Supervised;

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

double RelativeL2(const at::Tensor& got, const at::Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

std::vector<int64_t> AllRows(int64_t count) {
  std::vector<int64_t> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) rows[i] = i;
  return rows;
}

class GoldenModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  GoldenModelTest()
      : expected_(std::string("models/") + GetParam() +
                  "/expected.safetensors"),
        model_(LoadGoldenModel(GetParam())),
        packed_(PackRows(expected_["input_ids"], expected_["attention_mask"],
                         expected_["labels"])) {}

  const GoldenTensors expected_;
  const std::unique_ptr<Transformer> model_;
  const Supervised packed_;
};

TEST_P(GoldenModelTest, LogitsOfPackedRowsEqualTheReference) {
  c10::NoGradGuard no_grad;
  const at::Tensor logits = model_->Logits(model_->Forward(packed_.batch),
                                           AllRows(packed_.batch.num_tokens()));
  std::vector<at::Tensor> rows;
  const at::Tensor mask = expected_["attention_mask"];
  for (int64_t row = 0; row < mask.size(0); ++row) {
    rows.push_back(
        expected_["logits"][row].narrow(0, 0, mask[row].sum().item<int64_t>()));
  }
  EXPECT_LE(MaxDifference(logits, at::cat(rows)), 1e-4);
}

TEST_P(GoldenModelTest, AloneAndPackedRowsGiveTheSameLogits) {
  c10::NoGradGuard no_grad;
  const int64_t split = packed_.batch.cu_seqlens[1];
  const std::vector<int64_t> first(packed_.batch.ids.begin(),
                                   packed_.batch.ids.begin() + split);
  const at::Tensor alone =
      model_->Logits(model_->Forward(PackedBatch::Of({first})), AllRows(split));
  const at::Tensor packed =
      model_->Logits(model_->Forward(packed_.batch), AllRows(split));
  EXPECT_LE(MaxDifference(alone, packed), 1e-5);
}

TEST_P(GoldenModelTest, LossAndEveryGradientEqualTheReference) {
  model_->TrainEverything();
  std::vector<double> nll;
  const at::Tensor loss = model_->LossSum(
      model_->Forward(packed_.batch), packed_.rows, packed_.labels,
      1.0 / static_cast<double>(packed_.rows.size()), &nll);
  EXPECT_NEAR(loss.item<double>(), expected_["loss"].item<double>(), 1e-5);
  loss.backward();

  const nlohmann::json golden =
      GoldenJson(std::string("models/") + GetParam() + "/expected.json");
  size_t compared = 0;
  for (const NamedParameter& parameter : model_->Trainables()) {
    const at::Tensor gradient = parameter.tensor.grad();
    ASSERT_TRUE(gradient.defined()) << parameter.name;
    const auto& want = golden["grad"][parameter.name];
    EXPECT_NEAR(gradient.norm().item<double>(), want["l2"],
                1e-4 * want["l2"].get<double>())
        << parameter.name;
    EXPECT_NEAR(gradient.abs().max().item<double>(), want["absmax"],
                1e-4 * want["absmax"].get<double>())
        << parameter.name;
    if (expected_.file().Find("grad." + parameter.name) != nullptr) {
      EXPECT_LE(RelativeL2(gradient, expected_["grad." + parameter.name]), 1e-4)
          << parameter.name;
    }
    ++compared;
  }
  EXPECT_EQ(compared, golden["grad"].size());
}

TEST_P(GoldenModelTest, GreedyTokensEqualTheReference) {
  EXPECT_EQ(Generate(*model_, expected_.Ints("greedy_prompt"),
                     {.max_new_tokens = 16}),
            expected_.Ints("greedy_tokens"));
}

INSTANTIATE_TEST_SUITE_P(Llama, GoldenModelTest,
                         ::testing::Values("llama_untied", "llama_tied",
                                           "llama3_rope", "llama_rope_linear",
                                           "llama_rope_yarn"),
                         [](const auto& test) {
                           return std::string(test.param);
                         });

class LoraTest : public ::testing::Test {
 protected:
  static constexpr const char* kGolden = "training/llama_untied/lora/";

  LoraTest()
      : data_("training/llama_untied/data.safetensors"),
        first_(std::string(kGolden) + "first.safetensors"),
        model_(LoadGoldenModel("llama_untied")) {}

  Supervised MicroBatch(int64_t step, int64_t micro) const {
    return PackRows(data_["input_ids"][step][micro],
                    data_["attention_mask"][step][micro],
                    data_["labels"][step][micro]);
  }

  const GoldenTensors data_, first_;
  const std::unique_ptr<Transformer> model_;
};

TEST_F(LoraTest, LogitsAndGradientsOfTheFirstStepEqualPeft) {
  FT_ASSERT_OK(model_->LoadAdapter(
      testing::GoldenPath(std::string(kGolden) + "adapter_init")));
  const Supervised a = MicroBatch(0, 0), b = MicroBatch(0, 1);
  const at::Tensor hidden = model_->Forward(a.batch);
  const at::Tensor logits =
      model_->Logits(hidden, AllRows(a.batch.num_tokens()));
  const int64_t first_row = a.batch.cu_seqlens[1];
  EXPECT_LE(MaxDifference(logits.narrow(0, 0, first_row),
                          first_["logits"][0].narrow(0, 0, first_row)),
            1e-4);

  const double scale = 1.0 / static_cast<double>(a.rows.size() + b.rows.size());
  model_->LossSum(hidden, a.rows, a.labels, scale).backward();
  model_->LossSum(model_->Forward(b.batch), b.rows, b.labels, scale).backward();
  size_t compared = 0;
  for (const NamedParameter& parameter : model_->Trainables()) {
    const std::string name =
        "grad.base_model.model." + parameter.name + ".weight";
    EXPECT_LE(RelativeL2(parameter.tensor.grad(), first_[name]), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 28u);
}

TEST_F(LoraTest, AFreshAdapterChangesNothingAndIsAFunctionOfItsSeed) {
  c10::NoGradGuard no_grad;
  const Supervised batch = MicroBatch(0, 0);
  const at::Tensor base = model_->Forward(batch.batch);
  FT_ASSERT_OK(model_->AddLora({.lora_rank = 4, .alpha = 8, .seed = 7}));
  EXPECT_EQ(MaxDifference(model_->Forward(batch.batch), base), 0);

  const auto same = LoadGoldenModel("llama_untied");
  const auto other = LoadGoldenModel("llama_untied");
  FT_ASSERT_OK(same->AddLora({.lora_rank = 4, .alpha = 8, .seed = 7}));
  FT_ASSERT_OK(other->AddLora({.lora_rank = 4, .alpha = 8, .seed = 8}));
  const at::Tensor A = model_->Trainables()[0].tensor;
  EXPECT_EQ(MaxDifference(A, same->Trainables()[0].tensor), 0);
  EXPECT_GT(MaxDifference(A, other->Trainables()[0].tensor), 0);
  EXPECT_LE(A.abs().max().item<double>(), 1 / std::sqrt(64.0));
  EXPECT_GT(A.abs().max().item<double>(), 0.9 / std::sqrt(64.0));
}

TEST_F(LoraTest, AnUnknownTargetIsRefusedWithTheNamesThereAre) {
  EXPECT_THAT(model_->AddLora({.targets = {"q_proj", "query"}}),
              testing::Fails(absl::StatusCode::kInvalidArgument, "query"));
  EXPECT_TRUE(model_->Trainables().empty());
}

TEST_F(LoraTest, BoundParametersLearnInTheFlatBuffer) {
  FT_ASSERT_OK(model_->LoadAdapter(
      testing::GoldenPath(std::string(kGolden) + "adapter_init")));
  const Supervised batch = MicroBatch(0, 0);
  model_->LossSum(model_->Forward(batch.batch), batch.rows, batch.labels, 1)
      .backward();
  const at::Tensor want = model_->Trainables()[3].tensor.grad().clone();

  const int64_t numel = want.numel();
  const at::Tensor storage = at::zeros({numel + 10});
  const at::Tensor gradient = at::zeros({numel + 10});
  storage.narrow(0, 5, numel)
      .view(want.sizes())
      .copy_(model_->Trainables()[3].tensor.detach());
  model_->Bind(3, storage.narrow(0, 5, numel), gradient.narrow(0, 5, numel));
  model_->LossSum(model_->Forward(batch.batch), batch.rows, batch.labels, 1)
      .backward();
  EXPECT_LE(RelativeL2(gradient.narrow(0, 5, numel).view(want.sizes()), want),
            1e-6);
  EXPECT_EQ(gradient.narrow(0, 0, 5).abs().max().item<double>(), 0);
}

TEST_F(LoraTest, RowsAloneEqualThoseOfAllAndGiveTheSameGradients) {
  FT_ASSERT_OK(model_->LoadAdapter(
      testing::GoldenPath(std::string(kGolden) + "adapter_init")));
  const Supervised batch = MicroBatch(0, 0);
  ASSERT_LT(batch.rows.size(), batch.batch.ids.size());
  const at::Tensor all = model_->Forward(batch.batch);
  model_->LossSum(all, batch.rows, batch.labels, 1).backward();
  std::vector<at::Tensor> want;
  for (const NamedParameter& parameter : model_->Trainables()) {
    want.push_back(parameter.tensor.grad().clone());
    parameter.tensor.mutable_grad().zero_();
  }

  const at::Tensor rows = model_->ForwardRows(batch.batch, batch.rows);
  const auto count = static_cast<int64_t>(batch.rows.size());
  for (int64_t i = 0; i < count; ++i) {
    EXPECT_LE(MaxDifference(rows[i], all[batch.rows[i]]), 1e-5) << i;
  }
  model_->LossSum(rows, AllRows(count), batch.labels, 1).backward();
  for (size_t i = 0; i < want.size(); ++i) {
    const NamedParameter parameter = model_->Trainables()[i];
    EXPECT_LE(RelativeL2(parameter.tensor.grad(), want[i]), 1e-5)
        << parameter.name;
  }
}

// Values that repeat nowhere near, in [-1, 1].
at::Tensor Waves(int64_t rows, int64_t columns, double phase) {
  return at::sin(at::arange(rows * columns, at::kFloat) * 1.7 + phase)
      .view({rows, columns});
}

TEST(LoraLinearTest, EveryRankGivesTheFormulaAndItsGradients) {
  constexpr int64_t kTokens = 13, kIn = 20, kOut = 36;
  constexpr double kScale = 0.5;
  for (const int64_t rank : {3, 8, 16, 24}) {
    Linear linear{.weight = Waves(kOut, kIn, 1),
                  .lora_A = Waves(rank, kIn, 2).set_requires_grad(true),
                  .lora_B = Waves(kOut, rank, 3).set_requires_grad(true),
                  .lora_scale = kScale};
    const at::Tensor x = Waves(kTokens, kIn, 4).set_requires_grad(true);
    const at::Tensor upstream = Waves(kTokens, kOut, 5);
    const std::vector<at::Tensor> leaves = {x, linear.lora_A, linear.lora_B};
    const auto gradients = [&](const at::Tensor& y) {
      (y * upstream).sum().backward();
      std::vector<at::Tensor> all;
      for (const at::Tensor& leaf : leaves) {
        all.push_back(leaf.grad().clone());
        leaf.mutable_grad().zero_();
      }
      return all;
    };

    const at::Tensor y = LinearGroup(x, {&linear}, nullptr)[0];
    const at::Tensor formula =
        x.matmul(linear.weight.t()) +
        kScale * x.matmul(linear.lora_A.t()).matmul(linear.lora_B.t());
    EXPECT_LE(RelativeL2(y, formula), 1e-6) << rank;
    const std::vector<at::Tensor> got = gradients(y), want = gradients(formula);
    for (size_t i = 0; i < leaves.size(); ++i) {
      EXPECT_LE(RelativeL2(got[i], want[i]), 1e-5) << rank << " " << i;
    }
  }
}

TEST_F(LoraTest, DropoutIsAFunctionOfItsKeyAndKeepsTheMean) {
  c10::NoGradGuard no_grad;
  FT_ASSERT_OK(
      model_->AddLora({.lora_rank = 4, .alpha = 8, .dropout = 0.5, .seed = 7}));
  for (const NamedParameter& parameter : model_->Trainables()) {
    parameter.tensor.fill_(0.05);
  }
  const PackedBatch batch = MicroBatch(0, 0).batch;
  const NoiseKey key{.seed = 1, .step = 2, .round = 3, .lane = 4};
  NoiseKey next = key;
  next.step = 3;
  const at::Tensor once = model_->Forward(batch, &key);
  EXPECT_EQ(MaxDifference(model_->Forward(batch, &key), once), 0);
  EXPECT_GT(MaxDifference(model_->Forward(batch, &next), once), 0);
  EXPECT_GT(MaxDifference(model_->Forward(batch), once), 0);
}

TEST_F(LoraTest, DropoutsGradientEqualsTheDifferenceQuotient) {
  FT_ASSERT_OK(
      model_->AddLora({.lora_rank = 2, .alpha = 4, .dropout = 0.3, .seed = 7}));
  const Supervised batch = MicroBatch(0, 0);
  const NoiseKey key{.seed = 1};
  {
    c10::NoGradGuard no_grad;
    for (const NamedParameter& parameter : model_->Trainables()) {
      if (parameter.name.ends_with("lora_B")) parameter.tensor.fill_(0.02);
    }
  }
  const auto loss = [&] {
    return model_->LossSum(model_->Forward(batch.batch, &key), batch.rows,
                           batch.labels, 1);
  };
  loss().backward();
  c10::NoGradGuard no_grad;
  for (const size_t index : {0, 1, 13, 20}) {
    const NamedParameter parameter = model_->Trainables()[index];
    const at::Tensor direction = parameter.tensor.grad().clone();
    const double slope = direction.square().sum().item<double>();
    const double h = 1e-2 / direction.norm().item<double>();
    parameter.tensor.add_(direction, h);
    const double up = loss().item<double>();
    parameter.tensor.add_(direction, -2 * h);
    const double down = loss().item<double>();
    parameter.tensor.add_(direction, h);
    EXPECT_NEAR((up - down) / (2 * h), slope, 0.02 * slope) << parameter.name;
  }
}

TEST(ChooseTokenTest, SamplingIsAFunctionOfSeedAndPlaceAndKeepsToTopK) {
  const at::Tensor logits = at::zeros({100});
  logits[17] = 5;
  logits[40] = 4.9;
  GenerateOptions options{
      .sample = true, .temperature = 1, .top_p = 1, .top_k = 2, .seed = 3};
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 100; ++i) {
    const int64_t token = ChooseToken(logits, options, i);
    EXPECT_EQ(token, ChooseToken(logits, options, i));
    seen.insert(token);
  }
  EXPECT_EQ(seen, (std::set<int64_t>{17, 40}));
  options.top_p = 0.3;
  EXPECT_EQ(ChooseToken(logits, options, 5), 17);
}

}  // namespace
}  // namespace ft
