// SPDX-License-Identifier: Apache-2.0
//
// One target under libFuzzer. Besides what the sanitizers and libFuzzer's own
// limits find, an input that takes more than FT_FUZZ_CPU_SECONDS of processor
// time (1) is a finding: unlike -timeout this does not depend on what else the
// machine does.

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "tests/fuzz/fuzz_target.h"

// libFuzzer's.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace ft::fuzz {
namespace {

const TargetInfo& TheTarget() {
  FT_CHECK(Targets().size() == 1);
  return Targets()[0];
}

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) +
         static_cast<double>(now.tv_nsec) * 1e-9;
}

double CpuLimit() {
  const char* text = std::getenv("FT_FUZZ_CPU_SECONDS");
  return text == nullptr ? 1.0 : std::atof(text);
}

void RunOne(absl::string_view input) {
  static const double limit = CpuLimit();
  const double begin = CpuSeconds();
  TheTarget().run(input);
  const double took = CpuSeconds() - begin;
  if (took > limit) {
    std::fprintf(stderr, "ft::fuzz: %zu bytes took %.2f s; the limit is %g s\n",
                 input.size(), took, limit);
    std::abort();
  }
}

}  // namespace
}  // namespace ft::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ft::fuzz::RunOne({reinterpret_cast<const char*>(data), size});
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed) {
  const ft::fuzz::Mutator mutate = ft::fuzz::TheTarget().mutate;
  // Every fourth change is one that knows no structure.
  if (mutate == nullptr || seed % 4 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  return mutate(data, size, max_size, seed);
}
