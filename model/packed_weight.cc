// SPDX-License-Identifier: Apache-2.0

#include "model/packed_weight.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "common/status.h"
#include "model/spans.h"
#include "model/weights.h"

namespace ft {
namespace {

static_assert(kStoredNf4Block == kNf4Block);
static_assert(kStoredScaleBlock == kDynamicBlock);

std::span<uint8_t> BytesIn(const at::Tensor& tensor) {
  FT_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kByte);
  return {tensor.data_ptr<uint8_t>(), static_cast<size_t>(tensor.numel())};
}

at::Tensor EmptyBytes(int64_t count) {
  return at::empty({count}, at::TensorOptions().dtype(at::kByte));
}
at::Tensor EmptyFloats(int64_t count) {
  return at::empty({count}, at::TensorOptions().dtype(at::kFloat));
}

// Ours, shared by all weights.
std::shared_ptr<const DynamicCode> OurScaleCode() {
  static const auto* const code = new std::shared_ptr<const DynamicCode>(
      &DynamicCode::Signed(), [](const DynamicCode*) {});
  return *code;
}

// The part [begin, end) of what belongs to weights [first, last), as elements
// of a tensor that has one for every `block` weights.
struct Part {
  size_t begin = 0, count = 0;
};
Part PartOf(int64_t first, int64_t last, int64_t block) {
  return {
      .begin = static_cast<size_t>(first / block),
      .count = static_cast<size_t>((last + block - 1) / block - first / block)};
}

// Calls run(first, last) for the runs of `count` weights, on all threads.
template <typename Run>
void ForPackedRuns(int64_t count, const Run& run) {
  const int64_t runs = (count + kPackedRun - 1) / kPackedRun;
  ForRows(runs, kPackedRun, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      run(i * kPackedRun, std::min((i + 1) * kPackedRun, count));
    }
  });
}

}  // namespace

at::Tensor WeightScratch::Take(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  if (!flat_.defined() || flat_.numel() < count) flat_ = EmptyFloats(count);
  return flat_.narrow(0, 0, count).view(shape);
}

int64_t WeightScratch::size_bytes() const {
  return flat_.defined() ? static_cast<int64_t>(flat_.nbytes()) : 0;
}

int64_t PackedWeight::numel() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

int64_t PackedWeight::size_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor* tensor : {&codes_u8, &scales, &super_scales_f32}) {
    if (tensor->defined()) bytes += static_cast<int64_t>(tensor->nbytes());
  }
  return bytes;
}

StoredNf4 PackedWeight::AsStored(DType dtype) const {
  const auto bytes_of = [](const at::Tensor& tensor) {
    FT_CHECK(tensor.is_contiguous());
    return std::span(static_cast<const std::byte*>(tensor.data_ptr()),
                     tensor.nbytes());
  };
  StoredNf4 stored{.shape = shape,
                   .dtype = dtype,
                   .codes = bytes_of(codes_u8),
                   .values = values,
                   .double_quant = double_quant(),
                   .scales = bytes_of(scales)};
  if (double_quant()) {
    stored.super_scales = bytes_of(super_scales_f32);
    stored.scale_values = scale_code->map();
    stored.offset = offset;
  }
  return stored;
}

at::Tensor PackedWeight::Expand() const {
  at::Tensor weight = scratch->Take(shape);
  const std::span<const uint8_t> codes = BytesIn(codes_u8);
  const std::span<float> out = FloatsOf(weight);
  ForPackedRuns(numel(), [&](int64_t first, int64_t last) {
    const Part blocks = PartOf(first, last, kNf4Block);
    std::array<float, kDynamicBlock> own;
    std::span<const float> absmax;
    if (double_quant()) {
      const std::span<float> expanded = std::span(own).first(blocks.count);
      scale_code->DequantizeScales(
          std::span<const uint8_t>(BytesIn(scales))
              .subspan(blocks.begin, blocks.count),
          std::span<const float>(FloatsOf(super_scales_f32))
              .subspan(static_cast<size_t>(first / kPackedRun), 1),
          offset, expanded);
      absmax = expanded;
    } else {
      absmax = std::span<const float>(FloatsOf(scales))
                   .subspan(blocks.begin, blocks.count);
    }
    const Part bytes = PartOf(first, last, 2);
    Nf4Dequantize(codes.subspan(bytes.begin, bytes.count), absmax,
                  out.subspan(static_cast<size_t>(first),
                              static_cast<size_t>(last - first)),
                  values);
  });
  return weight;
}

absl::StatusOr<PackedWeight> QuantizeTensor(const TensorView& view,
                                            const Nf4Quantization& options) {
  PackedWeight packed{.shape = view.shape};
  std::copy(std::begin(kNf4Values), std::end(kNf4Values),
            packed.values.begin());
  const int64_t count = view.numel();
  packed.codes_u8 = EmptyBytes(Nf4Bytes(count));
  const at::Tensor absmax_f32 = EmptyFloats(Nf4Blocks(count));
  const std::span<uint8_t> codes = BytesIn(packed.codes_u8);
  const std::span<float> absmax = FloatsOf(absmax_f32);
  FT_RETURN_IF_ERROR(CheckIsFloating(view));

  std::atomic<bool> is_finite = true;
  ForPackedRuns(count, [&](int64_t first, int64_t last) {
    std::vector<float> piece(static_cast<size_t>(last - first));
    const size_t width = static_cast<size_t>(SizeOf(view.dtype));
    FT_CHECK(ToFloat(view.dtype,
                     view.bytes.subspan(static_cast<size_t>(first) * width,
                                        piece.size() * width),
                     piece)
                 .ok());
    if (!IsFinite(piece)) {
      is_finite = false;
      return;
    }
    const Part bytes = PartOf(first, last, 2);
    const Part blocks = PartOf(first, last, kNf4Block);
    Nf4Quantize(piece, codes.subspan(bytes.begin, bytes.count),
                absmax.subspan(blocks.begin, blocks.count));
  });
  if (!is_finite) return NotFinite(view.name);

  if (!options.double_quant) {
    packed.scales = absmax_f32;
    return packed;
  }
  packed.scale_code = OurScaleCode();
  packed.scales = EmptyBytes(absmax_f32.numel());
  packed.super_scales_f32 = EmptyFloats(DynamicBlocks(absmax_f32.numel()));
  packed.offset = packed.scale_code->QuantizeScales(
      absmax, BytesIn(packed.scales), FloatsOf(packed.super_scales_f32));
  return packed;
}

absl::StatusOr<PackedWeight> UnpackStored(const StoredNf4& stored) {
  PackedWeight packed{
      .shape = stored.shape, .offset = stored.offset, .values = stored.values};
  const auto copy = [](std::span<const std::byte> bytes, at::Tensor to) {
    FT_CHECK(bytes.size() == to.nbytes());
    if (!bytes.empty()) std::memcpy(to.data_ptr(), bytes.data(), bytes.size());
    return to;
  };
  const auto floats = [&](std::span<const std::byte> bytes) {
    return copy(
        bytes, EmptyFloats(static_cast<int64_t>(bytes.size() / sizeof(float))));
  };
  const auto codes = [&](std::span<const std::byte> bytes) {
    return copy(bytes, EmptyBytes(static_cast<int64_t>(bytes.size())));
  };
  packed.codes_u8 = codes(stored.codes);
  if (stored.double_quant) {
    packed.scales = codes(stored.scales);
    packed.super_scales_f32 = floats(stored.super_scales);
    packed.scale_code =
        stored.scale_values == DynamicCode::Signed().map()
            ? OurScaleCode()
            : std::make_shared<const DynamicCode>(stored.scale_values);
  } else {
    packed.scales = floats(stored.scales);
  }
  const at::Tensor& checked =
      stored.double_quant ? packed.super_scales_f32 : packed.scales;
  if (!IsFinite(FloatsOf(checked))) {
    return absl::InvalidArgumentError(
        "holds a scale that is not finite; quantise the model again");
  }
  return packed;
}

}  // namespace ft
