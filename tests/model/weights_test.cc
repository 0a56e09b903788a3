// SPDX-License-Identifier: Apache-2.0

#include "model/weights.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

TensorView ViewOf(const std::vector<float>& values) {
  TensorView view;
  view.name = "w";
  view.dtype = DType::kF32;
  view.shape = {static_cast<int64_t>(values.size())};
  view.bytes = std::as_bytes(std::span(values));
  return view;
}

TEST(WeightsTest, LargeSmallAndNegativeValuesAreFine) {
  const std::vector<float> values = {0.0f,
                                     -0.0f,
                                     -1.5f,
                                     std::numeric_limits<float>::max(),
                                     std::numeric_limits<float>::lowest(),
                                     std::numeric_limits<float>::denorm_min()};
  FT_ASSERT_OK_AND_ASSIGN(const at::Tensor tensor, TensorOf(ViewOf(values)));
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(tensor[static_cast<int64_t>(i)].item<float>(), values[i]);
  }
}

TEST(WeightsTest, AValueThatIsNotFiniteIsRefusedByTheTensorsName) {
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t at : {0, 50, 98}) {
      std::vector<float> values(99, -2.0f);
      values[at] = bad;
      EXPECT_THAT(TensorOf(ViewOf(values)),
                  testing::Fails(absl::StatusCode::kInvalidArgument,
                                 "tensor w: holds a value"));
    }
  }
}

TEST(WeightsTest, HalvesAreLookedAtAfterConversion) {
  const uint16_t infinity = 0x7c00;
  TensorView view;
  view.name = "h";
  view.dtype = DType::kF16;
  view.shape = {1};
  view.bytes = std::as_bytes(std::span(&infinity, 1));
  EXPECT_THAT(TensorOf(view),
              testing::Fails(absl::StatusCode::kInvalidArgument, "tensor h"));
}

}  // namespace
}  // namespace ft
