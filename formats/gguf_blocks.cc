// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf_blocks.h"

#include <cstring>

#include "common/check.h"
#include "formats/dtype.h"

namespace ft {
namespace {

constexpr int64_t kSmallBlock = 32;   // Q4_0 to Q8_0
constexpr int64_t kSuperBlock = 256;  // The K types

constexpr GgufTypeInfo kTypes[] = {
    {GgufType::kF32, "F32", 1, 4},
    {GgufType::kF16, "F16", 1, 2},
    {GgufType::kQ4_0, "Q4_0", kSmallBlock, 18},
    {GgufType::kQ4_1, "Q4_1", kSmallBlock, 20},
    {GgufType::kQ5_0, "Q5_0", kSmallBlock, 22},
    {GgufType::kQ5_1, "Q5_1", kSmallBlock, 24},
    {GgufType::kQ8_0, "Q8_0", kSmallBlock, 34},
    {GgufType::kQ4_K, "Q4_K", kSuperBlock, 144},
    {GgufType::kQ5_K, "Q5_K", kSuperBlock, 176},
    {GgufType::kQ6_K, "Q6_K", kSuperBlock, 210},
    {GgufType::kBF16, "BF16", 1, 2},
};

// llama.cpp's names by number; the empty ones were never used or are gone.
constexpr absl::string_view kNames[] = {
    "F32",        "F16",        "Q4_0",       "Q4_1",     "Q4_2",    "Q4_3",
    "Q5_0",       "Q5_1",       "Q8_0",       "Q8_1",     "Q2_K",    "Q3_K",
    "Q4_K",       "Q5_K",       "Q6_K",       "Q8_K",     "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S",    "IQ2_S",   "IQ4_XS",
    "I8",         "I16",        "I32",        "I64",      "F64",     "IQ1_M",
    "BF16",       "Q4_0_4_4",   "Q4_0_4_8",   "Q4_0_8_8", "TQ1_0",   "TQ2_0",
    "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",
};

float HalfAt(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return HalfToFloat(bits);
}

uint32_t Word32At(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

// Each decodes one block; the layouts are in formats/README.md.

void DecodeQ4_0(const uint8_t* block, float* y) {
  const float d = HalfAt(block);
  const uint8_t* qs = block + 2;
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((qs[j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((qs[j] >> 4) - 8) * d;
  }
}

void DecodeQ4_1(const uint8_t* block, float* y) {
  const float d = HalfAt(block);
  const float m = HalfAt(block + 2);
  const uint8_t* qs = block + 4;
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(qs[j] & 15) * d + m;
    y[j + 16] = static_cast<float>(qs[j] >> 4) * d + m;
  }
}

void DecodeQ5_0(const uint8_t* block, float* y) {
  const float d = HalfAt(block);
  const uint32_t high = Word32At(block + 2);  // Bit k: fifth bit of y[k].
  const uint8_t* qs = block + 6;
  for (int j = 0; j < 16; ++j) {
    const int low_bit = (high >> j & 1) << 4;
    const int high_bit = (high >> (j + 16) & 1) << 4;
    y[j] = static_cast<float>(((qs[j] & 15) | low_bit) - 16) * d;
    y[j + 16] = static_cast<float>(((qs[j] >> 4) | high_bit) - 16) * d;
  }
}

void DecodeQ5_1(const uint8_t* block, float* y) {
  const float d = HalfAt(block);
  const float m = HalfAt(block + 2);
  const uint32_t high = Word32At(block + 4);
  const uint8_t* qs = block + 8;
  for (int j = 0; j < 16; ++j) {
    const int low_bit = (high >> j & 1) << 4;
    const int high_bit = (high >> (j + 16) & 1) << 4;
    y[j] = static_cast<float>((qs[j] & 15) | low_bit) * d + m;
    y[j + 16] = static_cast<float>((qs[j] >> 4) | high_bit) * d + m;
  }
}

void DecodeQ8_0(const uint8_t* block, float* y) {
  const float d = HalfAt(block);
  for (int j = 0; j < 32; ++j) {
    y[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
  }
}

// The six-bit scales and minima of the eight sub-blocks of Q4_K and Q5_K.
struct PackedScale {
  float scale;
  float min;
};
PackedScale ScaleOf(const uint8_t* b, int j) {
  if (j < 4) {
    return {static_cast<float>(b[j] & 63), static_cast<float>(b[j + 4] & 63)};
  }
  return {static_cast<float>((b[j + 4] & 15) | (b[j - 4] >> 6) << 4),
          static_cast<float>((b[j + 4] >> 4) | (b[j] >> 6) << 4)};
}

// Q4_K and Q5_K differ in where a fifth bit comes from; `high` is null for
// Q4_K.
void DecodeWithMinima(const uint8_t* block, const uint8_t* high,
                      const uint8_t* qs, float* y) {
  const float d = HalfAt(block);
  const float dmin = HalfAt(block + 2);
  for (int s = 0; s < 8; ++s) {
    const PackedScale packed = ScaleOf(block + 4, s);
    const float scale = d * packed.scale;
    const float min = dmin * packed.min;
    const uint8_t* bytes = qs + 32 * (s / 2);
    for (int l = 0; l < 32; ++l) {
      int q = s % 2 == 0 ? bytes[l] & 15 : bytes[l] >> 4;
      if (high != nullptr) q |= (high[l] >> s & 1) << 4;
      y[32 * s + l] = scale * static_cast<float>(q) - min;
    }
  }
}

void DecodeQ4_K(const uint8_t* block, float* y) {
  DecodeWithMinima(block, nullptr, block + 16, y);
}

void DecodeQ5_K(const uint8_t* block, float* y) {
  DecodeWithMinima(block, block + 16, block + 48, y);
}

void DecodeQ6_K(const uint8_t* block, float* y) {
  const float d = HalfAt(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = block + 64 * half;
    const uint8_t* qh = block + 128 + 32 * half;
    const uint8_t* sc = block + 192 + 8 * half;
    for (int k = 0; k < 4; ++k) {
      for (int l = 0; l < 32; ++l) {
        const uint8_t byte = ql[l + 32 * (k % 2)];
        const int low = k < 2 ? byte & 15 : byte >> 4;
        const int q = (low | (qh[l] >> (2 * k) & 3) << 4) - 32;
        const float scale =
            d * static_cast<float>(static_cast<int8_t>(sc[2 * k + l / 16]));
        y[128 * half + 32 * k + l] = scale * static_cast<float>(q);
      }
    }
  }
}

using DecodeBlock = void (*)(const uint8_t* block, float* y);

DecodeBlock DecoderOf(GgufType type) {
  switch (type) {
    case GgufType::kQ4_0:
      return DecodeQ4_0;
    case GgufType::kQ4_1:
      return DecodeQ4_1;
    case GgufType::kQ5_0:
      return DecodeQ5_0;
    case GgufType::kQ5_1:
      return DecodeQ5_1;
    case GgufType::kQ8_0:
      return DecodeQ8_0;
    case GgufType::kQ4_K:
      return DecodeQ4_K;
    case GgufType::kQ5_K:
      return DecodeQ5_K;
    case GgufType::kQ6_K:
      return DecodeQ6_K;
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kBF16:
      break;
  }
  return nullptr;
}

}  // namespace

std::optional<GgufTypeInfo> FindGgufType(uint32_t type) {
  for (const GgufTypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.type) == type) return info;
  }
  return std::nullopt;
}

const GgufTypeInfo& InfoOf(GgufType type) {
  for (const GgufTypeInfo& info : kTypes) {
    if (info.type == type) return info;
  }
  FT_CHECK(false);
}

absl::string_view GgufTypeName(uint32_t type) {
  return type < std::size(kNames) ? kNames[type] : "unknown";
}

void DecodeGgufBlocks(GgufType type, std::span<const std::byte> bytes,
                      std::span<float> values) {
  const GgufTypeInfo& info = InfoOf(type);
  const size_t blocks = values.size() / info.block_elements;
  FT_CHECK(values.size() % info.block_elements == 0);
  FT_CHECK(bytes.size() == blocks * info.block_bytes);
  const DecodeBlock decode = DecoderOf(type);
  if (decode == nullptr) {
    const DType dtype = type == GgufType::kF32   ? DType::kF32
                        : type == GgufType::kF16 ? DType::kF16
                                                 : DType::kBF16;
    FT_CHECK(ToFloat(dtype, bytes, values).ok());
    return;
  }
  const uint8_t* block = reinterpret_cast<const uint8_t*>(bytes.data());
  for (size_t i = 0; i < blocks; ++i) {
    decode(block, values.data() + i * info.block_elements);
    block += info.block_bytes;
  }
}

}  // namespace ft
