// SPDX-License-Identifier: Apache-2.0

#include "train/determinism.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <malloc.h>
#include <stdlib.h>
#include <torch/headeronly/version.h>

#include "absl/strings/str_cat.h"
#include "kernels/isa.h"

namespace ft {
namespace {

// An activation is megabytes; by default glibc gives each back to the kernel
// and faults it in again. 10 to 18 % of a step.
void KeepMemory() {
  constexpr int kLargest = 1 << 30;
  mallopt(M_MMAP_THRESHOLD, kLargest);
  mallopt(M_TRIM_THRESHOLD, kLargest);
  mallopt(M_TOP_PAD, 64 << 20);
}

}  // namespace

void BindDeterminism(const v1::Determinism& determinism) {
  KeepMemory();
  if (determinism.isa() == v1::ISA_CHOICE_AVX2) {
    SetKernelIsa(Isa::kAvx2);
    setenv("ATEN_CPU_CAPABILITY", "avx2", 1);
    setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2", 1);
    setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  }
  at::set_num_threads(determinism.threads());
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // Else every new tensor is filled with NaN first: 2 % of a step, and no help
  // where each element is written before it is read.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

std::map<std::string, std::string> Fingerprint() {
  return {{"isa", std::string(IsaName(KernelIsa()))},
          {"threads", absl::StrCat(at::get_num_threads())},
          {"torch", TORCH_VERSION}};
}

absl::Status CheckFingerprint(const std::map<std::string, std::string>& saved) {
  const auto current = Fingerprint();
  for (const auto& [key, value] : current) {
    const auto found = saved.find(key);
    const std::string was = found == saved.end() ? "unknown" : found->second;
    if (was == value) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "the checkpoint was made with ", key, " ", was, ", this rank has ",
        value, ": the result would differ in its last bits; run it where ", key,
        " is ", was, ", or begin anew"));
  }
  return absl::OkStatus();
}

}  // namespace ft
