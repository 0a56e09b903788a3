// SPDX-License-Identifier: Apache-2.0
//
// One safetensors file. Every byte of every accepted tensor is touched.

#include "formats/safetensors.h"

#include <numeric>

#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

FT_FUZZ_TARGET(safetensors) {
  const absl::StatusOr<SafetensorsFile> file =
      SafetensorsFile::Open(fuzz::InputFile(input));
  if (!file.ok()) {
    FT_CHECK(absl::IsInvalidArgument(file.status()));
    return;
  }
  int64_t bytes = 0;
  unsigned sum = 0;
  for (const TensorView& tensor : file->tensors()) {
    FT_CHECK(tensor.size_bytes() == static_cast<int64_t>(tensor.bytes.size()));
    FT_CHECK(file->Find(tensor.name) == &tensor);
    bytes += tensor.size_bytes();
    for (const std::byte byte : tensor.bytes) {
      sum += static_cast<unsigned>(byte);
    }
    std::vector<float> values(tensor.numel());
    ToFloat(tensor.dtype, tensor.bytes, values)
        .IgnoreError();  // Integers are refused.
  }
  FT_CHECK(bytes < static_cast<int64_t>(input.size()));
  FT_CHECK(sum <= 255u * static_cast<unsigned>(bytes));
}

}  // namespace
}  // namespace ft
