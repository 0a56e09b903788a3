// SPDX-License-Identifier: Apache-2.0
//
// {{word}} in the data, filled from data.variables.

#pragma once

#include <map>
#include <set>
#include <string>

#include "data/example.h"

namespace ft {

// Replaces every {{word}} (a word of letters, digits and _) in the texts of
// the messages, tool calls included; returns the words that have no value,
// which stay. Values are not searched for further words.
std::set<std::string> FillVariables(
    const std::map<std::string, std::string>& variables, Example& example);

}  // namespace ft
