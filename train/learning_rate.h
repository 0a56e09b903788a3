// SPDX-License-Identifier: Apache-2.0
//
// Learning-rate schedules: a pure function of the completed steps, so that a
// resumed run continues on the same curve without any state.

#pragma once

#include <cstdint>

namespace ft {

enum class ScheduleKind { kConstant, kLinear, kCosine };

// With t = completed steps, T = total_steps, w = warmup_steps and
// p = (t - w) / max(1, T - w):
//
//   t < w     peak * t / max(1, w)          (the first step has factor 0)
//   constant  peak
//   linear    peak * max(0, 1 - p)
//   cosine    peak * max(0, (1 + cos(pi p)) / 2)
//
// The formulas of transformers' get_{constant,linear,cosine}_schedule_with_
// warmup.
struct LearningRateSchedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 1e-4;
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;

  double At(int64_t completed_steps) const;
};

// ceil(ratio * total_steps), robust against ratio * total_steps being a hair
// over an integer.
int64_t WarmupSteps(double ratio, int64_t total_steps);

}  // namespace ft
