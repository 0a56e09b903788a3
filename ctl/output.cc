// SPDX-License-Identifier: Apache-2.0

#include "ctl/output.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ft {
namespace {

void AppendYaml(const nlohmann::ordered_json& value, int indent,
                std::string& out) {
  const std::string pad(indent, ' ');
  const auto is_block = [](const nlohmann::ordered_json& child) {
    return child.is_structured() && !child.empty();
  };
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) {
      absl::StrAppend(&out, pad, key, ":");
      if (is_block(child)) {
        out += "\n";
        AppendYaml(child, indent + 2, out);
      } else {
        absl::StrAppend(&out, " ", child.dump(), "\n");
      }
    }
  } else if (value.is_array()) {
    for (const auto& child : value) {
      if (is_block(child)) {
        std::string inner;
        AppendYaml(child, indent + 2, inner);
        absl::StrAppend(&out, pad, "- ", inner.substr(indent + 2));
      } else {
        absl::StrAppend(&out, pad, "- ", child.dump(), "\n");
      }
    }
  } else {
    absl::StrAppend(&out, pad, value.dump(), "\n");
  }
}

}  // namespace

void PrintTable(const GlobalOptions& options,
                const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(header.size());
  const auto widen = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  };
  if (!options.no_headers) widen(header);
  for (const auto& row : rows) widen(row);
  const auto print = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
    }
    return line;
  };
  if (!options.no_headers) {
    const bool bold =
        isatty(STDOUT_FILENO) && std::getenv("NO_COLOR") == nullptr;
    std::printf("%s%s%s\n", bold ? "\033[1m" : "", print(header).c_str(),
                bold ? "\033[0m" : "");
  }
  for (const auto& row : rows) std::printf("%s\n", print(row).c_str());
}

void PrintMessage(const GlobalOptions& options,
                  const google::protobuf::Message& message) {
  std::string json;
  google::protobuf::util::JsonPrintOptions printing;
  printing.add_whitespace = true;
  printing.preserve_proto_field_names = true;
  google::protobuf::util::MessageToJsonString(message, &json, printing);
  if (options.output == "yaml") {
    std::string yaml;
    AppendYaml(nlohmann::ordered_json::parse(json), 0, yaml);
    std::fputs(yaml.c_str(), stdout);
  } else {
    std::printf("%s\n", json.c_str());
  }
}

std::string StateName(v1::JobState state) {
  return v1::JobState_Name(state).substr(sizeof("JOB_STATE_") - 1);
}

std::string CauseName(v1::AttemptCause cause) {
  return v1::AttemptCause_Name(cause).substr(sizeof("ATTEMPT_CAUSE_") - 1);
}

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

std::string DurationText(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 60) return absl::StrCat(whole, "s");
  if (whole < 3600) {
    return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  }
  if (whole < 86400) {
    return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  }
  return absl::StrFormat("%dd%02dh", whole / 86400, whole / 3600 % 24);
}

std::string AgeOf(const google::protobuf::Timestamp& since) {
  if (since.seconds() == 0) return "";
  return DurationText(absl::ToDoubleSeconds(
      absl::Now() - absl::FromUnixSeconds(since.seconds())));
}

}  // namespace ft
