// SPDX-License-Identifier: Apache-2.0
//
// ft-train check and show-tokens: what a job's data and model files hold,
// before any weight is read.

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status.h"
#include "formats/hf_directory.h"
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

  void Add(const absl::Status& status) {
    for (const absl::string_view line :
         absl::StrSplit(status.message(), '\n')) {
      errors.emplace_back(line);
    }
  }
};

void CheckData(const RankJob& job, const ModelText& text, Findings& found) {
  absl::StatusOr<Dataset> train =
      InspectDataset(TrainDataOptions(job), text, found.errors);
  if (!train.ok()) return found.Add(train.status());
  found.train = train->report;
  found.total_steps =
      TotalSteps(job.spec, static_cast<int64_t>(train->train.size()));
  if (job.spec.data().validation().has_path()) {
    absl::StatusOr<Dataset> validation =
        InspectDataset(ValidationDataOptions(job), text, found.errors);
    if (!validation.ok()) return found.Add(validation.status());
    found.validation = validation->report;
    found.has_validation = true;
  } else if (job.spec.has_evaluation() && train->validation.empty()) {
    found.errors.push_back(
        "data.validation.share: chooses no row of so few; raise it");
  }
}

Findings Check(const RankJob& job) {
  Findings found;
  const absl::StatusOr<HfDirectory> model = OpenHfDirectory(job.model_dir);
  if (!model.ok()) {
    found.Add(model.status());
  } else {
    found.parameters = model->spec.NumParameters();
    found.warnings = model->warnings;
    if (job.spec.data().cutoff_len() > model->spec.max_position) {
      found.warnings.push_back(
          absl::StrCat("data.cutoff_len ", job.spec.data().cutoff_len(),
                       " is more than the model's ", model->spec.max_position,
                       " positions"));
    }
  }
  const absl::StatusOr<ModelText> text =
      LoadModelText(job.model_dir, TemplateName(job.spec));
  if (!text.ok()) {
    found.Add(text.status());
  } else {
    CheckData(job, *text, found);
  }
  return found;
}

nlohmann::ordered_json ReportJson(const DatasetReport& report) {
  nlohmann::ordered_json bad = nlohmann::ordered_json::array();
  for (const BadRow& row : report.bad_rows) bad.push_back(row.ToString());
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
          {"longest", report.longest},
          {"bad_rows", bad}};
}

void PrintReport(const char* name, const DatasetReport& report) {
  std::printf(
      "%-11s %ld rows, %ld examples, %ld tokens (%ld learned), lengths %ld / "
      "%ld / %ld\n",
      name, static_cast<long>(report.rows), static_cast<long>(report.examples),
      static_cast<long>(report.tokens), static_cast<long>(report.targets),
      static_cast<long>(report.shortest), static_cast<long>(report.median),
      static_cast<long>(report.longest));
  const std::pair<const char*, int64_t> notes[] = {
      {"cut to cutoff_len", report.truncated},
      {"dropped over cutoff_len", report.dropped},
      {"bad and skipped", report.skipped},
      {"duplicates", report.duplicates},
      {"without a learned token", report.without_target},
      {"without a learned end token", report.without_end_token}};
  for (const auto& [what, count] : notes) {
    if (count > 0) {
      std::printf("%-11s %ld rows %s\n", "", static_cast<long>(count), what);
    }
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
    found = Check(*job);
  }
  if (command.output == "json") {
    nlohmann::ordered_json out = {
        {"ok", found.errors.empty()},     {"errors", found.errors},
        {"warnings", found.warnings},     {"total_steps", found.total_steps},
        {"parameters", found.parameters}, {"train", ReportJson(found.train)}};
    if (found.has_validation) out["validation"] = ReportJson(found.validation);
    std::printf("%s\n",
                out.dump(1, ' ', false,
                         nlohmann::ordered_json::error_handler_t::replace)
                    .c_str());
  } else if (job.ok() && !command.quiet) {
    PrintReport("train", found.train);
    if (found.has_validation) PrintReport("validation", found.validation);
    std::printf("%-11s %ld\n", "steps", static_cast<long>(found.total_steps));
  }
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
    FT_ASSIGN_OR_RETURN(const Dataset dataset,
                        LoadDataset(TrainDataOptions(job), text));
    std::printf("example\ttoken\tid\tlearned\n");
    for (int64_t i = 0;
         i < std::min<int64_t>(command.rows,
                               static_cast<int64_t>(dataset.train.size()));
         ++i) {
      const TokenizedExample& example = dataset.train[i];
      for (size_t t = 0; t < example.ids.size(); ++t) {
        FT_ASSIGN_OR_RETURN(const std::string token,
                            text.tokenizer.TokenOf(example.ids[t]));
        std::printf("%ld\t%s\t%d\t%s\n", static_cast<long>(i), token.c_str(),
                    example.ids[t], example.learned[t] ? "yes" : "no");
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
