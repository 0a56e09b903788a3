// SPDX-License-Identifier: Apache-2.0
//
// Results on stdout as people or programs want them: a table, JSON, YAML or
// bare names.

#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "ctl/command.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

// Columns as wide as their widest cell; the header in bold on a terminal,
// unless NO_COLOR is set. A row is a line: of a cell with more than one, the
// first is shown and the others are counted.
void PrintTable(const GlobalOptions& options,
                const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows);

// Names and values, one below the other; further lines of a value stand below
// its first.
void PrintFields(
    const std::vector<std::pair<std::string, std::string>>& fields);

// Whether the result is wanted as a whole message.
inline bool IsMessageOutput(const GlobalOptions& options) {
  return options.output == "json" || options.output == "yaml";
}

// Proto JSON, or the same as YAML.
void PrintMessage(const GlobalOptions& options,
                  const google::protobuf::Message& message);

// One message of many: a line of JSON, or a document of YAML; flushed.
void PrintStreamed(const GlobalOptions& options,
                   const google::protobuf::Message& message);

// A result that no message stands for: JSON, or the same as YAML.
void PrintValue(const GlobalOptions& options,
                const nlohmann::ordered_json& value);

// Block style; every text quoted.
std::string YamlOf(const nlohmann::ordered_json& value);

// "QUEUED" of JOB_STATE_QUEUED.
std::string StateName(v1::JobState state);
std::string CauseName(v1::AttemptCause cause);
// What a person may do with a HELD job.
std::string AdviceForHeld(const std::string& job_id);

bool IsTerminal(v1::JobState state);

// "3m12s", "2h05m"; "" before 1970.
std::string AgeOf(const google::protobuf::Timestamp& since);
std::string DurationText(double seconds);

}  // namespace ft
