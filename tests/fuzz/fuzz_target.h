// SPDX-License-Identifier: Apache-2.0
//
// A fuzz target: one function that is given any bytes and must come back. What
// ends the process is a finding. The same function runs under libFuzzer
// (fuzz_main.cc) and over the kept corpus in every test run (corpus_test.cc).
//
//   FT_FUZZ_TARGET(job_yaml) { ParseJobFile(input, "job.yaml").IgnoreError(); }

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/check.h"

namespace ft::fuzz {

using Target = void (*)(absl::string_view input);

// Changes `data[0, size)` to something new of at most `max_size` bytes and
// returns its size, like LLVMFuzzerCustomMutator.
using Mutator = size_t (*)(uint8_t* data, size_t size, size_t max_size,
                           uint32_t seed);

struct TargetInfo {
  std::string name;
  Target run = nullptr;
  Mutator mutate = nullptr;  // Null: libFuzzer's own.
};

// The targets that are linked in, by name.
const std::vector<TargetInfo>& Targets();

struct Registration {
  Registration(const char* name, Target run, Mutator mutate = nullptr);
};

// A file in memory with these bytes, for readers that want a path. Good for one
// input: the next one takes its place.
std::string InputFile(absl::string_view bytes);

}  // namespace ft::fuzz

#define FT_FUZZ_TARGET(name) FT_FUZZ_TARGET_WITH(name, nullptr)
#define FT_FUZZ_TARGET_WITH(name, mutator)                                     \
  static void FuzzOne(absl::string_view input);                                \
  static const ::ft::fuzz::Registration registration(#name, FuzzOne, mutator); \
  static void FuzzOne([[maybe_unused]] absl::string_view input)
