// SPDX-License-Identifier: Apache-2.0

#include "train/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ft {

double LearningRateSchedule::At(int64_t completed_steps) const {
  if (completed_steps < warmup_steps) {
    return peak * (static_cast<double>(completed_steps) /
                   static_cast<double>(std::max<int64_t>(1, warmup_steps)));
  }
  const double progress =
      static_cast<double>(completed_steps - warmup_steps) /
      static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  switch (kind) {
    case ScheduleKind::kConstant:
      return peak;
    case ScheduleKind::kLinear:
      return peak * std::max(0.0, 1.0 - progress);
    case ScheduleKind::kCosine:
      return peak *
             std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
  }
  return 0;
}

int64_t WarmupSteps(double ratio, int64_t total_steps) {
  return static_cast<int64_t>(
      std::ceil(ratio * static_cast<double>(total_steps) - 1e-9));
}

}  // namespace ft
