// SPDX-License-Identifier: Apache-2.0

#include "common/status.h"

#include <cstring>

namespace ft {

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  absl::Status annotated(status.code(),
                         absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

absl::Status ErrnoStatus(int error_number, absl::string_view what) {
  return absl::Status(absl::ErrnoToStatusCode(error_number),
                      absl::StrCat(what, ": ", std::strerror(error_number)));
}

}  // namespace ft
