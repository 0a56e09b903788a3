// SPDX-License-Identifier: Apache-2.0
//
// Takes values out of a JSON object and gathers everything that is wrong with
// them, so that one message names every fault.

#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "formats/dtype.h"
#include "nlohmann/json.hpp"

namespace ft {

// Sizes in a config.json: so large that no model is refused, so small that no
// product of two overflows and no list of parameters is a bomb.
inline constexpr int64_t kMaxVocab = int64_t{1} << 22;
inline constexpr int64_t kMaxWidth = int64_t{1} << 20;
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 4096;
inline constexpr int64_t kMaxPosition = int64_t{1} << 31;

// Not thread-safe. The object must outlive the reader.
class ConfigReader {
 public:
  // `context` ("rope_scaling.") stands before the keys in messages.
  explicit ConfigReader(const nlohmann::json& object, std::string context = "")
      : object_(object), context_(std::move(context)) {}

  // Null if the key is missing or null.
  const nlohmann::json* Find(const std::string& key);

  // The value, or `missing` if there is none. A value of another type or out of
  // [low, high] is a fault and gives `missing`.
  int64_t Int(const std::string& key, std::optional<int64_t> missing,
              int64_t low, int64_t high);
  double Number(const std::string& key, std::optional<double> missing,
                double low, double high);
  bool Bool(const std::string& key, bool missing);
  std::string String(const std::string& key, std::string missing);
  std::vector<std::string> Strings(const std::string& key);

  // Keys that are known but mean nothing to us.
  void Ignore(const std::string& key) { seen_.insert(key); }
  // Keys that nobody asked for.
  std::vector<std::string> UnreadKeys() const;

  void Fault(absl::string_view key, absl::string_view what);
  void Unsupported(absl::string_view key, absl::string_view what);
  // Takes over what another reader found.
  void Absorb(const ConfigReader& other);

  // INVALID_ARGUMENT with all faults, else UNIMPLEMENTED with all that is not
  // supported, else OK.
  absl::Status Verdict() const;

 private:
  const nlohmann::json& object_;
  const std::string context_;
  std::set<std::string> seen_;
  std::vector<std::string> faults_;
  std::vector<std::string> unsupported_;
};

// Element type that `dtype` or `torch_dtype` of a config.json names; nothing if
// it names none that weights are trained in.
std::optional<DType> ReadDType(ConfigReader& config);

}  // namespace ft
