// SPDX-License-Identifier: Apache-2.0

#include "jobspec/plan_file.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/bytes.h"
#include "common/file.h"
#include "common/status.h"
#include "jobspec/from_yaml.h"
#include "jobspec/job_text.h"

namespace ft {
namespace {

// Where the config.json is; a fault names the field.
absl::StatusOr<std::string> FindConfig(const PlanRequest& request,
                                       const std::string& base,
                                       const FieldPlaces& places) {
  if (!request.model.empty()) {
    if (IsDirectory(request.model)) {
      return JoinPath(request.model, "config.json");
    }
    if (Exists(request.model)) return request.model;
    return absl::NotFoundError(
        absl::StrCat("--model ", request.model,
                     ": there is no such file; name a config.json, or the "
                     "folder of one"));
  }
  for (const std::string& folder :
       {request.model_root, DirName(request.job_file)}) {
    const std::string path = JoinPath(folder, base);
    if (IsDirectory(path)) return JoinPath(path, "config.json");
  }
  return absl::InvalidArgumentError(places.Locate(absl::StrCat(
      "model.base: there is no model ", base, " under ", request.model_root,
      "; name its config.json with --model, or import it with ftctl model "
      "import")));
}

// Each line with the place of its field.
absl::Status Located(const absl::Status& status, const FieldPlaces& places) {
  if (!absl::IsInvalidArgument(status)) return status;
  std::string text;
  for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", places.Locate(line));
  }
  return absl::InvalidArgumentError(text);
}

int64_t MemoryOfThisMachine() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

}  // namespace

absl::StatusOr<JobPlan> PlanJobFile(const PlanRequest& request) {
  const std::string name = request.job_file == "-" ? "stdin" : request.job_file;
  FT_ASSIGN_OR_RETURN(const std::string text, ReadJobText(request.job_file));
  std::vector<std::string> not_yet;
  FT_ASSIGN_OR_RETURN(const v1::JobSpec spec,
                      ParseJobFileToPlan(text, name, not_yet));
  const FieldPlaces places(text, name);
  FT_ASSIGN_OR_RETURN(const std::string config,
                      FindConfig(request, spec.model().base(), places));
  const absl::StatusOr<ModelShape> model = ReadModelShape(config);
  if (absl::IsUnimplemented(model.status())) {
    return absl::InvalidArgumentError(model.status().message());
  }
  FT_RETURN_IF_ERROR(model.status());

  PlanOptions options = request.options;
  const bool is_of_this_machine = spec.resources().gpus().max() == 0 &&
                                  !options.device_memory.has_value() &&
                                  !options.host_memory.has_value() &&
                                  spec.resources().memory_per_rank().empty();
  if (is_of_this_machine) options.host_memory = MemoryOfThisMachine();
  absl::StatusOr<JobPlan> plan = PlanJob(spec, *model, options);
  FT_RETURN_IF_ERROR(Located(plan.status(), places));
  plan->not_yet = std::move(not_yet);
  if (is_of_this_machine) {
    plan->notes.push_back(
        "the host's memory is that of this machine; --host-memory SIZE "
        "compares with another's");
  }
  return plan;
}

std::string WrongSize(const std::string& text) {
  const absl::StatusOr<int64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) return std::string(bytes.status().message());
  return *bytes > 0 ? "" : absl::StrCat("\"", text, "\" must be above 0");
}

}  // namespace ft
