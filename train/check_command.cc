// SPDX-License-Identifier: Apache-2.0
//
// ft-train check and show-tokens: what a job's data and model files hold,
// before any weight is read.

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "common/status.h"
#include "data/token_rows.h"
#include "formats/hf_directory.h"
#include "jobspec/from_yaml.h"
#include "jobspec/yaml_reader.h"
#include "train/commands.h"
#include "train/local_job.h"

namespace ft {
namespace {

// A file in another format is wrong in every line.
constexpr size_t kShownErrors = 50;

struct Findings {
  std::vector<std::string> errors;
  std::vector<std::string> warnings;
  DatasetReport train;
  DatasetReport validation;
  bool has_validation = false;
  int64_t total_steps = 0;
  int64_t parameters = 0;
  // Of the training files, by data.validation.share.
  int64_t held_out = 0;

  void Add(const absl::Status& status) {
    for (const absl::string_view line :
         absl::StrSplit(status.message(), '\n')) {
      errors.emplace_back(line);
    }
  }
};

// `vocab_size` 0: unknown.
void CheckData(const RankJob& job, const ModelText& text, int64_t vocab_size,
               const FieldPlaces& places, Findings& found) {
  absl::StatusOr<Dataset> train =
      InspectDataset(TrainDataOptions(job, vocab_size), text, found.errors);
  if (!train.ok()) return found.Add(train.status());
  found.train = train->report;
  found.held_out = static_cast<int64_t>(train->validation.size());
  found.total_steps =
      TotalSteps(job.spec, static_cast<int64_t>(train->train.size()));
  if (job.spec.data().validation().has_path()) {
    absl::StatusOr<Dataset> validation = InspectDataset(
        ValidationDataOptions(job, vocab_size), text, found.errors);
    if (!validation.ok()) return found.Add(validation.status());
    found.validation = validation->report;
    found.has_validation = true;
  } else if (job.spec.has_evaluation() && train->validation.empty()) {
    found.errors.push_back(places.Locate(
        "data.validation.share: chooses no row of so few; raise it"));
  }
}

Findings Check(const RankJob& job, const FieldPlaces& places) {
  Findings found;
  int64_t vocab_size = 0;
  const absl::StatusOr<HfDirectory> model = OpenHfDirectory(job.model_dir);
  if (!model.ok()) {
    found.Add(model.status());
  } else {
    vocab_size = model->spec.vocab_size;
    for (const std::string& fault : FaultsWithModel(job.spec, model->spec)) {
      found.errors.push_back(places.Locate(fault));
    }
    found.parameters = model->spec.NumParameters();
    found.warnings = model->warnings;
  }
  if (job.spec.data().has_validation() && !job.spec.has_evaluation()) {
    found.warnings.push_back(places.Locate(
        "data.validation: is held out and never looked at; write evaluation: "
        "{every: {epochs: 1}}"));
  }
  const absl::StatusOr<ModelText> text =
      LoadModelText(job.model_dir, TemplateName(job.spec));
  if (!text.ok()) {
    found.Add(text.status());
  } else {
    CheckData(job, *text, vocab_size, places, found);
  }
  const int64_t longest =
      std::max(found.train.longest, found.validation.longest);
  if (model.ok() && longest > model->spec.max_position) {
    found.warnings.push_back(places.Locate(
        absl::StrCat("data.cutoff_len: an example has ", longest,
                     " tokens, the model was made for ",
                     model->spec.max_position, "; lower it to cut them")));
  }
  return found;
}

nlohmann::ordered_json RowsJson(const std::vector<BadRow>& rows) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const BadRow& row : rows) json.push_back(row.ToString());
  return json;
}

nlohmann::ordered_json ReportJson(const DatasetReport& report) {
  return {{"rows", report.rows},
          {"examples", report.examples},
          {"tokens", report.tokens},
          {"targets", report.targets},
          {"truncated", report.truncated},
          {"dropped", report.dropped},
          {"skipped", report.skipped},
          {"duplicates", report.duplicates},
          {"without_target", report.without_target},
          {"without_end_token", report.without_end_token},
          {"shortest", report.shortest},
          {"median", report.median},
          {"p90", report.p90},
          {"p99", report.p99},
          {"longest", report.longest},
          // [greatest length, examples]: up to 32, 64, 128 and so on.
          {"length_histogram", report.length_histogram},
          {"bad_rows", RowsJson(report.bad_rows)},
          {"warnings", RowsJson(report.warnings)}};
}

void PrintReport(const char* name, const DatasetReport& report) {
  std::printf(
      "%-11s %ld rows, %ld examples, %ld tokens (%ld learned)\n"
      "%-11s lengths: %ld to %ld, half up to %ld, 90 %% up to %ld\n",
      name, static_cast<long>(report.rows), static_cast<long>(report.examples),
      static_cast<long>(report.tokens), static_cast<long>(report.targets), "",
      static_cast<long>(report.shortest), static_cast<long>(report.longest),
      static_cast<long>(report.median), static_cast<long>(report.p90));
  const std::pair<const char*, int64_t> notes[] = {
      {"cut to cutoff_len", report.truncated},
      {"dropped over cutoff_len", report.dropped},
      {"bad", static_cast<int64_t>(report.bad_rows.size())},
      {"duplicates", report.duplicates},
      {"without a learned token, left out", report.without_target},
      {"without a learned end token", report.without_end_token}};
  for (const auto& [what, count] : notes) {
    if (count > 0) {
      std::printf("%-11s %ld row%s %s\n", "", static_cast<long>(count),
                  count == 1 ? "" : "s", what);
    }
  }
}

// A token that the user added may hold what ends a line or a column.
std::string OnOneLine(const std::string& token) {
  return absl::StrReplaceAll(token,
                             {{"\n", "\\n"}, {"\r", "\\r"}, {"\t", "\\t"}});
}

// Rows that are no error: what is skipped, and what teaches nothing or no end.
void PrintWarnings(const DatasetReport& report) {
  constexpr size_t kMostTold = 20;
  const size_t skipped = static_cast<size_t>(report.skipped);
  for (size_t i = 0; i < std::min(skipped, kMostTold); ++i) {
    std::fprintf(stderr, "skipped: %s\n",
                 report.bad_rows[i].ToString().c_str());
  }
  if (skipped > kMostTold) {
    std::fprintf(stderr, "skipped: %zu more\n", skipped - kMostTold);
  }
  for (const BadRow& row : report.warnings) {
    std::fprintf(stderr, "warning: %s\n", row.ToString().c_str());
  }
}

}  // namespace

int RunCheckCommand(const CheckCommand& command) {
  const absl::StatusOr<RankJob> job =
      LoadLocalJob(command.job_file, command.model_root);
  Findings found;
  if (!job.ok()) {
    found.Add(job.status());
  } else {
    const absl::StatusOr<std::string> text =
        ReadFile(command.job_file, static_cast<int64_t>(kMaxYamlBytes));
    found = Check(*job, FieldPlaces(text.value_or(""), command.job_file));
  }
  if (command.output == "json") {
    nlohmann::ordered_json out = {
        {"ok", found.errors.empty()},     {"errors", found.errors},
        {"warnings", found.warnings},     {"total_steps", found.total_steps},
        {"parameters", found.parameters}, {"train", ReportJson(found.train)},
        {"held_out", found.held_out}};
    if (found.has_validation) out["validation"] = ReportJson(found.validation);
    std::printf("%s\n",
                out.dump(1, ' ', false,
                         nlohmann::ordered_json::error_handler_t::replace)
                    .c_str());
  } else if (job.ok() && !command.quiet) {
    PrintReport("train", found.train);
    if (found.held_out > 0) {
      std::printf("%-11s %ld of the %ld examples are held out for validation\n",
                  "", static_cast<long>(found.held_out),
                  static_cast<long>(found.train.examples));
    }
    if (found.has_validation) PrintReport("validation", found.validation);
    std::printf("%-11s %ld\n", "steps", static_cast<long>(found.total_steps));
  }
  PrintWarnings(found.train);
  PrintWarnings(found.validation);
  for (const std::string& warning : found.warnings) {
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
  const size_t shown = std::min(found.errors.size(), kShownErrors);
  for (size_t i = 0; i < shown; ++i) {
    std::fprintf(stderr, "%s\n", found.errors[i].c_str());
  }
  if (shown < found.errors.size()) {
    std::fprintf(stderr, "... and %zu more; ft-train check -o json has all\n",
                 found.errors.size() - shown);
  }
  if (found.errors.empty()) return kExitOk;
  std::fprintf(stderr, "%zu error%s.\n", found.errors.size(),
               found.errors.size() == 1 ? "" : "s");
  return kExitInvalid;
}

int RunShowTokensCommand(const ShowTokensCommand& command) {
  const auto show = [&]() -> absl::Status {
    FT_ASSIGN_OR_RETURN(const RankJob job,
                        LoadLocalJob(command.job_file, command.model_root));
    FT_ASSIGN_OR_RETURN(const ModelText text,
                        LoadModelText(job.model_dir, TemplateName(job.spec)));
    FT_ASSIGN_OR_RETURN(
        const Dataset dataset,
        LoadDataset(TrainDataOptions(job, /*vocab_size=*/0), text));
    std::printf("example\ttoken\tid\tlearned\n");
    const auto count = std::min<size_t>(std::max<int64_t>(0, command.rows),
                                        dataset.train.size());
    for (size_t i = 0; i < count; ++i) {
      FT_ASSIGN_OR_RETURN(const std::vector<TokenRow> rows,
                          TokenRows(dataset.train[i], text.tokenizer));
      for (const TokenRow& row : rows) {
        std::printf("%zu\t%s\t%ld\t%s\n", i, OnOneLine(row.token).c_str(),
                    static_cast<long>(row.id), row.learned ? "yes" : "no");
      }
    }
    return absl::OkStatus();
  };
  const absl::Status status = show();
  if (status.ok()) return kExitOk;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return kExitInvalid;
}

}  // namespace ft
