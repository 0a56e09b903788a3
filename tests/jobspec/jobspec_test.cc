// SPDX-License-Identifier: Apache-2.0
//
// Job files: what is right is completed, what is wrong is told all at once with
// file, line, field and remedy, and nothing is ever ignored.

#include <google/protobuf/util/message_differencer.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/file.h"
#include "jobspec/defaults.h"
#include "jobspec/from_yaml.h"
#include "jobspec/suggest.h"
#include "jobspec/to_yaml.h"
#include "jobspec/validate.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::Fails;
using ::testing::HasSubstr;

constexpr char kGood[] = R"(schema: ft.v1
name: hotel-bot
model: {base: smollm2-135m}
data:
  train:
    - {path: data/train.json, format: sharegpt}
stage: sft
adaptation: lora
resources: {ranks: 2}
)";

std::string Errors(const std::string& text) {
  const auto spec = ParseJobFile(text, "job.yaml");
  return spec.ok() ? "" : std::string(spec.status().message());
}

// kGood with more lines.
std::string ErrorsWith(const std::string& lines) {
  return Errors(std::string(kGood) + lines);
}

TEST(JobFileTest, DefaultsAndAutoAreFixed) {
  FT_ASSERT_OK_AND_ASSIGN(const v1::JobSpec spec,
                          ParseJobFile(kGood, "job.yaml"));
  EXPECT_EQ(spec.priority(), 50);
  EXPECT_EQ(spec.adaptation().lora().rank(), 16);
  EXPECT_EQ(spec.adaptation().lora().alpha(), 32);
  EXPECT_EQ(spec.determinism().lanes(), 2);
  EXPECT_EQ(spec.determinism().threads(), 1);
  EXPECT_EQ(spec.batch().sequences(), 16);
  EXPECT_EQ(spec.batch().micro(), 4);  // min(16 / 2, 8192 / 2048)
  EXPECT_EQ(spec.parallelism().zero_stage(), 1);
  EXPECT_EQ(spec.schedule().epochs(), 3);
  EXPECT_EQ(spec.checkpointing().every().minutes(), 10);
  EXPECT_FALSE(spec.has_evaluation());
  v1::JobSpec again = spec;
  ApplyDefaults(again);
  EXPECT_TRUE(MessageDifferencer::Equals(again, spec));
}

TEST(JobFileTest, StageThreeComputesBlocksAgain) {
  const std::string stage = "parallelism: {zero_stage: 3}\n";
  FT_ASSERT_OK_AND_ASSIGN(const v1::JobSpec spec,
                          ParseJobFile(kGood + stage, "job.yaml"));
  EXPECT_EQ(spec.model().recompute(), v1::RECOMPUTE_BLOCK);

  std::string text = kGood + stage;
  text.replace(text.find("smollm2-135m"), 12, "smollm2-135m, recompute: none");
  EXPECT_THAT(Errors(text),
              HasSubstr("job.yaml:3: model.recompute: none does not go with "
                        "parallelism.zero_stage 3"));
}

TEST(JobFileTest, AFrozenModelNeedsBlocksThatLearn) {
  std::string text = kGood;
  text.replace(text.find("adaptation: lora"), 16,
               "adaptation: {freeze: {last_blocks: 0}}");
  EXPECT_THAT(Errors(text), HasSubstr("adaptation.freeze.last_blocks: "));
  text.replace(text.find("last_blocks: 0"), 14, "last_blocks: -2");
  EXPECT_EQ(Errors(text), "");
}

TEST(JobFileTest, EveryExampleIsRightAndReadsBackFromItsCanonicalForm) {
  for (const char* name :
       {"identity.yaml", "tiny_chat.yaml", "tiny_full.yaml"}) {
    FT_ASSERT_OK_AND_ASSIGN(
        const std::string text,
        ReadFile(std::string(FT_TEST_SOURCE_DIR "/examples/") + name, 1 << 20));
    FT_ASSERT_OK_AND_ASSIGN(const v1::JobSpec spec, ParseJobFile(text, name));
    FT_ASSERT_OK_AND_ASSIGN(const v1::JobSpec back,
                            ParseJobFile(SpecToYaml(spec), "canonical"));
    EXPECT_TRUE(MessageDifferencer::Equals(back, spec)) << SpecToYaml(spec);
  }
}

TEST(JobFileTest, AllViolationsAreToldAtOnceWithFileAndLine) {
  const std::string errors = Errors(R"(schema: ft.v1
name: Hotel Bot
model: {base: smollm2-135m}
data:
  train:
    - {path: data/train.json, format: sharegtp}
  packng: true
stage: sft
adaptation:
  lora: {rank: 5000}
resources: {ranks: 2}
)");
  EXPECT_EQ(
      errors,
      "job.yaml:2: name: \"Hotel Bot\" is no name; use a-z, 0-9 and -, at "
      "most 63 characters\n"
      "job.yaml:6: data.train[0].format: \"sharegtp\" is unknown; did you "
      "mean \"sharegpt\"?\n"
      "job.yaml:7: data.packng: unknown field; did you mean \"packing\"?\n"
      "job.yaml:10: adaptation.lora.rank: 5000 is not in [1, 1024]");
}

TEST(JobFileTest, FilesThatAreNotThereAreToldWithTheOtherViolations) {
  const testing::TestDir dir;
  EXPECT_THAT(WriteFileAtomic(dir / "here.json", "[]"), testing::IsOk());
  const absl::StatusOr<v1::JobSpec> spec =
      ParseJobFile(R"(schema: ft.v1
name: Hotel Bot
model: {base: m}
data:
  train:
    - {path: here.json, format: alpaca}
    - {path: gone.json, format: alpaca}
  validation: {path: ., format: alpaca}
stage: sft
adaptation: lora
resources: {ranks: 2}
)",
                   "job.yaml", JobFilePlace{dir.path()});
  EXPECT_EQ(spec.status().message(),
            absl::StrCat("job.yaml:2: name: \"Hotel Bot\" is no name; use "
                         "a-z, 0-9 and -, at most 63 characters\n"
                         "job.yaml:7: data.train[1].path: there is no file ",
                         dir / "gone.json",
                         "; paths are relative to the job file\n"
                         "job.yaml:8: data.validation.path: ",
                         dir / ".", " is a folder; name a file"));
}

TEST(JobFileTest, QuantisedWeightsAreABaseAndDoNotLearn) {
  FT_ASSERT_OK_AND_ASSIGN(
      const v1::JobSpec spec,
      ParseJobFile(absl::StrCat(kGood, "quantization: {weights: nf4}\n"),
                   "job.yaml"));
  EXPECT_EQ(spec.quantization().weights(), v1::QUANTIZED_WEIGHTS_NF4);
  EXPECT_TRUE(spec.quantization().double_quant());
  for (const char* method : {"full", "{freeze: {last_blocks: 1}}"}) {
    EXPECT_THAT(
        Errors(absl::StrReplaceAll(
            absl::StrCat(kGood, "quantization: {weights: nf4}\n"),
            {{"adaptation: lora", absl::StrCat("adaptation: ", method)}})),
        HasSubstr("quantization: quantised weights cannot learn; write "
                  "adaptation: lora, or leave quantization out"));
  }
}

TEST(FieldPlacesTest, WhatIsFoundLaterHasItsLineToo) {
  const FieldPlaces places(
      "schema: ft.v1\nadaptation:\n  lora:\n    targets: [q_proj]\n", "a.yaml");
  EXPECT_EQ(places.Locate("adaptation.lora.targets: no linear: x"),
            "a.yaml:4: adaptation.lora.targets: no linear: x");
  // One that is not there has that of the nearest around it.
  EXPECT_EQ(places.Locate("adaptation.lora.rank: is odd"),
            "a.yaml:4: adaptation.lora.rank: is odd");
  EXPECT_EQ(places.Locate("data: is missing"), "a.yaml: data: is missing");
}

TEST(JobFileTest, AFormatThatOthersReadIsNotSupportedYet) {
  for (const char* format : {"csv", "parquet"}) {
    EXPECT_THAT(
        ParseJobFile(absl::StrCat("schema: ft.v1\ndata:\n  train:\n    - "
                                  "{path: rows.json, format: ",
                                  format, "}\n"),
                     "a.yaml"),
        testing::Fails(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("a.yaml:4: data.train[0].format: \"",
                                    format, "\" is not supported yet; ")));
  }
}

TEST(JobFileTest, WhatIsMissingIsToldWithAnExample) {
  const std::string errors = Errors("schema: ft.v1\n");
  for (const char* want :
       {"name: is missing; write for example name: hotel-bot",
        "model.base: is missing", "data.train: is missing",
        "stage: is missing; write for example stage: sft",
        "adaptation: is missing", "resources.ranks: is missing"}) {
    EXPECT_THAT(errors, HasSubstr(want));
  }
}

struct BadCase {
  const char* lines;
  const char* error;
};

class BadLinesTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadLinesTest, IsRefusedWithItsPlaceAndRemedy) {
  EXPECT_THAT(ErrorsWith(GetParam().lines), HasSubstr(GetParam().error))
      << GetParam().lines;
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadLinesTest,
    ::testing::Values(
        BadCase{"priority: high\n",
                "job.yaml:10: priority: \"high\" is no "
                "whole number"},
        BadCase{"priority: 101\n", "priority: 101 is not in [0, 100]"},
        BadCase{"prioritee: 5\n",
                "prioritee: unknown field; did you mean "
                "\"priority\"?"},
        BadCase{"preemptible: yes\n", "neither true nor false"},
        BadCase{"preemptible: true\n", "preemptible: is not supported yet"},
        BadCase{"time_limit: 5 hours\n", "write for example 90s, 30m, 12h"},
        BadCase{"time_limit: 5h\n", "time_limit: is not supported yet"},
        BadCase{"queue: fast\n", "queue: is not supported yet"},
        BadCase{"precision: bf16\n",
                "precision: is not supported yet; write "
                "fp32"},
        BadCase{"precision: fp8\n", "precision: \"fp8\" is unknown"},
        BadCase{"optimizer: lion\n", "optimizer: is not supported yet"},
        BadCase{"optimizer: adam\n", "did you mean \"adamw\"?"},
        BadCase{"optimizer: {adamw: {beta1: 1}}\n",
                "beta1: 1 is not in [0, 1)"},
        BadCase{"quantization: {weights: int8}\n",
                "quantization.weights: is not supported yet; write nf4"},
        BadCase{"quantization: {weights: fp4}\n",
                "quantization.weights: \"fp4\" is unknown"},
        BadCase{"quantization: {double_quant: false}\n",
                "quantization.weights: is missing; write for example"},
        BadCase{"quantization: {weights: nf4, double_quant: 2}\n",
                "quantization.double_quant"},
        BadCase{"schedule: {epochs: 2, steps: 5}\n",
                "schedule.steps: excludes epochs"},
        BadCase{"schedule: {epochs: -1}\n", "schedule.epochs: -1 is not in"},
        BadCase{"schedule: {learning_rate: .inf}\n", "is no number"},
        // The message has no place for a 0 that was written.
        BadCase{"schedule: {learning_rate: 0}\n",
                "schedule.learning_rate: must be above 0; leave it out"},
        BadCase{"batch: {sequences: 0}\n", "batch.sequences: must be above 0"},
        BadCase{"determinism: {threads: 0}\n", "threads: must be above 0"},
        BadCase{"batch: [1]\n", "a list where a mapping of"},
        BadCase{"batch: {sequences: 1.5}\n", "is no whole number"},
        BadCase{"batch: {sequences: 99999999999999}\n", "is far out of range"},
        BadCase{"priority: -99999999999999999999999\n", "far out of range"},
        BadCase{"schedule: {steps: 9999999999999999999999}\n", "out of range"},
        BadCase{"batch: {sequences: 0x10}\n", "is no whole number"},
        // A text is no number, whatever it holds.
        BadCase{"priority: \"50\"\n",
                "priority: \"50\" is a text; write it without quotes"},
        BadCase{"schedule: {learning_rate: '1e-3'}\n", "is a text"},
        BadCase{"preemptible: \"true\"\n", "is a text"},
        BadCase{"parallelism: {zero_stage: 4}\n", "4 is not in [0, 3]"},
        BadCase{"parallelism: {zero_stage: -1}\n", "-1 is not in [0, 3]"},
        BadCase{"parallelism: {zero_stage: 0}\noptimizer: adamw_8bit\n",
                "parallelism.zero_stage: 0 does not go with adamw_8bit"},
        BadCase{"optimizer: {adamw_8bit: {beta1: 1}}\n",
                "optimizer.adamw_8bit.beta1: 1 is not in [0, 1)"},
        BadCase{"determinism: {lanes: 3}\n", "3 is no multiple of 2 ranks"},
        BadCase{"determinism: {strict: false}\n", "is not supported yet"},
        BadCase{"evaluation: {every: {epochs: 1}}\n",
                "evaluation: needs data.validation"},
        BadCase{"checkpointing: {every: {epochs: 1}}\n",
                "write steps or minutes"},
        BadCase{"checkpointing: {snapshot_every_steps: -1}\n",
                "checkpointing.snapshot_every_steps: -1 is not in [1, "},
        BadCase{"export: {gguf: Q8_0}\n", "export.gguf: is not supported yet"},
        BadCase{"numeric: {on_nan: rewind}\n", "write stop"},
        BadCase{"secrets: [a]\n", "secrets: is not supported yet"},
        BadCase{"name: again\n", "job.yaml:10: name: stands here twice"},
        BadCase{"batch: {micro: 1, micro: 2}\n",
                "job.yaml:10: batch.micro: stands here twice"},
        BadCase{"notify: [{webhook: a}, {webhook: b, webhook: c}]\n",
                "notify[1].webhook: stands here twice"},
        BadCase{"batch:\n\tsequences: 4\n",
                "job.yaml:11: not valid YAML: illegal map value; a tab stands "
                "here, YAML wants spaces"},
        // Quoted back, it does nothing to the reader's terminal.
        BadCase{"queue: \"\\e[31m\\n\"\n", "queue: is not supported yet"},
        BadCase{"optimizer: \"\\e[31m\"\n", "optimizer: \"\\x1b[31m\""},
        BadCase{"labels: &a {x: 1}\n", "anchors are not allowed"},
        BadCase{"labels: *a\n", "job.yaml:10"},
        BadCase{"labels: !!python/object x\n", "tags are not allowed"},
        BadCase{"<<: {a: 1}\n", "merge keys are not allowed"},
        BadCase{"batch: {sequences: [1\n", "not valid YAML"},
        BadCase{"---\nname: b\n", "more than one document"},
        BadCase{"---\n&a x\n", "more than one document"}));

TEST(YamlReaderTest, WhatIsNoPlainTextIsRefusedWithItsLine) {
  // The byte 4 is yaml-cpp's own end of file: what follows was never read.
  EXPECT_THAT(ErrorsWith("\x04\nprioritee: 5\n"),
              HasSubstr("job.yaml:10: holds the control character 4"));
  EXPECT_THAT(ErrorsWith(std::string("\0", 1)),
              HasSubstr("job.yaml:10: holds the control character 0"));
  for (const char* bad :
       {"\xE9", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82"}) {
    EXPECT_EQ(ErrorsWith(absl::StrCat("labels: {a: \"", bad, "\"}\n")),
              "job.yaml:10: is no UTF-8 text; save the file as UTF-8");
  }
  EXPECT_THAT(Errors(std::string("\xFF\xFEs\0c\0", 6)),
              HasSubstr("job.yaml:1: is no UTF-8 text"));
}

TEST(YamlReaderTest, EveryUtf8TextIsRead) {
  for (const char* good : {"\xC3\xA9", "\xE6\x97\xA5\xE6\x9C\xAC",
                           "\xF0\x9F\x8E\x88", "\xEF\xBF\xBD"}) {
    std::string text = kGood;
    text.replace(text.find("data:\n"), 6,
                 absl::StrCat("data:\n  variables: {name: ", good, "}\n"));
    FT_ASSERT_OK_AND_ASSIGN(const v1::JobSpec spec,
                            ParseJobFile(text, "job.yaml"));
    EXPECT_EQ(spec.data().variables().at("name"), good);
  }
  FT_EXPECT_OK(ParseJobFile(absl::StrCat("\xEF\xBB\xBF", kGood), "job.yaml"));
}

TEST(JobFileTest, TheCanonicalFormKeepsEveryText) {
  for (const std::string text : {"it's \"quoted\" \\ so: #", "a\nb\tc\x1B\x7F",
                                 "é日🎈", "true", "1.5", " ", "@x", "- a"}) {
    FT_ASSERT_OK_AND_ASSIGN(v1::JobSpec spec, ParseJobFile(kGood, "job.yaml"));
    (*spec.mutable_data()->mutable_variables())["name"] = text;
    FT_ASSERT_OK_AND_ASSIGN(const v1::JobSpec back,
                            ParseJobFile(SpecToYaml(spec), "canonical"));
    EXPECT_EQ(back.data().variables().at("name"), text) << SpecToYaml(spec);
  }
}

TEST(JobFileTest, AModelThatIsNotThereIsToldWithTheNearest) {
  const testing::TestDir dir;
  FT_ASSERT_OK(MakeDirs(dir / "models/smollm2-135m"));
  FT_ASSERT_OK(MakeDirs(dir / "data"));
  FT_ASSERT_OK(WriteFileAtomic(dir / "data/train.json", "[]"));
  const JobFilePlace place{dir.path(), dir / "models"};
  FT_EXPECT_OK(ParseJobFile(kGood, "job.yaml", place));
  std::string text = kGood;
  text.replace(text.find("smollm2-135m"), 12, "smollm-135m");
  EXPECT_EQ(ParseJobFile(text, "job.yaml", place).status().message(),
            absl::StrCat("job.yaml:3: model.base: there is no model "
                         "smollm-135m under ",
                         dir / "models",
                         "; import it with ftctl model import; did you mean "
                         "\"smollm2-135m\"?"));
  // Without a model root nobody looks.
  FT_EXPECT_OK(ParseJobFile(text, "job.yaml", JobFilePlace{dir.path()}));
}

// A line of kGood replaced (empty: one more line), and the field that is
// refused because its feature does not exist yet.
struct FutureCase {
  const char* from;
  const char* to;
  const char* field;
};

class FutureTest : public ::testing::TestWithParam<FutureCase> {};

TEST_P(FutureTest, AFeatureThatIsNotThereIsRefusedAndNotIgnored) {
  std::string text = kGood;
  const std::string from = GetParam().from;
  const std::string to = std::string(GetParam().to) + "\n";
  if (from.empty()) {
    text += to;
  } else {
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, text.find('\n', at) + 1 - at, to);
  }
  EXPECT_THAT(Errors(text), HasSubstr(absl::StrCat(GetParam().field, ": ")));
  EXPECT_THAT(Errors(text), HasSubstr("not supported yet"));
}

constexpr char kModel[] = "model:";
constexpr char kData[] = "  train:";
constexpr char kTrain[] = "    - {path";
constexpr char kStage[] = "stage:";
constexpr char kMethod[] = "adaptation:";
constexpr char kRanks[] = "resources:";

INSTANTIATE_TEST_SUITE_P(
    Table, FutureTest,
    ::testing::Values(
        FutureCase{kModel, "model: {base: artifact:a}", "model.base"},
        FutureCase{kModel, "model: {base: job:a}", "model.base"},
        FutureCase{kModel, "model: {base: a, adapter: b}", "model.adapter"},
        FutureCase{kModel, "model: {base: a, recompute: auto}",
                   "model.recompute"},
        FutureCase{kData,
                   "  over_cutoff: proportional\n  train:", "data.over_cutoff"},
        FutureCase{kTrain, "    - {path: a, format: text}",
                   "data.train[0].format"},
        FutureCase{kTrain, "    - {path: artifact:a, format: alpaca}",
                   "data.train[0].path"},
        FutureCase{kTrain, "    - {path: a, format: alpaca, weight: 0.5}",
                   "data.train[0].weight"},
        FutureCase{kStage, "stage: pretrain", "stage"},
        FutureCase{kStage, "stage: {dpo: {beta: 0.1}}", "stage"},
        FutureCase{kStage, "stage: kto", "stage"},
        FutureCase{kMethod, "adaptation: bottleneck", "adaptation"},
        FutureCase{kMethod, "adaptation: {lora: {variant: dora}}",
                   "adaptation.lora.variant"},
        FutureCase{kRanks, "resources: {gpus: 2}", "resources.gpus"},
        FutureCase{kRanks, "resources: {ranks: {min: 1, max: 2}}",
                   "resources.ranks"},
        FutureCase{kRanks, "resources: {ranks: 2, gpu_kind: [h200]}",
                   "resources.gpu_kind"},
        FutureCase{kRanks, "resources: {ranks: 2, memory_per_rank: 2GiB}",
                   "resources.memory_per_rank"},
        FutureCase{kRanks, "resources: {ranks: 2, topology: {within: rack}}",
                   "resources.topology"},
        FutureCase{kRanks, "resources: {ranks: 2, selector: {zone: a}}",
                   "resources.selector"},
        FutureCase{"", "after: [job-7q3k0v2m9xwz]", "after"},
        FutureCase{"", "optimizer: sgd", "optimizer"},
        FutureCase{"", "precision: fp16", "precision"},
        FutureCase{"", "parallelism: {offload: optimizer}",
                   "parallelism.offload"},
        FutureCase{"", "determinism: {replay_every: 5}",
                   "determinism.replay_every"},
        FutureCase{"", "checkpointing: {keep: {best: {metric: a, n: 1}}}",
                   "checkpointing.keep.best"},
        FutureCase{"", "checkpointing: {keep: {ttl: 30d}}",
                   "checkpointing.keep.ttl"},
        FutureCase{"", "checkpointing: {resume_from: job-a@3}",
                   "checkpointing.resume_from"},
        FutureCase{"", "evaluation: {every: {epochs: 1}, metrics: [rouge_l]}",
                   "evaluation.metrics"},
        FutureCase{"", "evaluation: {every: {epochs: 1}, stop_after_worse: 3}",
                   "evaluation.stop_after_worse"},
        FutureCase{"", "export: {merged: true}", "export.merged"},
        FutureCase{"", "export: {adapter: false}", "export.adapter"},
        FutureCase{"", "numeric: {on_spike: rewind}", "numeric.on_spike"},
        FutureCase{"", "numeric: {max_skips: 9}", "numeric.max_skips"},
        FutureCase{"", "retry: {on_oom: shrink}", "retry.on_oom"},
        FutureCase{"", "notify: [{webhook: ops, on: [FAILED]}]", "notify"}));

TEST(ValidateTest, NumbersThatAreNotFiniteAreRefusedThoughYamlCannotHoldThem) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()}) {
    FT_ASSERT_OK_AND_ASSIGN(v1::JobSpec spec, ParseJobFile(kGood, "job.yaml"));
    spec.mutable_adaptation()->mutable_lora()->set_alpha(bad);
    spec.mutable_optimizer()->mutable_adamw()->set_eps(bad);
    spec.mutable_optimizer()->mutable_adamw()->set_weight_decay(bad);
    spec.mutable_schedule()->set_learning_rate(bad);
    spec.mutable_batch()->set_max_grad_norm(bad);
    Violations violations;
    ValidateSpec(spec, SpecOrigin::kJobFile, violations);
    EXPECT_EQ(violations.list().size(), 5u) << violations.Text("");
  }
}

TEST(JobFileTest, BareWordsRangesAndNullsAreRead) {
  FT_ASSERT_OK_AND_ASSIGN(
      const v1::JobSpec spec,
      ParseJobFile(std::string(kGood) +
                       "export: {name: a, gguf: null}\n"
                       "optimizer: adamw\nbatch: {micro: auto}\n",
                   "job.yaml"));
  EXPECT_TRUE(spec.optimizer().has_adamw());
  EXPECT_EQ(spec.resources().ranks().min(), 2);
  EXPECT_EQ(spec.export_().gguf(), "");
}

TEST(JobFileTest, AnyTextIsWrittenSoThatItIsReadAgain) {
  v1::JobSpec spec = ParseJobFile(kGood, "job.yaml").value();
  for (const char* text :
       {"it's", "\"a\" \\ b", "two\nlines\t", "NULL", "True", "~", "#", "1e3",
        "\u00e4\u4f60", "- a: {b", "\x01\x7f", ""}) {
    (*spec.mutable_data()->mutable_variables())["text"] = text;
    const auto again = ParseJobFile(SpecToYaml(spec), "again.yaml");
    FT_ASSERT_OK(again);
    EXPECT_EQ(again->data().variables().at("text"), text);
  }
}

TEST(JobFileTest, AFileOfUnknownFieldsIsRefusedAtOnce) {
  std::string text = kGood;
  for (int i = 0; i < 9000; ++i) {
    absl::StrAppend(&text, "x", i, "y: 1\n");
  }
  EXPECT_THAT(Errors(text), HasSubstr("x8999y: unknown field"));
}

TEST(JobFileTest, WhatTheSystemSetsCannotBeWritten) {
  std::string text = kGood;
  text.replace(text.find("{base: smollm2-135m}"), 20, "{base: a, digest: b}");
  EXPECT_THAT(Errors(text), HasSubstr("model.digest: unknown field"));
}

TEST(YamlReaderTest, BombsEndEarly) {
  std::string deep = "a: ";
  deep += std::string(100, '[') + std::string(100, ']');
  EXPECT_THAT(Errors(deep), HasSubstr("nested deeper than 32"));
  std::string wide = "a: [";
  for (int i = 0; i < 20'000; ++i) wide += "1,";
  EXPECT_THAT(Errors(wide + "1]"), HasSubstr("more than 10000 values"));
  EXPECT_THAT(Errors(std::string(300'000, 'a')), HasSubstr("at most 262144"));
  EXPECT_THAT(Errors("a: &x [1,2]\nb: [*x,*x,*x]\n"),
              HasSubstr("anchors are not allowed"));
}

TEST(ValidateTest, ASubmittedSpecNeedsTheDigestsOfItsData) {
  FT_ASSERT_OK_AND_ASSIGN(v1::JobSpec spec, ParseJobFile(kGood, "job.yaml"));
  Violations violations;
  ValidateSpec(spec, SpecOrigin::kSubmitted, violations);
  ASSERT_EQ(violations.list().size(), 1u);
  EXPECT_EQ(violations.list()[0].field, "data.train[0].sha256");
  spec.mutable_data()->mutable_train(0)->set_sha256(std::string(64, 'a'));
  Violations none;
  ValidateSpec(spec, SpecOrigin::kSubmitted, none);
  EXPECT_TRUE(none.empty()) << none.Text("");
}

TEST(SuggestTest, OnlyNearWordsAreMeant) {
  const std::vector<std::string> words = {"packing", "train_on"};
  EXPECT_EQ(Nearest("packng", words), "packing");
  EXPECT_EQ(Nearest("train-on", words), "train_on");
  EXPECT_EQ(Nearest("zzz", words), "");
}

}  // namespace
}  // namespace ft
