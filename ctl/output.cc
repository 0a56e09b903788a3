// SPDX-License-Identifier: Apache-2.0

#include "ctl/output.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/check.h"

namespace ft {
namespace {

// A key that YAML could take for something else is quoted like a text.
std::string YamlKey(const std::string& key) {
  const bool is_plain =
      !key.empty() && absl::ascii_isalpha(static_cast<unsigned char>(key[0])) &&
      std::all_of(key.begin(), key.end(), [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '_' || c == '-';
      });
  static constexpr absl::string_view kWords[] = {
      "y", "n", "yes", "no", "true", "on", "off", "false", "null"};
  const bool is_word =
      std::find(std::begin(kWords), std::end(kWords),
                absl::AsciiStrToLower(key)) != std::end(kWords);
  return is_plain && !is_word ? key : nlohmann::json(key).dump();
}

// What is no UTF-8, such as the name of a folder, is replaced.
std::string Dump(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', /*ensure_ascii=*/false,
                    nlohmann::ordered_json::error_handler_t::replace);
}

std::string YamlScalar(const nlohmann::ordered_json& value) {
  return Dump(value, /*indent=*/-1);
}

void AppendYaml(const nlohmann::ordered_json& value, int indent,
                std::string& out) {
  const std::string pad(indent, ' ');
  const auto is_block = [](const nlohmann::ordered_json& child) {
    return child.is_structured() && !child.empty();
  };
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) {
      absl::StrAppend(&out, pad, YamlKey(key), ":");
      if (is_block(child)) {
        out += "\n";
        AppendYaml(child, indent + 2, out);
      } else {
        absl::StrAppend(&out, " ", YamlScalar(child), "\n");
      }
    }
  } else if (value.is_array()) {
    for (const auto& child : value) {
      if (is_block(child)) {
        std::string inner;
        AppendYaml(child, indent + 2, inner);
        absl::StrAppend(&out, pad, "- ", inner.substr(indent + 2));
      } else {
        absl::StrAppend(&out, pad, "- ", YamlScalar(child), "\n");
      }
    }
  } else {
    absl::StrAppend(&out, pad, YamlScalar(value), "\n");
  }
}

// What would move the cursor is a blank.
std::string Printable(absl::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return printable;
}

std::string OnOneLine(absl::string_view cell) {
  const std::vector<absl::string_view> lines =
      absl::StrSplit(cell, '\n', absl::SkipWhitespace());
  if (lines.empty()) return "";
  const size_t more = lines.size() - 1;
  return absl::StrCat(Printable(lines[0]),
                      more == 0 ? ""
                                : absl::StrCat(" (and ", more, " more line",
                                               more == 1 ? "" : "s", ")"));
}

// https://no-color.org: set to anything but nothing.
bool MayColor() {
  const char* no_color = std::getenv("NO_COLOR");
  return no_color == nullptr || *no_color == '\0';
}

std::string JsonOf(const google::protobuf::Message& message,
                   bool with_whitespace) {
  std::string json;
  google::protobuf::util::JsonPrintOptions printing;
  printing.add_whitespace = with_whitespace;
  printing.preserve_proto_field_names = true;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, printing);
  FT_CHECK(status.ok());  // Our own messages hold valid UTF-8 and known types.
  return json;
}

}  // namespace

std::string YamlOf(const nlohmann::ordered_json& value) {
  std::string yaml;
  AppendYaml(value, 0, yaml);
  return yaml;
}

void PrintTable(const GlobalOptions& options,
                const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& cells) {
  std::vector<std::vector<std::string>> rows = cells;
  for (auto& row : rows) {
    for (std::string& cell : row) cell = OnOneLine(cell);
  }
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
    const bool bold = isatty(STDOUT_FILENO) == 1 && MayColor();
    std::printf("%s%s%s\n", bold ? "\033[1m" : "", print(header).c_str(),
                bold ? "\033[0m" : "");
  }
  for (const auto& row : rows) std::printf("%s\n", print(row).c_str());
}

void PrintFields(
    const std::vector<std::pair<std::string, std::string>>& fields) {
  size_t width = 0;
  for (const auto& [name, value] : fields) {
    width = std::max(width, name.size());
  }
  for (const auto& [name, value] : fields) {
    absl::string_view label = name;
    for (const absl::string_view line :
         absl::StrSplit(absl::StripTrailingAsciiWhitespace(value), '\n')) {
      std::printf("%-*s  %s\n", static_cast<int>(width),
                  std::string(std::exchange(label, "")).c_str(),
                  Printable(line).c_str());
    }
  }
}

void PrintMessage(const GlobalOptions& options,
                  const google::protobuf::Message& message) {
  if (options.output == "yaml") {
    std::fputs(
        YamlOf(nlohmann::ordered_json::parse(JsonOf(message, false))).c_str(),
        stdout);
  } else {
    std::fputs(JsonOf(message, true).c_str(), stdout);
  }
}

void PrintValue(const GlobalOptions& options,
                const nlohmann::ordered_json& value) {
  if (options.output == "yaml") {
    std::fputs(YamlOf(value).c_str(), stdout);
  } else {
    std::printf("%s\n", Dump(value, /*indent=*/1).c_str());
  }
}

void PrintStreamed(const GlobalOptions& options,
                   const google::protobuf::Message& message) {
  if (options.output == "yaml") {
    std::fputs("---\n", stdout);
    PrintMessage(options, message);
  } else {
    std::printf("%s\n", JsonOf(message, false).c_str());
  }
  std::fflush(stdout);
}

std::string StateName(v1::JobState state) {
  return v1::JobState_Name(state).substr(sizeof("JOB_STATE_") - 1);
}

std::string CauseName(v1::AttemptCause cause) {
  return v1::AttemptCause_Name(cause).substr(sizeof("ATTEMPT_CAUSE_") - 1);
}

std::string AdviceForHeld(const std::string& job_id) {
  return absl::StrCat("look at ftctl logs ", job_id, "; then ftctl resume ",
                      job_id, ", or ftctl cancel ", job_id);
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
