// SPDX-License-Identifier: Apache-2.0
//
// absl::Time and google.protobuf.Timestamp.

#pragma once

#include <google/protobuf/timestamp.pb.h>

#include "absl/time/time.h"

namespace ft {

inline google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp proto;
  const int64_t micros = absl::ToUnixMicros(time);
  const int64_t seconds = absl::ToUnixSeconds(time);
  proto.set_seconds(seconds);
  proto.set_nanos(static_cast<int32_t>((micros - seconds * 1'000'000) * 1000));
  return proto;
}

inline absl::Time FromProto(const google::protobuf::Timestamp& proto) {
  return absl::FromUnixSeconds(proto.seconds()) +
         absl::Nanoseconds(proto.nanos());
}

}  // namespace ft
