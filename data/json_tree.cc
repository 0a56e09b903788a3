// SPDX-License-Identifier: Apache-2.0

#include "data/json_tree.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"

namespace ft {
namespace {

enum class OnDuplicate { kFault, kTakeLast };

// Where the `count`th key of `text` begins, which is JSON up to there: keys are
// the strings before a colon.
size_t OffsetOfKey(absl::string_view text, int64_t count) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '"') continue;
    const size_t begin = i;
    for (++i; i < text.size() && text[i] != '"'; ++i) {
      if (text[i] == '\\') ++i;
    }
    const size_t next = text.find_first_not_of(" \t\r\n", i + 1);
    if (next != absl::string_view::npos && text[next] == ':' && --count == 0) {
      return begin;
    }
  }
  return text.size();
}

class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(absl::string_view text, OnDuplicate on_duplicate, Json& root)
      : text_(text), on_duplicate_(on_duplicate), root_(root) {}

  bool null() override { return Leaf(nullptr); }
  bool boolean(bool value) override { return Leaf(value); }
  bool number_integer(number_integer_t value) override { return Leaf(value); }
  bool number_unsigned(number_unsigned_t value) override { return Leaf(value); }
  bool number_float(number_float_t value, const string_t&) override {
    return Leaf(value);
  }
  bool string(string_t& value) override { return Leaf(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // JSON has none.
  bool start_object(size_t) override { return Open(Json::object()); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    Level& level = open_.back();
    level.key = std::move(name);
    ++keys_;
    if (on_duplicate_ == OnDuplicate::kTakeLast) return true;
    const Members& members = level.node->get_ref<Json::object_t&>();
    if (PlaceOf(level, members) == members.size()) return true;
    fault_ = {.kind = JsonFault::Kind::kDuplicate,
              .offset = OffsetOfKey(text_, keys_)};
    return false;
  }

  bool parse_error(size_t bytes_read, const std::string&,
                   const nlohmann::detail::exception& error) override {
    fault_ = {.kind = absl::StrContains(error.what(), "UTF-8")
                          ? JsonFault::Kind::kEncoding
                          : JsonFault::Kind::kSyntax,
              .offset = bytes_read == 0 ? 0 : bytes_read - 1};
    return false;
  }

  const JsonFault& fault() const { return fault_; }

 private:
  using Members = Json::object_t::Container;

  // Objects of so few members are searched through.
  static constexpr size_t kFew = 16;

  // An object or array that is being filled. Its own place cannot move: nothing
  // is added to what encloses it.
  struct Level {
    Json* node;
    std::string key;
    absl::flat_hash_map<std::string, size_t> index;  // If it has more than few.
  };

  bool Leaf(Json value) {
    Add(std::move(value));
    return true;
  }
  bool Open(Json value) {
    if (open_.size() == kMaxJsonDepth) {
      fault_ = {.kind = JsonFault::Kind::kDepth};
      return false;
    }
    open_.push_back({.node = &Add(std::move(value))});
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  Json& Add(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    Level& level = open_.back();
    if (level.node->is_array()) {
      level.node->push_back(std::move(value));
      return level.node->back();
    }
    Members& members = level.node->get_ref<Json::object_t&>();
    const size_t place = PlaceOf(level, members);
    if (place < members.size()) {
      return members[place].second = std::move(value);
    }
    return members.emplace_back(std::move(level.key), std::move(value)).second;
  }

  // Where the level's key stands; the end if it is new.
  static size_t PlaceOf(Level& level, const Members& members) {
    if (members.size() < kFew) {
      size_t i = 0;
      while (i < members.size() && members[i].first != level.key) ++i;
      return i;
    }
    if (level.index.empty()) {
      for (size_t i = 0; i < members.size(); ++i) {
        level.index.emplace(members[i].first, i);
      }
    }
    return level.index.emplace(level.key, members.size()).first->second;
  }

  const absl::string_view text_;
  const OnDuplicate on_duplicate_;
  Json& root_;
  std::vector<Level> open_;
  int64_t keys_ = 0;  // Of the text so far.
  JsonFault fault_;
};

std::optional<JsonFault> Parse(absl::string_view text, OnDuplicate on_duplicate,
                               Json& tree) {
  TreeBuilder builder(text, on_duplicate, tree);
  if (Json::sax_parse(text.begin(), text.end(), &builder)) return std::nullopt;
  tree = Json(Json::value_t::discarded);
  return builder.fault();
}

}  // namespace

std::optional<JsonFault> ParseJsonTree(absl::string_view text, Json& tree) {
  return Parse(text, OnDuplicate::kFault, tree);
}

Json ParseJsonText(absl::string_view text) {
  Json tree;
  Parse(text, OnDuplicate::kTakeLast, tree);
  return tree;
}

}  // namespace ft
