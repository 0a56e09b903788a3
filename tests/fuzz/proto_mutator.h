// SPDX-License-Identifier: Apache-2.0
//
// Changes protobuf messages by their fields, so that what comes out parses.

#pragma once

#include <google/protobuf/message.h>

#include <random>
#include <string>
#include <vector>

namespace ft::fuzz {

using Random = std::minstd_rand;

// Sets, clears, repeats or changes one field somewhere in `message`; texts come
// from `words` or are changed byte by byte.
void MutateMessage(google::protobuf::Message& message,
                   const std::vector<std::string>& words, Random& random);

}  // namespace ft::fuzz
