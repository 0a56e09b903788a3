// SPDX-License-Identifier: Apache-2.0

#include "formats/dtype.h"

#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace ft {
namespace {

struct DTypeRow {
  DType dtype;
  absl::string_view name;
  int64_t size;
};

constexpr DTypeRow kDTypes[] = {
    {DType::kBool, "BOOL", 1},      {DType::kU8, "U8", 1},
    {DType::kI8, "I8", 1},          {DType::kF8E5M2, "F8_E5M2", 1},
    {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kI16, "I16", 2},
    {DType::kU16, "U16", 2},        {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2},      {DType::kI32, "I32", 4},
    {DType::kU32, "U32", 4},        {DType::kF32, "F32", 4},
    {DType::kF64, "F64", 8},        {DType::kI64, "I64", 8},
    {DType::kU64, "U64", 8},
};

const DTypeRow& RowOf(DType dtype) {
  const DTypeRow& row = kDTypes[static_cast<size_t>(dtype)];
  FT_CHECK(row.dtype == dtype);
  return row;
}

template <typename Element, typename Convert>
void ConvertEach(std::span<const std::byte> bytes, std::span<float> values,
                 Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    Element element;
    std::memcpy(&element, bytes.data() + i * sizeof(Element), sizeof(Element));
    values[i] = convert(element);
  }
}

}  // namespace

int64_t SizeOf(DType dtype) { return RowOf(dtype).size; }

absl::string_view NameOf(DType dtype) { return RowOf(dtype).name; }

std::optional<DType> DTypeFromName(absl::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t fraction = bits & 0x3ff;
  if (exponent == 0) {
    // A subnormal half is a multiple of 2^-24, which fp32 holds exactly.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide_exponent << 23 | fraction << 13);
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more
  if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves the multiple of 2^-24 in the low bits,
    // rounded by the addition itself.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted));
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return sign |
         static_cast<uint16_t>((magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays NaN.
  }
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

absl::Status ToFloat(DType dtype, std::span<const std::byte> bytes,
                     std::span<float> values) {
  FT_CHECK(bytes.size() == values.size() * SizeOf(dtype));
  switch (dtype) {
    case DType::kF32:
      if (!bytes.empty()) {
        std::memcpy(values.data(), bytes.data(), bytes.size());
      }
      return absl::OkStatus();
    case DType::kF16:
      ConvertEach<uint16_t>(bytes, values, HalfToFloat);
      return absl::OkStatus();
    case DType::kBF16:
      ConvertEach<uint16_t>(bytes, values, Bfloat16ToFloat);
      return absl::OkStatus();
    case DType::kF64:
      ConvertEach<double>(bytes, values,
                          [](double x) { return static_cast<float>(x); });
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          NameOf(dtype), " elements; wanted F32, F16, BF16 or F64"));
  }
}

}  // namespace ft
