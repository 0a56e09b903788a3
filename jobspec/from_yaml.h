// SPDX-License-Identifier: Apache-2.0
//
// A YAML tree to a JobSpec, by the fields of the message: keys are field names,
// a bare word names a oneof member without options, N stands for {min: N,
// max: N}, enums are lower-case words, durations are 90s, 30m, 12h or 7d.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ft/v1/job_spec.pb.h"
#include "jobspec/violations.h"
#include "jobspec/yaml_reader.h"

namespace ft {

// Fills `spec`; `lines` becomes the line of every field that was given.
void SpecFromYaml(const YamlNode& root, v1::JobSpec& spec,
                  std::map<std::string, int>& lines, Violations& violations);

// What the paths and names of a job file lead to on this machine.
struct JobFilePlace {
  std::string folder;                     // Of the job file.
  std::optional<std::string> model_root;  // Unset: models are elsewhere.
};

// Reads, checks and completes a job file: what submit sends. With `place`, its
// data files must be there and, with a model root, its model.
// INVALID_ARGUMENT: the message has one line a violation, all of them.
absl::StatusOr<v1::JobSpec> ParseJobFile(
    absl::string_view text, absl::string_view file_name,
    const std::optional<JobFilePlace>& place = std::nullopt);

// Reads and checks a job file that need not run: what this version cannot do
// yet is no error but a line of `not_yet`. The spec is as written, without its
// defaults; its data files and its model are not looked for.
// INVALID_ARGUMENT: as above, for what is wrong.
absl::StatusOr<v1::JobSpec> ParseJobFileToPlan(
    absl::string_view text, absl::string_view file_name,
    std::vector<std::string>& not_yet);

// Where the fields of a job file stand, for what is found wrong with them after
// it was parsed.
class FieldPlaces {
 public:
  FieldPlaces(absl::string_view text, absl::string_view file_name);

  // "job.yaml:14: adaptation.lora.targets: ..." of "adaptation.lora.targets:
  // ...".
  std::string Locate(absl::string_view fault) const;

 private:
  const std::string file_name_;
  std::map<std::string, int> lines_;
};

}  // namespace ft
