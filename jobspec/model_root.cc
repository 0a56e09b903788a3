// SPDX-License-Identifier: Apache-2.0

#include "jobspec/model_root.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/hf_directory.h"

namespace ft {

bool IsModelName(const std::string& name) {
  const auto is_good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && name.size() <= 63 && is_good(name[0]) &&
         std::all_of(name.begin(), name.end(), [&](char c) {
           return is_good(c) || c == '.' || c == '_' || c == '-';
         });
}

std::string ModelRoot::PathOf(const std::string& name) const {
  return JoinPath(root_, name);
}

std::vector<v1::ModelInfo> ModelRoot::List(std::vector<std::string>* problems) {
  std::vector<v1::ModelInfo> models;
  const absl::StatusOr<std::vector<std::string>> names = ListDir(root_);
  if (!names.ok()) return models;
  const auto describe = [&](const std::string& name,
                            v1::ModelInfo& info) -> absl::Status {
    const std::string dir = PathOf(name);
    FT_ASSIGN_OR_RETURN(const HfDirectory files, OpenHfDirectory(dir));
    FT_ASSIGN_OR_RETURN(
        *info.mutable_config_json(),
        ReadFile(JoinPath(dir, "config.json"), kMaxConfigBytes));
    FT_ASSIGN_OR_RETURN(const std::vector<std::string> file_names,
                        ModelFileNames(dir));
    std::vector<FileDigest> digests;
    for (const std::string& file : file_names) {
      const std::string path = JoinPath(dir, file);
      struct stat status;
      if (stat(path.c_str(), &status) != 0) continue;
      const Stamp stamp{status.st_size, status.st_mtim.tv_sec * 1'000'000'000 +
                                            status.st_mtim.tv_nsec};
      auto& [known, sha256] = digests_[path];
      if (!(known == stamp) || sha256.empty()) {
        FT_ASSIGN_OR_RETURN(sha256, Sha256OfFile(path));
        known = stamp;
      }
      digests.push_back({file, sha256});
      info.set_bytes(info.bytes() + stamp.bytes);
    }
    info.set_name(name);
    info.set_digest(ModelDigestOf(std::move(digests)));
    return absl::OkStatus();
  };
  for (const std::string& name : *names) {
    if (!IsModelName(name) || !IsDirectory(PathOf(name))) continue;
    v1::ModelInfo info;
    const absl::Status status = describe(name, info);
    if (status.ok()) {
      models.push_back(std::move(info));
    } else if (problems != nullptr) {
      problems->push_back(absl::StrCat("model ", name, ": ", status.message()));
    }
  }
  return models;
}

}  // namespace ft
