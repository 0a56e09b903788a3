// SPDX-License-Identifier: Apache-2.0
//
// Fields of JobSpec that the system sets and a job file may not.

#pragma once

#include <google/protobuf/descriptor.h>

namespace ft {

bool IsInternalField(const google::protobuf::FieldDescriptor& field);

}  // namespace ft
