// SPDX-License-Identifier: Apache-2.0

#include "coordinator/request_checks.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/id.h"
#include "common/status.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

absl::Status CheckBelow(const Message& message, const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string field_path =
        path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    const bool is_message =
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!field->is_repeated()) {
      if (!is_message) continue;
      FT_RETURN_IF_ERROR(
          CheckBelow(reflection.GetMessage(message, field), field_path));
      continue;
    }
    const int size = reflection.FieldSize(message, field);
    if (size > kMaxRepeated) {
      return ReasonError(absl::StatusCode::kInvalidArgument,
                         v1::REASON_LIMIT_EXCEEDED,
                         absl::StrCat(field_path, ": ", size,
                                      " elements; at most ", kMaxRepeated));
    }
    if (!is_message || field->is_map()) continue;
    for (int i = 0; i < size; ++i) {
      FT_RETURN_IF_ERROR(
          CheckBelow(reflection.GetRepeatedMessage(message, field, i),
                     absl::StrCat(field_path, "[", i, "]")));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRepeated(const Message& request) {
  return CheckBelow(request, "");
}

absl::Status CheckAttach(const v1::ConnectRequest& first) {
  if (!first.has_attach()) {
    return absl::InvalidArgumentError("the first message must be Attach");
  }
  FT_RETURN_IF_ERROR(CheckRepeated(first));
  const v1::Attach& attach = first.attach();
  if (!IsLabel(attach.worker_id())) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_id: '", attach.worker_id().substr(0, 80),
                     "' is not [a-z0-9-]{1,63}"));
  }
  if (attach.instance_id().empty()) {
    return absl::InvalidArgumentError("instance_id: is missing");
  }
  if (attach.inventory().slots().empty()) {
    return absl::InvalidArgumentError("inventory.slots: a worker has slots");
  }
  std::set<int32_t> slots;
  for (const v1::Slot& slot : attach.inventory().slots()) {
    if (slot.index() < 0 || !slots.insert(slot.index()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("inventory.slots: index ", slot.index(),
                       " is negative or stands twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLater(const v1::ConnectRequest& message) {
  if (message.has_attach()) {
    return absl::InvalidArgumentError("Attach comes once a stream");
  }
  return CheckRepeated(message);
}

bool IsArtifactName(absl::string_view name) {
  return !name.empty() && name.size() <= 128 &&
         (absl::ascii_islower(static_cast<unsigned char>(name[0])) ||
          absl::ascii_isdigit(static_cast<unsigned char>(name[0]))) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

}  // namespace ft
