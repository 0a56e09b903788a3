// SPDX-License-Identifier: Apache-2.0
//
// ft-train check and show-tokens on files: what is counted, what is refused and
// by which name, before a weight is read.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_replace.h"
#include "common/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "train/commands.h"

namespace ft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kJob[] = R"(schema: ft.v1
name: tiny
model: {base: tiny}
data:
  train: [{path: rows.jsonl, format: openai}]
  cutoff_len: 64
stage: sft
adaptation: {lora: {rank: 4}}
schedule: {epochs: 2}
batch: {sequences: 2}
resources: {ranks: 1}
)";

std::string Row(const std::string& question, const std::string& answer) {
  return R"({"messages": [{"role": "user", "content": ")" + question +
         R"("}, {"role": "assistant", "content": ")" + answer + "\"}]}\n";
}

struct Said {
  int code = 0;
  std::string out, err;
};

template <typename Run>
Said Listen(const Run& run) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Said said{.code = run()};
  said.out = ::testing::internal::GetCapturedStdout();
  said.err = ::testing::internal::GetCapturedStderr();
  return said;
}

class CheckCommandTest : public ::testing::Test {
 protected:
  CheckCommandTest() {
    std::filesystem::create_directories(dir_ / "models");
    std::filesystem::copy(FT_TEST_SOURCE_DIR "/tests/golden/models/tiny_chat",
                          model());
    Write("job.yaml", kJob);
    Write("rows.jsonl", Row("One?", "First.") + Row("Two?", "Second."));
  }
  std::string model() const { return dir_ / "models/tiny"; }
  void Write(const std::string& name, const std::string& text) {
    FT_CHECK(MakeDirs(dir_ / "models").ok());
    FT_CHECK(WriteFileAtomic(dir_ / name, text).ok());
  }
  // The job with one of its lines changed.
  void Change(const std::string& from, const std::string& to) {
    const std::string changed = absl::StrReplaceAll(kJob, {{from, to}});
    FT_CHECK(changed != kJob);
    Write("job.yaml", changed);
  }
  void ChangeModel(const std::string& name, const std::string& from,
                   const std::string& to) {
    const std::string path = JoinPath(model(), name);
    const std::string text = ReadFile(path, 1 << 24).value();
    const std::string changed = absl::StrReplaceAll(text, {{from, to}});
    FT_CHECK(changed != text);
    FT_CHECK(WriteFileAtomic(path, changed).ok());
  }
  Said Check(const std::string& output = "table") {
    return Listen([&] {
      return RunCheckCommand({.job_file = dir_ / "job.yaml",
                              .model_root = dir_ / "models",
                              .output = output});
    });
  }
  void ExpectRefused(const std::string& message) {
    const Said said = Check();
    EXPECT_EQ(said.code, kExitInvalid);
    EXPECT_THAT(said.err, HasSubstr(message));
  }

  testing::TestDir dir_;
};

TEST_F(CheckCommandTest, ARightJobIsCounted) {
  const Said said = Check("json");
  EXPECT_EQ(said.code, kExitOk) << said.err;
  const json report = json::parse(said.out);
  EXPECT_EQ(report["ok"], true);
  EXPECT_EQ(report["total_steps"], 2);
  EXPECT_EQ(report["train"]["rows"], 2);
  EXPECT_EQ(report["train"]["examples"], 2);
  EXPECT_EQ(report["train"]["without_end_token"], 0);
  EXPECT_GT(report["train"]["targets"], 0);
  EXPECT_GT(report["train"]["tokens"], report["train"]["targets"]);
  EXPECT_LE(report["train"]["median"], report["train"]["p90"]);
  EXPECT_LE(report["train"]["p99"], report["train"]["longest"]);
  int64_t counted = 0;
  for (const json& bin : report["train"]["length_histogram"]) {
    counted += bin[1].get<int64_t>();
  }
  EXPECT_EQ(counted, 2);
  EXPECT_THAT(Check().out, HasSubstr("2 rows, 2 examples"));
}

TEST_F(CheckCommandTest, BadRowsAreToldAllAtOnceWithFileAndRow) {
  Write("rows.jsonl",
        Row("One?", "First.") + "{\"text\": 1}\n{]\n" + Row("Two?", ""));
  const Said said = Check("json");
  EXPECT_EQ(said.code, kExitInvalid);
  EXPECT_THAT(said.err, HasSubstr("rows.jsonl:2: row 2: messages"));
  EXPECT_THAT(said.err, HasSubstr("rows.jsonl:3:2: row 3: not valid JSON"));
  EXPECT_THAT(said.err, HasSubstr("rows.jsonl:4: row 4: messages[1]"));
  EXPECT_THAT(said.err, HasSubstr("3 errors."));
  EXPECT_EQ(json::parse(said.out)["train"]["bad_rows"].size(), 3u);

  Change("cutoff_len: 64", "on_bad_row: skip");
  const Said skipped = Check();
  EXPECT_EQ(skipped.code, kExitOk);
  EXPECT_THAT(skipped.out, HasSubstr("3 rows bad"));
  EXPECT_THAT(skipped.err, HasSubstr("skipped: rows.jsonl:2: row 2: messages"));
}

TEST_F(CheckCommandTest, RowsThatTeachNoEndAreCountedAndNamed) {
  // A template that marks the answer without its end token, but for "ok".
  FT_CHECK(
      WriteFileAtomic(
          JoinPath(model(), "chat_template.jinja"),
          "{% for m in messages %}{{ m.content }}{% if m.content == 'ok' %}"
          "{{ eos_token }}{% endif %}{% endfor %}")
          .ok());
  Write("rows.jsonl", Row("One?", "ok") + Row("Two?", "Second."));
  const Said said = Check();
  EXPECT_EQ(said.code, kExitOk) << said.err;
  EXPECT_THAT(said.out, HasSubstr("1 row without a learned end token"));
  EXPECT_THAT(said.err, HasSubstr("rows.jsonl:2: row 2: no token that ends"));
  EXPECT_THAT(json::parse(Check("json").out)["train"]["warnings"].size(), 1u);

  Write("rows.jsonl", Row("Two?", "Second."));
  ExpectRefused("no row teaches an end token");
}

TEST_F(CheckCommandTest, WhatIsEmptyOrTooLongIsNotAJob) {
  Write("rows.jsonl", "");
  ExpectRefused("the data hold no example");
  Write("rows.jsonl", "[]");
  ExpectRefused("the data hold no example");
  const std::string words =
      absl::StrReplaceAll(std::string(100, 'x'), {{"x", "word "}});
  Write("rows.jsonl", Row("One?", words));
  ExpectRefused("rows.jsonl:1: row 1: does not fit data.cutoff_len 64");
  Change("cutoff_len: 64", "cutoff_len: 64\n  over_cutoff: drop");
  ExpectRefused("the data hold no example");
}

TEST_F(CheckCommandTest, ValidationThatNobodyLooksAtIsTold) {
  Change("cutoff_len: 64", "validation: {share: 0.5}");
  const Said said = Check();
  EXPECT_EQ(said.code, kExitOk);
  EXPECT_THAT(said.err,
              HasSubstr("job.yaml:6: data.validation: is held out and never"));
  EXPECT_THAT(said.out,
              HasSubstr("1 of the 2 examples are held out for validation"));
  EXPECT_EQ(json::parse(Check("json").out)["held_out"], 1);
}

TEST_F(CheckCommandTest, ACutoffBeyondTheModelMattersOnlyToRowsSoLong) {
  ChangeModel("config.json", "\"max_position_embeddings\": 1024",
              "\"max_position_embeddings\": 40");
  EXPECT_THAT(Check().err, Not(HasSubstr("cutoff_len")));
  Write("rows.jsonl", Row("Count!",
                          "one two three four five six seven eight "
                          "nine ten eleven twelve"));
  const Said said = Check();
  EXPECT_EQ(said.code, kExitOk) << said.err;
  EXPECT_THAT(said.err, HasSubstr("warning: "));
  EXPECT_THAT(said.err, HasSubstr("job.yaml:6: data.cutoff_len: an example"));
}

TEST_F(CheckCommandTest, DataOfAnotherKindAreNotSupportedYet) {
  for (const char* name : {"rows.csv", "rows.PARQUET"}) {
    Write(name, "a,b\n1,2\n");
    Change("rows.jsonl", name);
    const Said said = Check();
    EXPECT_EQ(said.code, kExitInvalid);
    EXPECT_THAT(said.err, HasSubstr("job.yaml:5: data.train[0].path: "));
    EXPECT_THAT(said.err,
                HasSubstr("is not supported yet; convert it to JSON"));
    EXPECT_THAT(said.err, HasSubstr("1 error."));
  }
}

TEST_F(CheckCommandTest, AShareThatChoosesNoRowIsRefused) {
  Change("cutoff_len: 64",
         "validation: {share: 0.000001}\nevaluation: {every: {epochs: 1}}");
  ExpectRefused("data.validation.share: chooses no row");
}

TEST_F(CheckCommandTest, ATargetThatTheModelDoesNotHaveIsRefused) {
  Change("rank: 4", "targets: [q_proj, query]");
  ExpectRefused(
      "job.yaml:8: adaptation.lora.targets: no linear is named query; this "
      "model has");
}

TEST_F(CheckCommandTest, ATokenWithoutEmbeddingIsABadRow) {
  // A token that somebody added to the tokenizer, but not to the model.
  ChangeModel("tokenizer.json", R"("added_tokens": [)",
              R"("added_tokens": [{"id":99999,"content":"<mine>",)"
              R"("single_word":false,"lstrip":false,"rstrip":false,)"
              R"("normalized":false,"special":true},)");
  EXPECT_EQ(Check().code, kExitOk);
  Write("rows.jsonl", Row("One?", "a<mine>b"));
  ExpectRefused("row 1: token \"<mine>\"");
}

TEST_F(CheckCommandTest, DynamicRopeEndsAtTheModelsPositions) {
  ChangeModel("config.json", "\"rope_type\": \"default\"",
              "\"rope_type\": \"dynamic\", \"factor\": 2.0");
  EXPECT_EQ(Check().code, kExitOk);
  Change("cutoff_len: 64", "cutoff_len: 1000000");
  ExpectRefused("dynamic rope");
}

TEST_F(CheckCommandTest, BadModelFilesAreNamed) {
  const std::string weights = JoinPath(model(), "model.safetensors");
  const std::string bytes = ReadFile(weights, 1 << 24).value();
  FT_CHECK(WriteFileAtomic(weights, bytes.substr(0, bytes.size() - 8)).ok());
  ExpectRefused("model.safetensors: the tensors end at byte");
  FT_CHECK(RemoveFile(weights).ok());
  FT_CHECK(WriteFileAtomic(JoinPath(model(), "pytorch_model.bin"), "x").ok());
  ExpectRefused("never unpickled");
}

TEST_F(CheckCommandTest, OtherArchitecturesAreNamedWithWhatIsSupported) {
  ChangeModel("config.json", "\"llama\"", "\"qwen2\"");
  ExpectRefused("\"qwen2\" is not supported yet; supported: llama");
}

TEST_F(CheckCommandTest, AModelWithoutTokenizerIsRefused) {
  FT_CHECK(RemoveFile(JoinPath(model(), "tokenizer.json")).ok());
  ExpectRefused("tokenizer.json");
}

TEST_F(CheckCommandTest, TokensAreShownOneALine) {
  const Said said = Listen([&] {
    return RunShowTokensCommand({.job_file = dir_ / "job.yaml",
                                 .model_root = dir_ / "models",
                                 .rows = 2});
  });
  EXPECT_EQ(said.code, kExitOk) << said.err;
  EXPECT_THAT(said.out, ::testing::StartsWith("example\ttoken\tid\tlearned\n"));
  EXPECT_THAT(said.out, HasSubstr("\tyes\n"));
  EXPECT_THAT(said.out, HasSubstr("\n1\t"));
  EXPECT_EQ(std::count(said.out.begin(), said.out.end(), '\n') - 1,
            json::parse(Check("json").out)["train"]["tokens"].get<int64_t>());
}

}  // namespace
}  // namespace ft
