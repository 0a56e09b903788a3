// SPDX-License-Identifier: Apache-2.0

#include "jobspec/job_text.h"

#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "jobspec/yaml_reader.h"

namespace ft {

absl::StatusOr<std::string> ReadJobText(const std::string& path) {
  if (path == "-") {
    return std::string{std::istreambuf_iterator<char>(std::cin), {}};
  }
  if (IsDirectory(path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is a folder; name a job file"));
  }
  absl::StatusOr<std::string> text =
      ReadFile(path, static_cast<int64_t>(kMaxYamlBytes));
  if (absl::IsResourceExhausted(text.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.status().message(), "; that is no job file"));
  }
  return text;
}

}  // namespace ft
