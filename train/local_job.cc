// SPDX-License-Identifier: Apache-2.0

#include "train/local_job.h"

#include <cstdlib>

#include "absl/strings/str_join.h"
#include "common/file.h"
#include "common/status.h"
#include "jobspec/from_yaml.h"
#include "jobspec/yaml_reader.h"

namespace ft {

std::string DefaultModelRoot() {
  if (const char* root = std::getenv("FT_MODEL_ROOT")) return root;
  if (const char* data = std::getenv("XDG_DATA_HOME")) {
    return JoinPath(data, "ft/models");
  }
  const char* home = std::getenv("HOME");
  return JoinPath(home == nullptr ? "." : home, ".local/share/ft/models");
}

absl::StatusOr<RankJob> LoadLocalJob(const std::string& job_file,
                                     const std::string& model_root) {
  FT_ASSIGN_OR_RETURN(
      const std::string text,
      ReadFile(job_file, static_cast<int64_t>(kMaxYamlBytes) + 1));
  RankJob job{.job_id = "local", .epoch = 1};
  FT_ASSIGN_OR_RETURN(
      job.spec, ParseJobFile(text, BaseName(job_file), DirName(job_file)));

  std::vector<std::string> missing;
  const std::string folder = DirName(job_file);
  const auto resolve = [&](const std::string& path) {
    const std::string resolved = JoinPath(folder, path);
    if (!Exists(resolved)) missing.push_back(resolved);
    return resolved;
  };
  for (const v1::Dataset& dataset : job.spec.data().train()) {
    job.train_files.push_back(resolve(dataset.path()));
  }
  if (job.spec.data().validation().has_path()) {
    job.validation_file = resolve(job.spec.data().validation().path());
  }
  const std::string& base = job.spec.model().base();
  const std::string named = JoinPath(model_root, base);
  job.model_dir = IsDirectory(named) ? named : JoinPath(folder, base);
  if (!IsDirectory(job.model_dir)) {
    missing.push_back(absl::StrCat("model ", base, " (neither ", named, " nor ",
                                   job.model_dir, " is a folder)"));
  }
  if (!missing.empty()) {
    return absl::NotFoundError(
        absl::StrCat("not found: ", absl::StrJoin(missing, "; ")));
  }
  return job;
}

}  // namespace ft
