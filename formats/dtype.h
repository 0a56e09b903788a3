// SPDX-License-Identifier: Apache-2.0
//
// Element types of tensors in files, as safetensors names them, and their exact
// conversion to fp32.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

// In the order in which safetensors writes tensors, the last one first.
enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
};

// Bytes of one element.
int64_t SizeOf(DType dtype);

// "F32", "BF16", "I64" and so on.
absl::string_view NameOf(DType dtype);

// Nothing if `name` is none of ours.
std::optional<DType> DTypeFromName(absl::string_view name);

// The exact value of an IEEE half; NaN stays NaN.
float HalfToFloat(uint16_t bits);

// The exact value of a bfloat16.
inline float Bfloat16ToFloat(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

// Rounded to the nearest, ties to even; what is too large becomes infinite.
uint16_t FloatToHalf(float value);
uint16_t FloatToBfloat16(float value);

// Converts F64 (rounded to nearest), F32, F16 or BF16 elements to fp32. `bytes`
// need not be aligned.
// INVALID_ARGUMENT: another type.
// REQUIRES: bytes.size() == values.size() * SizeOf(dtype)
absl::Status ToFloat(DType dtype, std::span<const std::byte> bytes,
                     std::span<float> values);

}  // namespace ft
