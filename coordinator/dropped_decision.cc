// SPDX-License-Identifier: Apache-2.0

#include "coordinator/dropped_decision.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/reasons.h"

namespace ft {

std::vector<Effect> EffectsOfDropped(const Decision& decision,
                                     const absl::Status& error) {
  std::vector<Effect> effects;
  for (const Effect& effect : decision.effects) {
    if (const auto* reply = std::get_if<Reply>(&effect)) {
      effects.push_back(Reply{
          .ticket = reply->ticket,
          .status = ReasonError(absl::StatusCode::kResourceExhausted,
                                v1::REASON_STORE_FULL,
                                absl::StrCat("the coordinator's disk is full: ",
                                             error.message()))});
    } else if (const auto* message = std::get_if<ToWorker>(&effect);
               message != nullptr && message->message.has_attached()) {
      // The worker attaches again and tells all it holds.
      effects.push_back(CloseSession{
          message->session,
          ReasonError(absl::StatusCode::kUnavailable, v1::REASON_NOT_READY,
                      "the coordinator's disk is full")});
    } else if (std::holds_alternative<FleetChanged>(effect) ||
               std::holds_alternative<CloseSession>(effect) ||
               (message != nullptr && message->message.has_heartbeat_reply() &&
                decision.records.empty())) {
      effects.push_back(effect);
    }
  }
  return effects;
}

}  // namespace ft
