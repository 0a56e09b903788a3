// SPDX-License-Identifier: Apache-2.0
//
// The words of `ftctl plan` and `ft-train plan`: the same options, registered
// once.

#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "common/bytes.h"
#include "jobspec/plan_file.h"

namespace ft {

struct PlanWords {
  std::string job_file;
  std::string model;
  std::string device_memory;  // "48GiB"; empty: not given.
  std::string host_memory;
  std::optional<int> ranks;
  std::optional<int64_t> longest;
  std::optional<double> tokens_per_second;
};

// Registers them with a CLI::App; `words` must outlive its parse.
template <typename App>
void AddPlanOptions(App& command, PlanWords& words) {
  words = PlanWords();  // A test parses more than once.
  const auto size = [](const std::string& text) { return WrongSize(text); };
  const auto above_zero = [](const std::string& text) {
    double value = 0;
    return absl::SimpleAtod(text, &value) && value > 0 && std::isfinite(value)
               ? std::string()
               : std::string("must be a number above 0");
  };
  const auto ranks = [](const std::string& text) {
    int value = 0;
    return absl::SimpleAtoi(text, &value) && value >= 1 && value <= 4096
               ? std::string()
               : std::string("must be a whole number from 1 to 4096");
  };
  command.add_option("job", words.job_file, "Job file, or - for stdin")
      ->required();
  command.add_option("--model", words.model,
                     "A config.json, or the folder of one; default: the "
                     "job's model.base");
  command
      .add_option("--device-memory", words.device_memory,
                  "Memory of one device, such as 48GiB; a job of CPU ranks is "
                  "planned for devices then")
      ->check(size, "");
  command
      .add_option("--host-memory", words.host_memory,
                  "Memory of the machine that all ranks run on, such as "
                  "64GiB; default for CPU ranks: this machine's")
      ->check(size, "");
  command
      .add_option("--ranks", words.ranks,
                  "Ranks, a device each; default: the job file's")
      ->check(ranks, "");
  command
      .add_option("--longest", words.longest,
                  "Tokens of the longest example, as check tells; default: "
                  "data.cutoff_len")
      ->check(above_zero, "");
  command
      .add_option("--tokens-per-second", words.tokens_per_second,
                  "Measured on all ranks together: gives the time of a step")
      ->check(above_zero, "");
}

// REQUIRES: the words passed the checks above.
inline PlanRequest ToRequest(const PlanWords& words,
                             const std::string& model_root) {
  PlanRequest request{.job_file = words.job_file,
                      .model = words.model,
                      .model_root = model_root};
  if (const auto bytes = ParseBytes(words.device_memory); bytes.ok()) {
    request.options.device_memory = *bytes;
  }
  if (const auto bytes = ParseBytes(words.host_memory); bytes.ok()) {
    request.options.host_memory = *bytes;
  }
  request.options.ranks = words.ranks;
  request.options.longest = words.longest;
  request.options.tokens_per_second = words.tokens_per_second;
  return request;
}

}  // namespace ft
