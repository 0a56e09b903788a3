// SPDX-License-Identifier: Apache-2.0
//
// Files to tokens: what is learned, what is cut, what is refused, with the
// SmolLM2 tokenizer and template.

#include "data/dataset.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "data/token_rows.h"
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
                            "d.json:1: row 1: messages"));
  EXPECT_THAT(result, Fails(absl::StatusCode::kInvalidArgument,
                            "d.json:2: row 3: messages"));
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

TEST_F(DatasetTest, ATokenBeyondTheModelsVocabularyIsABadRow) {
  Write(kTwoTurns);
  FT_ASSERT_OK_AND_ASSIGN(const Dataset whole, LoadDataset(options_, text_));
  const std::vector<int32_t>& ids = whole.train[0].ids;
  const int32_t largest = *std::max_element(ids.begin(), ids.end());
  options_.vocab_size = largest + 1;
  FT_EXPECT_OK(LoadDataset(options_, text_));
  options_.vocab_size = largest;
  EXPECT_THAT(LoadDataset(options_, text_),
              Fails(absl::StatusCode::kInvalidArgument,
                    absl::StrCat("d.json:1: row 1: token \"",
                                 text_.tokenizer.TokenOf(largest).value(),
                                 "\" (", largest, ") is beyond")));
}

TEST_F(DatasetTest, AtMostTwentyFaultsAreToldButAllAreReported) {
  std::string rows;
  for (int i = 0; i < 25; ++i) rows += "{}\n";
  Write(rows);
  EXPECT_THAT(LoadDataset(options_, text_),
              Fails(absl::StatusCode::kInvalidArgument, "and 6 more"));
  std::vector<std::string> faults;
  FT_ASSERT_OK_AND_ASSIGN(const Dataset dataset,
                          InspectDataset(options_, text_, faults));
  EXPECT_EQ(faults.size(), 26u);  // And that no example is left.
  EXPECT_EQ(dataset.report.bad_rows.size(), 25u);
  options_.files[0].max_samples = 3;
  options_.files[0].name = "mine.json";
  EXPECT_THAT(LoadDataset(options_, text_),
              Fails(absl::StatusCode::kInvalidArgument,
                    "mine.json:3: row 3: messages"));
}

TEST_F(DatasetTest, TheReportCountsRowsTokensTargetsAndLengths) {
  Write(R"([{"messages": [{"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"}]}, {"messages": [
    {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"messages": [{"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "loss_weight": 0}]},
    {"messages": [{"role": "user", "content": "two words more"},
    {"role": "assistant", "content": "b"}]}])");
  FT_ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(options_, text_));
  const DatasetReport& report = dataset.report;
  EXPECT_EQ(report.rows, 4);
  EXPECT_EQ(report.examples, 3);
  EXPECT_EQ(report.duplicates, 1);
  EXPECT_EQ(report.without_target, 1);
  EXPECT_EQ(report.without_end_token, 0);
  EXPECT_EQ(report.targets, 6);
  ASSERT_EQ(dataset.train.size(), 3u);
  int64_t tokens = 0;
  for (const TokenizedExample& example : dataset.train) {
    tokens += example.size();
  }
  EXPECT_EQ(report.tokens, tokens);
  EXPECT_EQ(report.shortest, dataset.train[0].size());
  EXPECT_EQ(report.median, dataset.train[0].size());
  EXPECT_EQ(report.p90, dataset.train[2].size());
  EXPECT_EQ(report.longest, dataset.train[2].size());
  int64_t counted = 0;
  for (const auto& [limit, count] : report.length_histogram) counted += count;
  EXPECT_EQ(counted, 3);
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_EQ(report.warnings[0].ToString(),
            "d.json:4: row 3: nothing is learned from it; it is left out");
  EXPECT_EQ(dataset.train[2].row, 4);
}

TEST_F(DatasetTest, ARunThatNeverLearnsToStopIsRefused) {
  ModelText text{
      .tokenizer = Tokenizer::Parse(ReadFile(FT_TEST_SOURCE_DIR
                                             "/tests/golden/smollm2_tokenizer/"
                                             "tokenizer.json",
                                             kMaxTokenizerBytes)
                                        .value())
                       .value(),
      .chat_template = ChatTemplate::BuiltIn("chatml").value(),
      .stop_ids = {0}};
  Write(kTwoTurns);
  EXPECT_THAT(LoadDataset(options_, text),
              Fails(absl::StatusCode::kInvalidArgument, "end token"));
}

TEST_F(DatasetTest, ThreadsChangeNothing) {
  std::string rows;
  for (int i = 0; i < 50; ++i) {
    rows += i % 7 == 3
                ? "{}\n"
                : R"({"messages": [{"role": "user", "content": "q)" +
                      std::to_string(i) +
                      R"("}, {"role": "assistant", "content": "a"}]})" + "\n";
  }
  Write(rows);
  options_.on_bad_row = OnBadRow::kSkip;
  options_.validation_share = 0.3;
  const Dataset one = LoadDataset(options_, text_).value();
  options_.threads = 4;
  const Dataset four = LoadDataset(options_, text_).value();
  ASSERT_EQ(one.train.size(), four.train.size());
  for (size_t i = 0; i < one.train.size(); ++i) {
    EXPECT_EQ(one.train[i].ids, four.train[i].ids);
    EXPECT_EQ(one.train[i].row, four.train[i].row);
  }
  EXPECT_EQ(one.validation.size(), four.validation.size());
  EXPECT_EQ(one.report.bad_rows.size(), 7u);
  EXPECT_EQ(four.report.bad_rows.size(), 7u);
  EXPECT_EQ(one.digest, four.digest);
}

TEST_F(DatasetTest, TheDigestIsOfWhatACursorMeans) {
  Write(kTwoTurns);
  options_.variables = {{"a", "1\nb=2"}};
  const std::string digest = LoadDataset(options_, text_)->digest;
  EXPECT_EQ(digest, LoadDataset(options_, text_)->digest);
  const auto changed = [&](auto change) {
    DatasetOptions options = options_;
    change(options);
    return LoadDataset(options, text_)->digest != digest;
  };
  using Options = DatasetOptions&;
  EXPECT_TRUE(
      changed([](Options o) { o.variables = {{"a", "1"}, {"b", "2"}}; }));
  EXPECT_TRUE(changed([](Options o) { o.cutoff_len = 100; }));
  EXPECT_TRUE(changed([](Options o) { o.mask.train_on = TrainOn::kLast; }));
  EXPECT_TRUE(changed([](Options o) { o.mask.learn_tail = true; }));
  EXPECT_TRUE(changed([](Options o) { o.files[0].max_samples = 1; }));
  EXPECT_TRUE(changed([](Options o) { o.files.push_back(o.files[0]); }));
  EXPECT_FALSE(changed([](Options o) { o.seed = 9; }));
  EXPECT_FALSE(changed([](Options o) { o.files[0].name = "other"; }));
  FT_ASSERT_OK(WriteFileAtomic(dir_ / "copy.json", kTwoTurns));
  EXPECT_FALSE(
      changed([&](Options o) { o.files[0].path = dir_ / "copy.json"; }));
}

TEST_F(DatasetTest, TokensAreShownWithIdTextAndWhetherTheyAreLearned) {
  Write(kTwoTurns);
  const Dataset dataset = LoadDataset(options_, text_).value();
  FT_ASSERT_OK_AND_ASSIGN(const std::vector<TokenRow> rows,
                          TokenRows(dataset.train[0], text_.tokenizer));
  ASSERT_EQ(rows.size(), dataset.train[0].ids.size());
  EXPECT_EQ(rows[0].id, 1);
  EXPECT_EQ(rows[0].token, "<|im_start|>");
  EXPECT_FALSE(rows[0].learned);
  std::string learned;
  for (const TokenRow& row : rows) {
    if (row.learned) learned += row.text;
  }
  EXPECT_EQ(learned, "First.<|im_end|>Second.<|im_end|>");
  EXPECT_EQ(TokenRows({.ids = {1 << 30}, .learned = {true}}, text_.tokenizer)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
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
