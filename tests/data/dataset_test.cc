// SPDX-License-Identifier: Apache-2.0
//
// Files to tokens: what is learned, what is cut, what is refused, with the
// SmolLM2 tokenizer and template.

#include "data/dataset.h"

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::Fails;

class DatasetTest : public ::testing::Test {
 protected:
  DatasetTest()
      : text_(
            LoadModelText(FT_TEST_SOURCE_DIR "/tests/golden/smollm2_tokenizer")
                .value()) {
    options_.files = {{.path = dir_ / "d.json", .format = RowFormat::kOpenai}};
  }
  void Write(const std::string& rows) {
    FT_CHECK(WriteFileAtomic(dir_ / "d.json", rows).ok());
  }
  std::string Learned(const TokenizedExample& example) const {
    std::vector<int64_t> ids;
    for (size_t t = 0; t < example.ids.size(); ++t) {
      if (example.learned[t]) ids.push_back(example.ids[t]);
    }
    return text_.tokenizer.Decode(ids, false).value();
  }
  std::string Whole(const TokenizedExample& example) const {
    return text_.tokenizer
        .Decode({example.ids.begin(), example.ids.end()}, false)
        .value();
  }

  testing::TestDir dir_;
  const ModelText text_;
  DatasetOptions options_;
};

constexpr char kTwoTurns[] =
    R"([{"messages": [{"role": "user", "content": "One?"},
    {"role": "assistant", "content": "First."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Second."}]}])";

TEST_F(DatasetTest, AnswersAndTheirEndTokensAreLearnedAndNothingElse) {
  Write(kTwoTurns);
  FT_ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(options_, text_));
  ASSERT_EQ(dataset.train.size(), 1u);
  EXPECT_EQ(Learned(dataset.train[0]), "First.<|im_end|>Second.<|im_end|>");
  EXPECT_THAT(Whole(dataset.train[0]), ::testing::StartsWith("<|im_start|>"));
}

TEST_F(DatasetTest, TrainOnChoosesTheTurns) {
  Write(kTwoTurns);
  options_.mask.train_on = TrainOn::kLast;
  EXPECT_EQ(Learned(LoadDataset(options_, text_)->train[0]),
            "Second.<|im_end|>");
  options_.mask.train_on = TrainOn::kPromptToo;
  const Dataset all = LoadDataset(options_, text_).value();
  EXPECT_EQ(Learned(all.train[0]) + "\n", Whole(all.train[0]));
  options_.mask = {.learn_tail = true};
  EXPECT_EQ(Learned(LoadDataset(options_, text_)->train[0]),
            "First.<|im_end|>\nSecond.<|im_end|>\n");
}

TEST_F(DatasetTest, TooLongDropsTheOldestTurnThenTheHeadOfTheQuestion) {
  Write(kTwoTurns);
  const Dataset whole = LoadDataset(options_, text_).value();
  options_.cutoff_len = whole.train[0].size() - 1;
  const Dataset cut = LoadDataset(options_, text_).value();
  EXPECT_EQ(Learned(cut.train[0]), "Second.<|im_end|>");
  EXPECT_EQ(cut.report.truncated, 1);

  std::string question;
  for (int i = 0; i < 300; ++i) question += "word" + std::to_string(i) + " ";
  Write(R"([{"messages": [{"role": "user", "content": ")" + question +
        R"("}, {"role": "assistant", "content": "Yes."}]}])");
  options_.cutoff_len = 100;
  const Dataset tail = LoadDataset(options_, text_).value();
  EXPECT_LE(tail.train[0].size(), 100);
  EXPECT_GE(tail.train[0].size(), 90);
  EXPECT_THAT(Whole(tail.train[0]), ::testing::HasSubstr("word299"));
  EXPECT_EQ(Learned(tail.train[0]), "Yes.<|im_end|>");

  options_.over_cutoff = OverCutoff::kError;
  EXPECT_THAT(LoadDataset(options_, text_),
              Fails(absl::StatusCode::kInvalidArgument, "cutoff_len 100"));
  options_.over_cutoff = OverCutoff::kDrop;
  EXPECT_THAT(LoadDataset(options_, text_),
              Fails(absl::StatusCode::kInvalidArgument, "no example"));
}

TEST_F(DatasetTest, AllBadRowsAreToldAtOnceWithFileAndRow) {
  Write(R"([{"messages": []}, {"messages": [{"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"}]}, {"text": 1}])");
  const auto result = LoadDataset(options_, text_);
  EXPECT_THAT(result, Fails(absl::StatusCode::kInvalidArgument,
                            "d.json: row 1: messages"));
  EXPECT_THAT(result, Fails(absl::StatusCode::kInvalidArgument,
                            "d.json: row 3: messages"));
  options_.on_bad_row = OnBadRow::kSkip;
  FT_ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(options_, text_));
  EXPECT_EQ(dataset.train.size(), 1u);
  EXPECT_EQ(dataset.report.skipped, 2);
}

TEST_F(DatasetTest, AnUnfilledVariableIsABadRow) {
  Write(R"([{"messages": [{"role": "user", "content": "{{name}}?"},
    {"role": "assistant", "content": "b"}]}])");
  EXPECT_THAT(LoadDataset(options_, text_),
              Fails(absl::StatusCode::kInvalidArgument, "{{name}}"));
  options_.variables = {{"name", "Ada"}};
  FT_ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(options_, text_));
  EXPECT_THAT(Whole(dataset.train[0]), ::testing::HasSubstr("Ada?"));
}

TEST_F(DatasetTest, ValidationRowsAreChosenByDigestSoAddingRowsMovesNone) {
  std::string rows = "[";
  const auto row = [](int i) {
    return R"({"messages": [{"role": "user", "content": "q)" +
           std::to_string(i) + R"("}, {"role": "assistant", "content": "a"}]})";
  };
  for (int i = 0; i < 100; ++i) rows += (i ? "," : "") + row(i);
  Write(rows + "]");
  options_.validation_share = 0.2;
  const Dataset before = LoadDataset(options_, text_).value();
  EXPECT_GT(before.validation.size(), 8u);
  EXPECT_LT(before.validation.size(), 35u);
  Write(rows + "," + row(100) + "]");
  const Dataset after = LoadDataset(options_, text_).value();
  EXPECT_GE(after.validation.size(), before.validation.size());
  for (size_t i = 0; i < before.validation.size(); ++i) {
    EXPECT_EQ(after.validation[i].ids, before.validation[i].ids);
  }
  EXPECT_NE(before.digest, after.digest);
}

}  // namespace
}  // namespace ft
