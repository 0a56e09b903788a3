// SPDX-License-Identifier: Apache-2.0

#include "sharding/moments.h"

#include <algorithm>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "common/status.h"
#include "kernels/adamw_8bit.h"
#include "kernels/dynamic_code.h"

namespace ft {
namespace {

static_assert(kShardAlign % kDynamicBlock == 0, "no block is cut");

bool Is8Bit(MomentFormat format, int64_t numel) {
  return format == MomentFormat::k8Bit && numel >= kLeast8BitElements;
}

// Bytes that may be written if the elements may.
template <typename Element>
auto AsBytes(std::span<Element> values) {
  if constexpr (std::is_const_v<Element>) {
    return std::as_bytes(values);
  } else {
    return std::as_writable_bytes(values);
  }
}

int64_t CountOf(const MomentKind& kind, int64_t elements) {
  return (elements + kind.block - 1) / kind.block;
}

}  // namespace

std::vector<MomentKind> MomentKinds(MomentFormat format, int64_t numel) {
  if (!Is8Bit(format, numel)) return {{kExpAvg}, {kExpAvgSq}};
  return {{kExpAvgQ8},
          {kExpAvgAbsmax, kDynamicBlock},
          {kExpAvgSqQ8},
          {kExpAvgSqAbsmax, kDynamicBlock}};
}

Moments::Moments(const Partition& partition, int64_t bucket, Interval part,
                 MomentFormat format)
    : partition_(partition), format_(format) {
  int64_t small = 0;
  for (size_t i = 0; i < partition.fragments().size(); ++i) {
    const Fragment& fragment = partition.fragments()[i];
    if (fragment.bucket != bucket) continue;
    Place& place = places_[i];
    place.is_8_bit = Is8Bit(format, fragment.numel);
    place.zero = fragment.start - part.begin;
    if (format == MomentFormat::kFp32) continue;
    FT_CHECK(fragment.start % kDynamicBlock == 0);
    if (place.is_8_bit) continue;
    const int64_t begin = std::max(part.begin, fragment.start);
    const int64_t end = std::min(part.end, fragment.start + fragment.numel);
    place.zero = small - (begin - fragment.start);
    small += std::max<int64_t>(0, end - begin);
  }
  const int64_t size = part.size();
  const int64_t floats = format == MomentFormat::kFp32 ? size : small;
  exp_avg_.resize(floats);
  exp_avg_sq_.resize(floats);
  if (format == MomentFormat::kFp32) return;
  // A new moment is zero: the code of the value 0, whatever the scale.
  FT_CHECK(size % kDynamicBlock == 0);
  exp_avg_q8_.resize(size);
  exp_avg_sq_q8_.resize(size);
  exp_avg_absmax_.resize(size / kDynamicBlock);
  exp_avg_sq_absmax_.resize(size / kDynamicBlock);
}

void Moments::Update(size_t index, Interval elements, const AdamWStep& step,
                     std::span<float> parameters,
                     std::span<const float> gradients) {
  const Place& place = places_.at(index);
  const size_t begin = place.zero + elements.begin, size = elements.size();
  if (!place.is_8_bit) {
    AdamWUpdate(step, parameters, gradients,
                std::span(exp_avg_).subspan(begin, size),
                std::span(exp_avg_sq_).subspan(begin, size));
    return;
  }
  const size_t block = begin / kDynamicBlock;
  const size_t blocks = DynamicBlocks(elements.size());
  AdamW8BitUpdate(
      step, parameters, gradients,
      {.exp_avg = std::span(exp_avg_q8_).subspan(begin, size),
       .exp_avg_absmax = std::span(exp_avg_absmax_).subspan(block, blocks),
       .exp_avg_sq = std::span(exp_avg_sq_q8_).subspan(begin, size),
       .exp_avg_sq_absmax =
           std::span(exp_avg_sq_absmax_).subspan(block, blocks)});
}

template <typename Self>
auto Moments::BytesOf(Self& self, const MomentKind& kind, const Place& place,
                      Interval elements) {
  const size_t begin = (place.zero + elements.begin) / kind.block;
  const size_t count = CountOf(kind, elements.size());
  const auto of = [&](auto& values) {
    return AsBytes(std::span(values).subspan(begin, count));
  };
  const absl::string_view name = kind.kind;
  if (name == kExpAvg) return of(self.exp_avg_);
  if (name == kExpAvgSq) return of(self.exp_avg_sq_);
  if (name == kExpAvgQ8) return of(self.exp_avg_q8_);
  if (name == kExpAvgSqQ8) return of(self.exp_avg_sq_q8_);
  return name == kExpAvgAbsmax ? of(self.exp_avg_absmax_)
                               : of(self.exp_avg_sq_absmax_);
}

std::vector<StatePiece> Moments::Pieces(size_t index, Interval elements) const {
  const Fragment& fragment = partition_.fragments()[index];
  std::vector<StatePiece> pieces;
  for (const MomentKind& kind : MomentKinds(format_, fragment.numel)) {
    pieces.push_back(
        {.name = fragment.name,
         .kind = kind.kind,
         .start = elements.begin / kind.block,
         .bytes = BytesOf(*this, kind, places_.at(index), elements)});
  }
  return pieces;
}

absl::Status Moments::Fill(size_t index, Interval elements,
                           const SavedPieces& pieces) {
  const Fragment& fragment = partition_.fragments()[index];
  for (const MomentKind& kind : MomentKinds(format_, fragment.numel)) {
    FT_RETURN_IF_ERROR(
        pieces.Fill(fragment.name, kind.kind, elements.begin / kind.block,
                    BytesOf(*this, kind, places_.at(index), elements)));
  }
  return absl::OkStatus();
}

template <typename Self>
auto Moments::BuffersOf(Self& self) {
  return std::vector{AsBytes(std::span(self.exp_avg_)),
                     AsBytes(std::span(self.exp_avg_sq_)),
                     AsBytes(std::span(self.exp_avg_q8_)),
                     AsBytes(std::span(self.exp_avg_sq_q8_)),
                     AsBytes(std::span(self.exp_avg_absmax_)),
                     AsBytes(std::span(self.exp_avg_sq_absmax_))};
}

std::vector<std::span<std::byte>> Moments::Buffers() {
  return BuffersOf(*this);
}

std::vector<std::span<const std::byte>> Moments::Buffers() const {
  return BuffersOf(*this);
}

int64_t Moments::bytes() const {
  int64_t bytes = 0;
  for (const auto& buffer : Buffers()) {
    bytes += static_cast<int64_t>(buffer.size());
  }
  return bytes;
}

}  // namespace ft
