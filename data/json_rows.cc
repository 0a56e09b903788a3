// SPDX-License-Identifier: Apache-2.0

#include "data/json_rows.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

// "line 3, column 7: ..." for a fault at byte `at` of `text`.
std::string Place(absl::string_view text, size_t at) {
  at = std::min(at, text.size());
  const absl::string_view before = text.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column =
      newline == absl::string_view::npos ? at + 1 : at - newline;
  return absl::StrCat("line ", line, ", column ", column);
}

// A parser that stops at the depth limit and keeps where it failed.
class BoundedReader : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  explicit BoundedReader(Json& value)
      : Base(value, /*allow_exceptions=*/false) {}

  bool start_object(std::size_t size) {
    return Deeper() && Base::start_object(size);
  }
  bool start_array(std::size_t size) {
    return Deeper() && Base::start_array(size);
  }
  bool end_object() {
    --depth_;
    return Base::end_object();
  }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  template <typename Exception>
  bool parse_error(std::size_t position, const std::string& token,
                   const Exception& error) {
    position_ = position;
    return Base::parse_error(position, token, error);
  }

  bool is_too_deep() const { return depth_ > kMaxJsonDepth; }
  size_t position() const { return position_; }

 private:
  bool Deeper() { return ++depth_ <= kMaxJsonDepth; }
  int depth_ = 0;
  size_t position_ = 0;
};

// The reason why `text` is no JSON; empty: it is, and in `value`.
std::string Parse(absl::string_view text, Json& value) {
  BoundedReader reader(value);
  if (Json::sax_parse(text.begin(), text.end(), &reader)) return "";
  if (reader.is_too_deep()) {
    return absl::StrCat("deeper than ", kMaxJsonDepth, " levels");
  }
  return absl::StrCat(Place(text, reader.position() - 1),
                      ": not valid JSON here");
}

}  // namespace

absl::Status ReadJsonRows(
    const std::string& path,
    const std::function<absl::Status(int64_t row, const Json& value)>& on_row,
    const std::function<void(BadRow)>& on_bad) {
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxDatasetBytes));
  const std::string file = BaseName(path);
  absl::string_view rest = text;
  const absl::string_view body = absl::StripLeadingAsciiWhitespace(rest);
  if (!body.empty() && body.front() == '[') {
    Json rows;
    if (std::string fault = Parse(text, rows); !fault.empty()) {
      on_bad({file, 0, std::move(fault)});
      return absl::OkStatus();
    }
    int64_t row = 0;
    for (const Json& value : rows) FT_RETURN_IF_ERROR(on_row(++row, value));
    return absl::OkStatus();
  }

  for (int64_t row = 1; !rest.empty(); ++row) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const absl::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    if (static_cast<int64_t>(line.size()) > kMaxLineBytes) {
      on_bad({file, row,
              absl::StrCat("the line has ", line.size(),
                           " bytes; the limit is ", kMaxLineBytes)});
      continue;
    }
    Json value;
    if (std::string fault = Parse(line, value); !fault.empty()) {
      on_bad({file, row, std::move(fault)});
      continue;
    }
    FT_RETURN_IF_ERROR(on_row(row, value));
  }
  return absl::OkStatus();
}

}  // namespace ft
