// SPDX-License-Identifier: Apache-2.0
//
// The block types of GGUF -> fp32. Each operation is rounded to fp32, products
// as (d * sc) * q - dmin * m and no fused multiply-add, so that the bits are
// those of every other implementation (tests/golden/quant/gguf.safetensors).

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/strings/string_view.h"

namespace ft {

// The numbers are the file's.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct GgufTypeInfo {
  GgufType type;
  absl::string_view name;  // "Q4_1"
  int64_t block_elements;
  int64_t block_bytes;
};

// The types that we read, for messages.
inline constexpr absl::string_view kGgufTypeNames =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

// Nothing for a type that we do not read.
std::optional<GgufTypeInfo> FindGgufType(uint32_t type);
const GgufTypeInfo& InfoOf(GgufType type);

// The name of any type that llama.cpp knows, also of one we do not read;
// "unknown" else.
absl::string_view GgufTypeName(uint32_t type);

// Decodes whole blocks.
// REQUIRES: values.size() is a multiple of the block's elements, and `bytes`
// holds as many blocks.
void DecodeGgufBlocks(GgufType type, std::span<const std::byte> bytes,
                      std::span<float> values);

}  // namespace ft
