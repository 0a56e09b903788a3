// SPDX-License-Identifier: Apache-2.0

#include "jobspec/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace ft {
namespace {

// Thrown through the parser to stop it; the violation is recorded already.
struct Stop {};

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
    if (level.is_duplicate) {
      violations_.Add(key, "stands here twice; remove one", mark.line + 1);
    }
    level.has_key = true;
    level.key = key;
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
        node = &level.node->fields.emplace_back(level.key, YamlNode()).second;
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
  Builder builder(violations);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    Violations ignored;
    Builder second(ignored);
    if (parser.HandleNextDocument(second)) {
      violations.Add("", "the file holds more than one document");
    }
  } catch (const YAML::Exception& error) {
    violations.Add("", absl::StrCat("not valid YAML: ", error.msg),
                   error.mark.line + 1);
  } catch (const Stop&) {
    // Said already.
  }
  return builder.Take();
}

}  // namespace ft
