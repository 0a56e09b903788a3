// SPDX-License-Identifier: Apache-2.0

#include "train/local_job.h"

#include <cstdlib>

#include "common/file.h"
#include "common/status.h"
#include "jobspec/from_yaml.h"
#include "jobspec/yaml_reader.h"

namespace ft {

std::string DefaultModelRoot() {
  if (const char* root = std::getenv("FT_MODEL_ROOT")) return root;
  if (const char* data = std::getenv("XDG_DATA_HOME");
      data != nullptr && *data == '/') {
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
  const std::string folder = DirName(job_file);
  FT_ASSIGN_OR_RETURN(
      job.spec, ParseJobFile(text, job_file, JobFilePlace{folder, model_root}));
  for (const v1::Dataset& dataset : job.spec.data().train()) {
    job.train_files.push_back(JoinPath(folder, dataset.path()));
  }
  if (job.spec.data().validation().has_path()) {
    job.validation_file = JoinPath(folder, job.spec.data().validation().path());
  }
  const std::string& base = job.spec.model().base();
  const std::string named = JoinPath(model_root, base);
  job.model_dir = IsDirectory(named) ? named : JoinPath(folder, base);
  return job;
}

}  // namespace ft
