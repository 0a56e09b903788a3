// SPDX-License-Identifier: Apache-2.0

#include "jobspec/to_yaml.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "jobspec/internal_fields.h"

namespace ft {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// In double quotes, with the escapes that YAML has.
std::string Quoted(absl::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < ' ' || c == 0x7F) {
      absl::StrAppend(&quoted, "\\x", absl::Hex(c, absl::kZeroPad2));
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

// Plain where YAML cannot mistake it, else in double quotes.
std::string Scalar(const std::string& text) {
  const std::string lower = absl::AsciiStrToLower(text);
  const bool is_plain = !text.empty() && absl::ascii_isalpha(text[0]) &&
                        lower != "true" && lower != "false" &&
                        lower != "null" && lower != "yes" && lower != "no" &&
                        std::all_of(text.begin(), text.end(), [](char c) {
                          return absl::ascii_isalnum(c) || c == '-' ||
                                 c == '_' || c == '.' || c == '/';
                        });
  return is_plain ? text : Quoted(text);
}

std::string EnumWord(const google::protobuf::EnumValueDescriptor& value) {
  size_t prefix = value.type()->name().size();
  for (size_t i = 1; i < value.type()->name().size(); ++i) {
    prefix += absl::ascii_isupper(value.type()->name()[i]) ? 1 : 0;
  }
  return absl::AsciiStrToLower(value.name().substr(prefix + 1));
}

// The shortest text that reads back as the same number.
std::string Number(double value) {
  for (int digits = 6; digits <= 17; ++digits) {
    char text[40];
    snprintf(text, sizeof(text), "%.*g", digits, value);
    double back = 0;
    if (absl::SimpleAtod(text, &back) && back == value) return text;
  }
  return absl::StrCat(value);
}

std::string DurationText(const google::protobuf::Duration& duration) {
  for (const auto& [unit, seconds] :
       {std::pair{"d", 86400}, std::pair{"h", 3600}, std::pair{"m", 60}}) {
    if (duration.seconds() > 0 && duration.seconds() % seconds == 0) {
      return absl::StrCat(duration.seconds() / seconds, unit);
    }
  }
  return absl::StrCat(duration.seconds(), "s");
}

class Writer {
 public:
  std::string Take() { return std::move(out_); }

  void Fields(const Message& message, int indent);

 private:
  void Value(const Message& message, const FieldDescriptor& field, int index,
             int indent);
  std::string Single(const Message& message, const FieldDescriptor& field,
                     int index) const;
  void Map(const Message& message, const FieldDescriptor& field, int indent);

  std::string out_;
};

std::string Writer::Single(const Message& message, const FieldDescriptor& field,
                           int index) const {
  const auto& reflection = *message.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return Scalar(repeated
                        ? reflection.GetRepeatedString(message, &field, index)
                        : reflection.GetString(message, &field));
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(reflection.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Number(reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumWord(*reflection.GetEnum(message, &field));
    default:
      return "";
  }
}

void Writer::Value(const Message& message, const FieldDescriptor& field,
                   int index, int indent) {
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    absl::StrAppend(&out_, " ", Single(message, field, index), "\n");
    return;
  }
  const auto& reflection = *message.GetReflection();
  const Message& child =
      field.is_repeated()
          ? reflection.GetRepeatedMessage(message, &field, index)
          : reflection.GetMessage(message, &field);
  if (child.GetDescriptor() == google::protobuf::Duration::descriptor()) {
    absl::StrAppend(
        &out_, " ",
        DurationText(static_cast<const google::protobuf::Duration&>(child)),
        "\n");
    return;
  }
  Writer inner;
  inner.Fields(child, indent);
  const std::string body = inner.Take();
  absl::StrAppend(&out_, body.empty() ? " {}\n" : "\n", body);
}

void Writer::Map(const Message& message, const FieldDescriptor& field,
                 int indent) {
  std::map<std::string, std::string> sorted;
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    const auto& type = *entry.GetDescriptor();
    sorted[entry.GetReflection()->GetString(entry, type.map_key())] =
        entry.GetReflection()->GetString(entry, type.map_value());
  }
  absl::StrAppend(&out_, "\n");
  for (const auto& [key, value] : sorted) {
    absl::StrAppend(&out_, std::string(indent, ' '), Scalar(key), ": ",
                    Scalar(value), "\n");
  }
}

void Writer::Fields(const Message& message, int indent) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (IsInternalField(*field)) continue;
    const std::string pad(indent, ' ');
    absl::StrAppend(&out_, pad, field->name(), ":");
    if (field->is_map()) {
      Map(message, *field, indent + 2);
    } else if (field->is_repeated()) {
      absl::StrAppend(&out_, "\n");
      for (int i = 0; i < message.GetReflection()->FieldSize(message, field);
           ++i) {
        absl::StrAppend(&out_, pad, "  -");
        Value(message, *field, i, indent + 4);
      }
    } else {
      Value(message, *field, 0, indent + 2);
    }
  }
}

}  // namespace

std::string SpecToYaml(const v1::JobSpec& spec) {
  Writer writer;
  writer.Fields(spec, 0);
  return writer.Take();
}

}  // namespace ft
