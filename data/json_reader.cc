// SPDX-License-Identifier: Apache-2.0

#include "data/json_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

using nlohmann::json;

// Reads a text only to learn where it stops being JSON.
class FaultFinder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(json::number_integer_t) override { return true; }
  bool number_unsigned(json::number_unsigned_t) override { return true; }
  bool number_float(json::number_float_t, const std::string&) override {
    return true;
  }
  bool string(std::string&) override { return true; }
  bool binary(json::binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(std::string&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t bytes_read, const std::string&,
                   const nlohmann::detail::exception& error) override {
    offset_ = bytes_read == 0 ? 0 : bytes_read - 1;
    is_encoding_ = absl::StrContains(error.what(), "UTF-8");
    return false;
  }

  size_t offset() const { return offset_; }
  bool is_encoding() const { return is_encoding_; }

 private:
  size_t offset_ = 0;
  bool is_encoding_ = false;
};

struct Extent {
  size_t size = 0;  // Bytes up to the comma or bracket behind the value.
  int depth = 0;    // Greatest nesting.
};

// How far the value at the beginning of `text` reaches, by its brackets and
// strings alone: to a "," or "]" that is not its own, else to the end.
Extent ExtentOf(absl::string_view text) {
  Extent extent{.size = text.size()};
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      extent.depth = std::max(extent.depth, ++depth);
    } else if (depth == 0 && (c == ',' || c == ']')) {
      extent.size = i;
      break;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return extent;
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
      if (!absl::StripAsciiWhitespace(line).empty()) {
        // Commas between values are no part of JSON lines, so the depth is
        // that of the whole line.
        int depth = 0;
        for (absl::string_view part = line; !part.empty();) {
          const Extent extent = ExtentOf(part);
          depth = std::max(depth, extent.depth);
          part.remove_prefix(std::min(extent.size + 1, part.size()));
        }
        Row(line, depth);
      }
      Skip(std::min(size + 1, rest_.size()));
    }
  }

  void ReadArray() {
    SkipSpace();
    Skip(1);
    for (row_ = 1;; ++row_) {
      SkipSpace();
      if (row_ == 1 && absl::StartsWith(rest_, "]")) break;
      const Extent extent = ExtentOf(rest_);
      const absl::string_view value =
          absl::StripTrailingAsciiWhitespace(rest_.substr(0, extent.size));
      if (value.empty()) {
        Bad(0, "a row is missing here");
      } else {
        Row(value, extent.depth);
      }
      Skip(extent.size);
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
  void Row(absl::string_view text, int depth) {
    if (static_cast<int64_t>(text.size()) > kMaxRowBytes) {
      return Bad(0, absl::StrCat("the row has ", text.size(),
                                 " bytes; the limit is ", kMaxRowBytes));
    }
    if (depth > kMaxJsonDepth) {
      return Bad(0, absl::StrCat("the row is nested deeper than ",
                                 kMaxJsonDepth, " levels"));
    }
    Json value = Json::parse(text.begin(), text.end(), nullptr,
                             /*allow_exceptions=*/false);
    if (!value.is_discarded()) {
      return on_row_({.row = row_, .line = line_}, std::move(value));
    }
    FaultFinder finder;
    json::sax_parse(text.begin(), text.end(), &finder);
    Bad(std::min(finder.offset(), text.size()),
        finder.is_encoding() ? "not valid UTF-8" : "not valid JSON");
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
