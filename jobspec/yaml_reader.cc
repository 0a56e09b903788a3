// SPDX-License-Identifier: Apache-2.0

#include "jobspec/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "formats/json.h"

namespace ft {
namespace {

// Thrown through the parser to stop it; the violation is recorded already.
struct Stop {};

// Length of the UTF-8 character at the beginning; 0: there is none.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const size_t length = byte(0) < 0x80             ? 1
                        : (byte(0) & 0xE0) == 0xC0 ? 2
                        : (byte(0) & 0xF0) == 0xE0 ? 3
                        : (byte(0) & 0xF8) == 0xF0 ? 4
                                                   : 0;
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t code = length < 2 ? byte(0) : byte(0) & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool is_good = code >= kLeast[length] && code <= 0x10FFFF &&
                       (code < 0xD800 || code > 0xDFFF);
  return is_good ? length : 0;
}

// yaml-cpp takes the byte 4 for the end of the file and guesses encodings: what
// is no plain UTF-8 text does not reach it.
bool IsPlainText(absl::string_view text, Violations& violations) {
  int line = 1;
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8Length(text.substr(at));
    const char c = text[at];
    if (length == 0) {
      violations.Add("", "is no UTF-8 text; save the file as UTF-8", line);
      return false;
    }
    if ((static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\r' &&
         c != '\t') ||
        c == 0x7F) {
      violations.Add("",
                     absl::StrCat("holds the control character ",
                                  static_cast<int>(c), "; remove it"),
                     line);
      return false;
    }
    line += c == '\n' ? 1 : 0;
    at += length;
  }
  return true;
}

// yaml-cpp's words for a tab say little.
absl::string_view HintAt(absl::string_view text, int line) {
  for (; line > 1; --line) text.remove_prefix(text.find('\n') + 1);
  const size_t begin = text.find_first_not_of(' ');
  return begin != absl::string_view::npos && text[begin] == '\t'
             ? "; a tab stands here, YAML wants spaces"
             : "";
}

// Builds the tree from events: no alias is ever followed, and every limit is
// checked before memory is taken.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(Violations& violations) : violations_(violations) {}

  YamlNode Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    CheckAnchor(mark, anchor);
    Add(mark, YamlNode::Kind::kNull);
    Close();
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(mark, "aliases are not allowed; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor, const std::string& value) override {
    CheckAnchor(mark, anchor);
    // yaml-cpp gives quoted scalars the tag "!".
    CheckTag(mark, tag);
    if (!open_.empty() && open_.back().node->kind == YamlNode::Kind::kMap &&
        !open_.back().has_key) {
      TakeKey(mark, value);
      return;
    }
    YamlNode& node = Add(mark, YamlNode::Kind::kScalar);
    node.scalar = value;
    node.is_quoted = tag == "!";
    Close();
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { Pop(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag,
                  YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Pop(); }

 private:
  // A list or map that is being filled.
  struct Level {
    YamlNode* node;
    bool has_key = false;
    std::string key;
    bool is_duplicate = false;
    std::set<std::string> keys;
  };

  [[noreturn]] void Fail(const YAML::Mark& mark, absl::string_view what) {
    violations_.Add("", what, mark.line + 1);
    throw Stop();
  }
  void CheckAnchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) Fail(mark, "anchors are not allowed; remove the &name");
  }
  void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      Fail(mark, absl::StrCat("tags are not allowed; remove ", tag));
    }
  }
  void TakeKey(const YAML::Mark& mark, const std::string& key) {
    Level& level = open_.back();
    if (key == "<<") Fail(mark, "merge keys are not allowed");
    if (key.size() > 256) Fail(mark, "the key is longer than 256 bytes");
    level.is_duplicate = !level.keys.insert(key).second;
    level.has_key = true;
    level.key = key;
    if (level.is_duplicate) {
      violations_.Add(Path(), "stands here twice; remove one", mark.line + 1);
    }
  }
  // Where we are, as violations name it.
  std::string Path() const {
    std::string path;
    for (const Level& level : open_) {
      if (level.node->kind == YamlNode::Kind::kList) {
        // The item that is open is the last one.
        absl::StrAppend(&path, "[", level.node->items.size() - 1, "]");
      } else {
        absl::StrAppend(&path, path.empty() ? "" : ".", level.key);
      }
    }
    return path;
  }
  // The place for the next node: the root, the next item, the value of the key.
  YamlNode& Add(const YAML::Mark& mark, YamlNode::Kind kind) {
    if (++nodes_ > kMaxYamlNodes) {
      Fail(mark, absl::StrCat("more than ", kMaxYamlNodes, " values"));
    }
    YamlNode* node = &root_;
    if (!open_.empty()) {
      Level& level = open_.back();
      if (level.node->kind == YamlNode::Kind::kList) {
        node = &level.node->items.emplace_back();
      } else {
        if (!level.has_key) Fail(mark, "a key must be a plain word");
        node = &level.node->fields.emplace_back(YamlField{level.key, {}}).value;
        level.has_key = false;
      }
    }
    node->kind = kind;
    node->line = mark.line + 1;
    return *node;
  }
  void Open(const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor, YamlNode::Kind kind) {
    CheckAnchor(mark, anchor);
    CheckTag(mark, tag);
    if (static_cast<int>(open_.size()) >= kMaxYamlDepth) {
      Fail(mark, absl::StrCat("nested deeper than ", kMaxYamlDepth, " levels"));
    }
    YamlNode& node = Add(mark, kind);
    open_.push_back({.node = &node});
  }
  void Pop() {
    open_.pop_back();
    Close();
  }
  // A node is complete; a duplicate key's value is dropped.
  void Close() {
    if (open_.empty() || !open_.back().is_duplicate) return;
    open_.back().node->fields.pop_back();
    open_.back().is_duplicate = false;
  }

  Violations& violations_;
  YamlNode root_;
  std::vector<Level> open_;
  int nodes_ = 0;
};

}  // namespace

YamlNode ReadYaml(absl::string_view text, Violations& violations) {
  if (text.size() > kMaxYamlBytes) {
    violations.Add(
        "", absl::StrCat("the file has ", text.size(), " bytes; at most ",
                         kMaxYamlBytes, " are read"));
    return {};
  }
  if (!IsPlainText(text, violations)) return {};
  Builder builder(violations);
  bool is_first = true;
  const auto more_than_one = [&] {
    violations.Add("", "the file holds more than one document; keep one");
  };
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    is_first = false;
    Violations ignored;
    Builder second(ignored);
    if (parser.HandleNextDocument(second)) more_than_one();
  } catch (const YAML::Exception& error) {
    violations.Add("",
                   absl::StrCat("not valid YAML: ", error.msg,
                                HintAt(text, error.mark.line + 1)),
                   error.mark.line + 1);
  } catch (const Stop&) {
    if (!is_first) more_than_one();  // Else it is said already.
  }
  return builder.Take();
}

}  // namespace ft
