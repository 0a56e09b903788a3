// SPDX-License-Identifier: Apache-2.0
//
// Every metric of the coordinator. Names are frozen by a test; labels are
// enums. See docs/operations.md.

#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/metrics.h"
#include "coordinator/decision.h"

namespace ft {

class EffectRouter;

// Thread-safe.
class CoordinatorMetrics {
 public:
  CoordinatorMetrics();

  void Observe(const Observation& observation);
  void Committed(absl::Duration took);
  void RpcDone(absl::string_view method, absl::string_view code,
               absl::Duration took);
  void AuthDenied(absl::string_view reason);
  void ArtifactBytes(absl::string_view direction, int64_t bytes);
  void ArtifactResumed();
  void ArtifactVerifyFailed();
  // The newest point of a live job.
  void Step(const std::string& job_id, const v1::StepMetrics& point);
  void JobOver(const std::string& job_id);

  // The text of /metrics; gauges are taken from the views now.
  std::string Text(const EffectRouter& views, int64_t store_free_bytes);

 private:
  MetricRegistry registry_;
};

}  // namespace ft
