// SPDX-License-Identifier: Apache-2.0

#include "common/status.h"

#include <cerrno>
#include <cstring>

#include "common/no_space.h"

namespace ft {
namespace {

constexpr absl::string_view kNoSpaceUrl = "ft/no-space";

}  // namespace

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  absl::Status annotated(status.code(),
                         absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

absl::Status ErrnoStatus(int error_number, absl::string_view what) {
  absl::Status status(absl::ErrnoToStatusCode(error_number),
                      absl::StrCat(what, ": ", std::strerror(error_number)));
  if (error_number == ENOSPC || error_number == EDQUOT) {
    status.SetPayload(kNoSpaceUrl, absl::Cord());
  }
  return status;
}

bool IsNoSpace(const absl::Status& status) {
  return status.GetPayload(kNoSpaceUrl).has_value();
}

}  // namespace ft
