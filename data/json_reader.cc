// SPDX-License-Identifier: Apache-2.0

#include "data/json_reader.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status.h"
#include "data/json_tree.h"

namespace ft {
namespace {

// How far the value at the beginning of `text` reaches, by its brackets and
// strings alone: to a "," or "]" that is not its own, else to the end.
size_t ExtentOf(absl::string_view text) {
  int64_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (depth == 0 && (c == ',' || c == ']')) {
      return i;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return text.size();
}

class RowReader {
 public:
  RowReader(absl::string_view text, absl::string_view name,
            const std::function<void(const RowPlace&, Json)>& on_row,
            const std::function<void(BadRow)>& on_bad)
      : rest_(text), name_(name), on_row_(on_row), on_bad_(on_bad) {}

  void Read() {
    absl::ConsumePrefix(&rest_, "\xEF\xBB\xBF");  // Some editors' mark.
    const absl::string_view body = absl::StripLeadingAsciiWhitespace(rest_);
    if (absl::StartsWith(body, "[")) {
      ReadArray();
    } else {
      ReadLines();
    }
  }

 private:
  void ReadLines() {
    for (row_ = 1; !rest_.empty(); ++row_) {
      const size_t size = std::min(rest_.find('\n'), rest_.size());
      const absl::string_view line = rest_.substr(0, size);
      if (!absl::StripAsciiWhitespace(line).empty()) Row(line);
      Skip(std::min(size + 1, rest_.size()));
    }
  }

  void ReadArray() {
    SkipSpace();
    Skip(1);
    for (row_ = 1;; ++row_) {
      SkipSpace();
      if (row_ == 1 && absl::StartsWith(rest_, "]")) break;
      const size_t extent = ExtentOf(rest_);
      const absl::string_view value =
          absl::StripTrailingAsciiWhitespace(rest_.substr(0, extent));
      if (value.empty()) {
        Bad(0, "a row is missing here");
      } else {
        Row(value);
      }
      Skip(extent);
      if (rest_.empty()) {
        row_ = 0;
        return Bad(0, "the array is not closed");
      }
      if (rest_.front() == ']') break;
      Skip(1);
    }
    Skip(1);
    SkipSpace();
    row_ = 0;
    if (!rest_.empty()) Bad(0, "text behind the array");
  }

  // `text` is at the beginning of rest_.
  void Row(absl::string_view text) {
    if (static_cast<int64_t>(text.size()) > kMaxRowBytes) {
      return Bad(0, absl::StrCat("the row has ", text.size(),
                                 " bytes; the limit is ", kMaxRowBytes));
    }
    Json value;
    const std::optional<JsonFault> fault = ParseJsonTree(text, value);
    if (!fault) return on_row_({.row = row_, .line = line_}, std::move(value));
    const size_t offset = std::min(fault->offset, text.size());
    switch (fault->kind) {
      case JsonFault::Kind::kDepth:
        return Bad(offset, absl::StrCat("the row is nested deeper than ",
                                        kMaxJsonDepth, " levels"));
      case JsonFault::Kind::kEncoding:
        return Bad(offset, "not valid UTF-8");
      case JsonFault::Kind::kDuplicate:
        return Bad(offset, "this key stands twice in its object; remove one");
      case JsonFault::Kind::kSyntax:
        return Bad(offset, "not valid JSON");
    }
  }

  // A fault `offset` bytes behind the beginning of rest_.
  void Bad(size_t offset, std::string reason) {
    const absl::string_view before = rest_.substr(0, offset);
    const size_t newline = before.rfind('\n');
    const bool same_line = newline == absl::string_view::npos;
    on_bad_({.file = name_,
             .row = row_,
             .line = line_ + std::count(before.begin(), before.end(), '\n'),
             .column = static_cast<int64_t>(same_line ? column_ + offset
                                                      : offset - newline),
             .reason = std::move(reason)});
  }

  void SkipSpace() {
    Skip(rest_.size() - absl::StripLeadingAsciiWhitespace(rest_).size());
  }

  void Skip(size_t size) {
    const absl::string_view gone = rest_.substr(0, size);
    const size_t newline = gone.rfind('\n');
    column_ =
        newline == absl::string_view::npos ? column_ + size : size - newline;
    line_ += std::count(gone.begin(), gone.end(), '\n');
    rest_.remove_prefix(size);
  }

  absl::string_view rest_;
  int64_t line_ = 1;   // Of the beginning of rest_,
  size_t column_ = 1;  // and its column.
  int64_t row_ = 0;
  const std::string name_;
  const std::function<void(const RowPlace&, Json)>& on_row_;
  const std::function<void(BadRow)>& on_bad_;
};

}  // namespace

absl::Status ReadJsonRows(
    const std::string& path, absl::string_view name,
    const std::function<void(const RowPlace& place, Json row)>& on_row,
    const std::function<void(BadRow)>& on_bad) {
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxDatasetBytes));
  RowReader(text, name, on_row, on_bad).Read();
  return absl::OkStatus();
}

}  // namespace ft
