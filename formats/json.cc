// SPDX-License-Identifier: Apache-2.0

#include "formats/json.h"

#include <cstdint>
#include <set>
#include <vector>

#include "absl/strings/escaping.h"
#include "common/status.h"

namespace ft {
namespace {

// Messages quote the text, which may be long and no text at all.
std::string Quotable(std::string text) {
  constexpr size_t kMost = 200;
  if (text.size() > kMost) {
    text.resize(kMost);
    text += "...";
  }
  return IsUtf8(text) ? text : absl::CHexEscape(text);
}

// Looks at the text once and keeps nothing but the keys of the open objects.
class Validator : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Validator(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return Enter(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      fault_ =
          absl::StrCat("key ", Quotable(JsonString(name)), " stands twice");
      return false;
    }
    return true;
  }

  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string what = error.what();
    const size_t bracket = what.find("] ");
    fault_ = Quotable(bracket == std::string::npos ? what
                                                   : what.substr(bracket + 2));
    return false;
  }

  const std::string& fault() const { return fault_; }

 private:
  bool Enter() {
    if (static_cast<int>(keys_.size()) == max_depth_) {
      fault_ = absl::StrCat("nested deeper than ", max_depth_);
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  const int max_depth_;
  std::vector<std::set<std::string>> keys_;  // One an open object or array.
  std::string fault_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text,
                                         int max_depth) {
  Validator validator(max_depth);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &validator)) {
    return absl::InvalidArgumentError(
        absl::StrCat("not valid JSON: ", validator.fault()));
  }
  return nlohmann::json::parse(text.begin(), text.end(), nullptr,
                               /*allow_exceptions=*/false);
}

std::string JsonString(absl::string_view text) {
  // `replace` only so that dump never throws, whatever comes.
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool IsUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const uint8_t lead = text[i];
    const int length = lead < 0x80                   ? 1
                       : lead >= 0xc2 && lead < 0xe0 ? 2
                       : (lead & 0xf0) == 0xe0       ? 3
                       : lead >= 0xf0 && lead < 0xf5 ? 4
                                                     : 0;
    if (length == 0 || i + length > text.size()) return false;
    uint32_t code = length == 1 ? lead : lead & (0xff >> (length + 1));
    for (int k = 1; k < length; ++k) {
      const uint8_t next = text[i + k];
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    if (length == 3 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) {
      return false;
    }
    if (length == 4 && (code < 0x10000 || code > 0x10ffff)) return false;
    i += length;
  }
  return true;
}

}  // namespace ft
