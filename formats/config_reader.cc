// SPDX-License-Identifier: Apache-2.0

#include "formats/config_reader.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace ft {
namespace {

// The value as text, short enough for a message.
std::string Shown(const nlohmann::json& value) {
  std::string text =
      value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::optional<int64_t> AsInt(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > uint64_t{1} << 62) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

}  // namespace

const nlohmann::json* ConfigReader::Find(const std::string& key) {
  seen_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

int64_t ConfigReader::Int(const std::string& key,
                          std::optional<int64_t> missing, int64_t low,
                          int64_t high) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!missing) Fault(key, "is missing");
    return missing.value_or(low);
  }
  const std::optional<int64_t> number = AsInt(*value);
  if (!number || *number < low || *number > high) {
    Fault(key, absl::StrCat(Shown(*value), " is not an integer in [", low, ", ",
                            high, "]"));
    return missing.value_or(low);
  }
  return *number;
}

double ConfigReader::Number(const std::string& key,
                            std::optional<double> missing, double low,
                            double high) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!missing) Fault(key, "is missing");
    return missing.value_or(low);
  }
  if (!value->is_number() || !(value->get<double>() >= low) ||
      !(value->get<double>() <= high)) {
    Fault(key, absl::StrCat(Shown(*value), " is not a number in [", low, ", ",
                            high, "]"));
    return missing.value_or(low);
  }
  return value->get<double>();
}

bool ConfigReader::Bool(const std::string& key, bool missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return missing;
  if (!value->is_boolean()) {
    Fault(key, absl::StrCat(Shown(*value), " is not true or false"));
    return missing;
  }
  return value->get<bool>();
}

std::string ConfigReader::String(const std::string& key, std::string missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return missing;
  if (!value->is_string()) {
    Fault(key, absl::StrCat(Shown(*value), " is not a string"));
    return missing;
  }
  return value->get<std::string>();
}

std::vector<std::string> ConfigReader::Strings(const std::string& key) {
  const nlohmann::json* value = Find(key);
  std::vector<std::string> strings;
  if (value == nullptr) return strings;
  bool all_strings = value->is_array();
  for (size_t i = 0; all_strings && i < value->size(); ++i) {
    all_strings = (*value)[i].is_string();
    if (all_strings) strings.push_back((*value)[i].get<std::string>());
  }
  if (!all_strings) {
    Fault(key, absl::StrCat(Shown(*value), " is not a list of strings"));
    strings.clear();
  }
  return strings;
}

std::vector<std::string> ConfigReader::UnreadKeys() const {
  std::vector<std::string> unread;
  for (const auto& [key, value] : object_.items()) {
    if (!seen_.contains(key)) unread.push_back(context_ + key);
  }
  return unread;
}

void ConfigReader::Fault(absl::string_view key, absl::string_view what) {
  faults_.push_back(absl::StrCat(context_, key, ": ", what));
}

void ConfigReader::Unsupported(absl::string_view key, absl::string_view what) {
  unsupported_.push_back(absl::StrCat(context_, key, ": ", what));
}

void ConfigReader::Absorb(const ConfigReader& other) {
  faults_.insert(faults_.end(), other.faults_.begin(), other.faults_.end());
  unsupported_.insert(unsupported_.end(), other.unsupported_.begin(),
                      other.unsupported_.end());
}

absl::Status ConfigReader::Verdict() const {
  if (!faults_.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(faults_, "; "));
  }
  if (!unsupported_.empty()) {
    return absl::UnimplementedError(absl::StrJoin(unsupported_, "; "));
  }
  return absl::OkStatus();
}

std::optional<DType> ReadDType(ConfigReader& config) {
  const std::string old_spelling = config.String("torch_dtype", "");
  const std::string name = config.String("dtype", old_spelling);
  const absl::string_view plain = absl::StripPrefix(name, "torch.");
  if (plain == "float32") return DType::kF32;
  if (plain == "float16") return DType::kF16;
  if (plain == "bfloat16") return DType::kBF16;
  return std::nullopt;
}

}  // namespace ft
