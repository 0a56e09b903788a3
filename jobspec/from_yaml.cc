// SPDX-License-Identifier: Apache-2.0

#include "jobspec/from_yaml.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "jobspec/defaults.h"
#include "jobspec/internal_fields.h"
#include "jobspec/model_root.h"
#include "jobspec/suggest.h"
#include "jobspec/validate.h"

namespace ft {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Kind = YamlNode::Kind;

// "ON_NAN_STOP" of OnNan -> "stop".
std::string EnumWord(const EnumDescriptor& type, int index) {
  std::string prefix;
  for (const char c : type.name()) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(c);
  }
  return absl::AsciiStrToLower(
      type.value(index)->name().substr(prefix.size() + 1));
}

std::vector<std::string> EnumWords(const EnumDescriptor& type) {
  std::vector<std::string> words;
  for (int i = 1; i < type.value_count(); ++i) {  // Without UNSPECIFIED.
    words.push_back(EnumWord(type, i));
  }
  return words;
}

// So many suggestions help; each costs a comparison with every word.
constexpr size_t kMaxSuggestions = 100;

std::string DidYouMean(absl::string_view word,
                       const std::vector<std::string>& words,
                       const Violations& violations) {
  if (violations.list().size() >= kMaxSuggestions) return "";
  const std::string nearest = Nearest(word, words);
  if (!nearest.empty()) {
    return absl::StrCat("; did you mean \"", nearest, "\"?");
  }
  return absl::StrCat("; there is ", absl::StrJoin(words, ", "));
}

// Numbers whose 0 means "not given" in the message: written out it would be
// replaced by the default, and nobody would know.
bool IsZeroUnset(const FieldDescriptor& field) {
  static constexpr absl::string_view kFields[] = {
      "ft.v1.Dataset.weight",
      "ft.v1.Data.cutoff_len",
      "ft.v1.Lora.rank",
      "ft.v1.Lora.alpha",
      "ft.v1.Schedule.learning_rate",
      "ft.v1.Batch.sequences",
      "ft.v1.Batch.micro",
      "ft.v1.Determinism.lanes",
      "ft.v1.Determinism.threads",
      "ft.v1.Resources.cpus_per_rank",
      "ft.v1.Checkpointing.snapshot_every_steps",
      "ft.v1.Keep.last",
      "ft.v1.Numeric.max_skips",
      "ft.v1.Retry.max_without_progress"};
  return std::find(std::begin(kFields), std::end(kFields), field.full_name()) !=
         std::end(kFields);
}

constexpr absl::string_view kNoZero =
    "must be above 0; leave it out for its default";

class Reader {
 public:
  Reader(std::map<std::string, int>& lines, Violations& violations)
      : lines_(lines), violations_(violations) {}

  void ReadMessage(const YamlNode& node, const std::string& path,
                   Message& message);

 private:
  void ReadField(const YamlNode& node, const std::string& path,
                 const FieldDescriptor& field, Message& message);
  void ReadSingle(const YamlNode& node, const std::string& path,
                  const FieldDescriptor& field, Message& message, bool append);
  void ReadWord(const YamlNode& node, const std::string& path,
                Message& message);
  void ReadStringMap(const YamlNode& node, const std::string& path,
                     const FieldDescriptor& field, Message& message);
  void ReadInteger(const YamlNode& node, const std::string& path,
                   const FieldDescriptor& field, Message& message);
  // Whether it is written as a text where a number or a truth belongs; says so.
  bool IsText(const YamlNode& node, const std::string& path);
  void Wrong(const YamlNode& node, const std::string& path,
             absl::string_view what) {
    violations_.Add(path, what, node.line);
  }

  std::map<std::string, int>& lines_;
  Violations& violations_;
};

std::string Describe(const YamlNode& node) {
  switch (node.kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return absl::StrCat("\"", node.scalar.substr(0, 60), "\"");
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a mapping";
  }
  return "";
}

std::vector<std::string> FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) {
    if (!IsInternalField(*type.field(i)))
      names.push_back(type.field(i)->name());
  }
  return names;
}

absl::StatusOr<google::protobuf::Duration> ParseDuration(
    absl::string_view text) {
  static constexpr std::pair<char, int64_t> kUnits[] = {
      {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  for (const auto& [unit, seconds] : kUnits) {
    int64_t count = 0;
    if (!text.empty() && text.back() == unit &&
        absl::SimpleAtoi(text.substr(0, text.size() - 1), &count) &&
        count >= 0 && count <= int64_t{100} * 366 * 86400 / seconds) {
      google::protobuf::Duration duration;
      duration.set_seconds(count * seconds);
      return duration;
    }
  }
  return absl::InvalidArgumentError("no duration");
}

void Reader::ReadMessage(const YamlNode& node, const std::string& path,
                         Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  if (&type == google::protobuf::Duration::descriptor()) {
    const absl::StatusOr<google::protobuf::Duration> duration =
        ParseDuration(node.kind == Kind::kScalar ? node.scalar : "");
    if (!duration.ok()) {
      Wrong(node, path,
            absl::StrCat(Describe(node),
                         " is no duration; write for example 90s, 30m, 12h "
                         "or 7d"));
      return;
    }
    message.CopyFrom(*duration);
    return;
  }
  if (&type == v1::IntRange::descriptor() && node.kind == Kind::kScalar) {
    ReadInteger(node, path, *type.FindFieldByName("min"), message);
    ReadInteger(node, path, *type.FindFieldByName("max"), message);
    return;
  }
  if (node.kind == Kind::kScalar) return ReadWord(node, path, message);
  if (node.kind != Kind::kMap) {
    Wrong(node, path,
          absl::StrCat(Describe(node), " where a mapping of ",
                       absl::StrJoin(FieldNames(type), ", "), " belongs"));
    return;
  }
  for (const auto& [key, value] : node.fields) {
    const std::string field_path = path.empty() ? key : path + "." + key;
    const FieldDescriptor* field = type.FindFieldByName(key);
    if (field == nullptr || IsInternalField(*field)) {
      Wrong(value, field_path,
            absl::StrCat("unknown field",
                         DidYouMean(key, FieldNames(type), violations_)));
      continue;
    }
    lines_[field_path] = value.line;
    if (const auto* oneof = field->real_containing_oneof();
        oneof != nullptr && value.kind != Kind::kNull) {
      const FieldDescriptor* other =
          message.GetReflection()->GetOneofFieldDescriptor(message, oneof);
      if (other != nullptr && other != field) {
        Wrong(
            value, field_path,
            absl::StrCat("excludes ", other->name(), "; give one of the two"));
        continue;
      }
    }
    ReadField(value, field_path, *field, message);
  }
}

// A bare word: the member of the message's oneof, without options.
void Reader::ReadWord(const YamlNode& node, const std::string& path,
                      Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  std::vector<std::string> words;
  const FieldDescriptor* named = nullptr;
  if (type.real_oneof_decl_count() == 1) {
    for (int i = 0; i < type.oneof_decl(0)->field_count(); ++i) {
      const FieldDescriptor* member = type.oneof_decl(0)->field(i);
      if (member->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      words.push_back(member->name());
      if (member->name() == node.scalar) named = member;
    }
  }
  if (named != nullptr) {
    message.GetReflection()->MutableMessage(&message, named);
    return;
  }
  if (words.empty()) {
    Wrong(node, path,
          absl::StrCat(Describe(node), " where a mapping of ",
                       absl::StrJoin(FieldNames(type), ", "), " belongs"));
  } else {
    Wrong(node, path,
          absl::StrCat(Describe(node), " is unknown",
                       DidYouMean(node.scalar, words, violations_)));
  }
}

void Reader::ReadStringMap(const YamlNode& node, const std::string& path,
                           const FieldDescriptor& field, Message& message) {
  if (node.kind != Kind::kMap) {
    return Wrong(node, path,
                 absl::StrCat(Describe(node),
                              " where a mapping of words to "
                              "texts belongs"));
  }
  for (const auto& [key, value] : node.fields) {
    if (value.kind != Kind::kScalar) {
      Wrong(value, path + "." + key, "must be a text");
      continue;
    }
    Message* entry = message.GetReflection()->AddMessage(&message, &field);
    const Descriptor& type = *entry->GetDescriptor();
    entry->GetReflection()->SetString(entry, type.map_key(), key);
    entry->GetReflection()->SetString(entry, type.map_value(), value.scalar);
  }
}

void Reader::ReadField(const YamlNode& node, const std::string& path,
                       const FieldDescriptor& field, Message& message) {
  if (node.kind == Kind::kNull) return;  // "gguf: null" is the default.
  if (field.is_map()) return ReadStringMap(node, path, field, message);
  if (!field.is_repeated()) {
    return ReadSingle(node, path, field, message, /*append=*/false);
  }
  // One item may stand without its list.
  if (node.kind != Kind::kList) {
    return ReadSingle(node, path, field, message, /*append=*/true);
  }
  for (size_t i = 0; i < node.items.size(); ++i) {
    const std::string item_path = absl::StrCat(path, "[", i, "]");
    lines_[item_path] = node.items[i].line;
    ReadSingle(node.items[i], item_path, field, message, /*append=*/true);
  }
}

// Digits, and a sign before them.
bool IsWhole(absl::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    text.remove_prefix(1);
  }
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
}

bool Reader::IsText(const YamlNode& node, const std::string& path) {
  if (!node.is_quoted) return false;
  Wrong(node, path,
        absl::StrCat(Describe(node), " is a text; write it without quotes"));
  return true;
}

void Reader::ReadInteger(const YamlNode& node, const std::string& path,
                         const FieldDescriptor& field, Message& message) {
  if (IsText(node, path)) return;
  const Reflection& reflection = *message.GetReflection();
  int64_t value = 0;
  const bool is_wide = field.cpp_type() == FieldDescriptor::CPPTYPE_INT64;
  if (!absl::SimpleAtoi(node.scalar, &value) && !IsWhole(node.scalar)) {
    return Wrong(node, path,
                 absl::StrCat(Describe(node), " is no whole number"));
  }
  // What does not fit into 64 bits is left at the nearest that does.
  const int64_t most = is_wide ? std::numeric_limits<int64_t>::max() - 1
                               : std::numeric_limits<int32_t>::max();
  if (value > most || value < -most) {
    return Wrong(node, path,
                 absl::StrCat(Describe(node), " is far out of range"));
  }
  if (value == 0 && IsZeroUnset(field)) return Wrong(node, path, kNoZero);
  if (is_wide) {
    reflection.SetInt64(&message, &field, value);
  } else {
    reflection.SetInt32(&message, &field, static_cast<int32_t>(value));
  }
}

void Reader::ReadSingle(const YamlNode& node, const std::string& path,
                        const FieldDescriptor& field, Message& message,
                        bool append) {
  const Reflection& reflection = *message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return ReadMessage(node, path,
                       append ? *reflection.AddMessage(&message, &field)
                              : *reflection.MutableMessage(&message, &field));
  }
  if (node.kind != Kind::kScalar) {
    return Wrong(node, path,
                 absl::StrCat(Describe(node), " where one value belongs"));
  }
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (append) {
        reflection.AddString(&message, &field, node.scalar);
      } else {
        reflection.SetString(&message, &field, node.scalar);
      }
      return;
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      if (node.scalar == "auto" && field.name() == "micro") return;
      return ReadInteger(node, path, field, message);
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      if (IsText(node, path)) return;
      double value = 0;
      if (!absl::SimpleAtod(node.scalar, &value) || !std::isfinite(value)) {
        return Wrong(node, path, absl::StrCat(Describe(node), " is no number"));
      }
      if (value == 0 && IsZeroUnset(field)) return Wrong(node, path, kNoZero);
      reflection.SetDouble(&message, &field, value);
      return;
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      if (IsText(node, path)) return;
      if (node.scalar != "true" && node.scalar != "false") {
        return Wrong(
            node, path,
            absl::StrCat(Describe(node), " is neither true nor false"));
      }
      reflection.SetBool(&message, &field, node.scalar == "true");
      return;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const EnumDescriptor& type = *field.enum_type();
      const std::vector<std::string> words = EnumWords(type);
      for (size_t i = 0; i < words.size(); ++i) {
        if (words[i] == node.scalar) {
          reflection.SetEnum(&message, &field,
                             type.value(static_cast<int>(i) + 1));
          return;
        }
      }
      if (type.full_name() == "ft.v1.DataFormat" &&
          (node.scalar == "csv" || node.scalar == "parquet")) {
        return violations_.AddNotYet(
            path,
            absl::StrCat(Describe(node),
                         " is not supported yet; convert the file to JSON "
                         "Lines, and write alpaca, sharegpt or openai"),
            node.line);
      }
      return Wrong(node, path,
                   absl::StrCat(Describe(node), " is unknown",
                                DidYouMean(node.scalar, words, violations_)));
    }
    default:
      return Wrong(node, path, "cannot be written in a job file");
  }
}

}  // namespace

bool IsInternalField(const FieldDescriptor& field) {
  const std::string& name = field.full_name();
  return name == "ft.v1.ModelSource.digest" || name == "ft.v1.Dataset.sha256" ||
         name == "ft.v1.Dataset.bytes" || name == "ft.v1.Validation.sha256" ||
         name == "ft.v1.Validation.bytes";
}

void SpecFromYaml(const YamlNode& root, v1::JobSpec& spec,
                  std::map<std::string, int>& lines, Violations& violations) {
  if (root.kind != Kind::kMap) {
    violations.Add("",
                   "the file holds no job; it must begin with schema: "
                   "ft.v1",
                   root.line);
    return;
  }
  Reader(lines, violations).ReadMessage(root, "", spec);
}

namespace {

// What other trainers read and we do not, by the file's name; read as JSON each
// of its lines would be an error.
std::string UnsupportedKind(absl::string_view file) {
  static constexpr std::pair<absl::string_view, absl::string_view> kKinds[] = {
      {".csv", "CSV"},
      {".tsv", "TSV"},
      {".parquet", "Parquet"},
      {".arrow", "Arrow"},
      {".txt", "plain text"}};
  for (const auto& [ending, kind] : kKinds) {
    if (absl::EndsWithIgnoreCase(file, ending)) return std::string(kind);
  }
  return "";
}

void CheckFile(const std::string& folder, const std::string& path,
               const std::string& field, Violations& violations) {
  // Without a path, or with a URL, there is a complaint already.
  if (path.empty() || absl::StartsWith(path, "artifact:")) return;
  const std::string file = JoinPath(folder, path);
  if (!Exists(file)) {
    violations.Add(field, absl::StrCat("there is no file ", file,
                                       "; paths are relative to the job file"));
  } else if (IsDirectory(file)) {
    violations.Add(field, absl::StrCat(file, " is a folder; name a file"));
  } else if (const std::string kind = UnsupportedKind(file); !kind.empty()) {
    violations.Add(field,
                   absl::StrCat(file, ": ", kind,
                                " is not supported yet; convert it to JSON "
                                "or JSON Lines"));
  } else if (!std::filesystem::is_regular_file(file)) {
    // Reading a pipe or a device may have no end.
    violations.Add(field, absl::StrCat(file,
                                       " is no regular file; copy it "
                                       "into one"));
  }
}

void CheckFiles(const std::string& folder, const v1::JobSpec& spec,
                Violations& violations) {
  for (int i = 0; i < spec.data().train_size(); ++i) {
    CheckFile(folder, spec.data().train(i).path(),
              absl::StrCat("data.train[", i, "].path"), violations);
  }
  CheckFile(folder, spec.data().validation().path(), "data.validation.path",
            violations);
}

void CheckModel(const JobFilePlace& place, const v1::JobSpec& spec,
                Violations& violations) {
  const std::string& base = spec.model().base();
  if (base.empty() || absl::StartsWith(base, "artifact:") ||
      absl::StartsWith(base, "job:") ||
      IsDirectory(JoinPath(*place.model_root, base)) ||
      IsDirectory(JoinPath(place.folder, base))) {
    return;
  }
  std::vector<std::string> known;
  for (const std::string& name :
       ListDir(*place.model_root).value_or(std::vector<std::string>())) {
    if (IsModelName(name)) known.push_back(name);
  }
  violations.Add(
      "model.base",
      absl::StrCat("there is no model ", base, " under ", *place.model_root,
                   "; import it with ftctl model import",
                   known.empty() ? "" : DidYouMean(base, known, violations)));
}

}  // namespace

namespace {

// Reads and checks; the spec is as it was written, every violation in its
// place.
v1::JobSpec ReadSpec(absl::string_view text,
                     const std::optional<JobFilePlace>& place,
                     Violations& violations) {
  std::map<std::string, int> lines;
  v1::JobSpec spec;
  const YamlNode root = ReadYaml(text, violations);
  // A tree that is cut short would only give false complaints; a key that
  // stands twice cuts nothing.
  const bool is_cut = std::any_of(
      violations.list().begin(), violations.list().end(),
      [](const Violation& violation) { return violation.field.empty(); });
  if (!is_cut) {
    SpecFromYaml(root, spec, lines, violations);
    if (root.kind == Kind::kMap) {
      ValidateSpec(spec, SpecOrigin::kJobFile, violations);
      if (place.has_value()) CheckFiles(place->folder, spec, violations);
      if (place.has_value() && place->model_root.has_value()) {
        CheckModel(*place, spec, violations);
      }
    }
  }
  violations.Locate(lines);
  return spec;
}

}  // namespace

absl::StatusOr<v1::JobSpec> ParseJobFile(
    absl::string_view text, absl::string_view file_name,
    const std::optional<JobFilePlace>& place) {
  Violations violations;
  v1::JobSpec spec = ReadSpec(text, place, violations);
  if (!violations.empty()) return violations.ToStatus(file_name);
  ApplyDefaults(spec);
  return spec;
}

absl::StatusOr<v1::JobSpec> ParseJobFileToPlan(
    absl::string_view text, absl::string_view file_name,
    std::vector<std::string>& not_yet) {
  Violations violations;
  v1::JobSpec spec = ReadSpec(text, std::nullopt, violations);
  not_yet = violations.TakeNotYet(file_name);
  if (!violations.empty()) return violations.ToStatus(file_name);
  return spec;
}

FieldPlaces::FieldPlaces(absl::string_view text, absl::string_view file_name)
    : file_name_(file_name) {
  Violations told;  // By ParseJobFile.
  v1::JobSpec spec;
  const YamlNode root = ReadYaml(text, told);
  if (root.kind == Kind::kMap) SpecFromYaml(root, spec, lines_, told);
}

std::string FieldPlaces::Locate(absl::string_view fault) const {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(fault, absl::MaxSplits(": ", 1));
  Violations violations;
  violations.Add(parts.first, parts.second);
  violations.Locate(lines_);
  return violations.Text(file_name_);
}

}  // namespace ft
