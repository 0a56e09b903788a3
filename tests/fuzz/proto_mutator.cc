// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/proto_mutator.h"

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <limits>

namespace ft::fuzz {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Deeper than this nothing is added.
constexpr int kMaxDepth = 8;

class MessageMutator {
 public:
  MessageMutator(const std::vector<std::string>& words, Random& random)
      : words_(words), random_(random) {}

  void Mutate(Message& message, int depth) {
    const Descriptor& type = *message.GetDescriptor();
    if (type.field_count() == 0) return;
    const FieldDescriptor& field = *type.field(Below(type.field_count()));
    if (field.is_repeated()) {
      MutateRepeated(message, field, depth);
    } else if (Below(8) == 0) {
      message.GetReflection()->ClearField(&message, &field);
    } else if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      SetSingle(message, field);
    } else if (depth < kMaxDepth) {
      Mutate(*message.GetReflection()->MutableMessage(&message, &field),
             depth + 1);
    }
  }

 private:
  int Below(int limit) { return static_cast<int>(random_() % limit); }

  int64_t Number() {
    static constexpr int64_t kTelling[] = {-1,
                                           0,
                                           1,
                                           2,
                                           3,
                                           16,
                                           255,
                                           10'000,
                                           1 << 20,
                                           std::numeric_limits<int32_t>::max(),
                                           std::numeric_limits<int64_t>::max(),
                                           std::numeric_limits<int64_t>::min()};
    return Below(4) == 0 ? kTelling[Below(std::size(kTelling))] : Below(6);
  }
  double Real() {
    static constexpr double kTelling[] = {
        -1,
        0,
        1e-9,
        0.5,
        1,
        1e300,
        std::numeric_limits<double>::infinity(),
        std::numeric_limits<double>::quiet_NaN()};
    return kTelling[Below(std::size(kTelling))];
  }
  std::string Text(std::string old) {
    if (old.empty() || Below(3) > 0) {
      return words_.empty() ? "" : words_[Below(words_.size())];
    }
    old[Below(old.size())] = static_cast<char>(Below(128));
    return old;
  }
  int EnumNumber(const EnumDescriptor& type) {
    // Open enums: one from a newer version, too.
    return Below(8) == 0 ? 1000
                         : type.value(Below(type.value_count()))->number();
  }

  void SetSingle(Message& message, const FieldDescriptor& field) {
    const Reflection& reflection = *message.GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.SetInt32(&message, &field,
                                   static_cast<int32_t>(Number()));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.SetInt64(&message, &field, Number());
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection.SetUInt32(&message, &field,
                                    static_cast<uint32_t>(Number()));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.SetUInt64(&message, &field,
                                    static_cast<uint64_t>(Number()));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.SetDouble(&message, &field, Real());
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.SetFloat(&message, &field,
                                   static_cast<float>(Real()));
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection.SetBool(&message, &field, Below(2) == 1);
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection.SetEnumValue(&message, &field,
                                       EnumNumber(*field.enum_type()));
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.SetString(
            &message, &field, Text(reflection.GetString(message, &field)));
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return;
    }
  }

  void MutateRepeated(Message& message, const FieldDescriptor& field,
                      int depth) {
    const Reflection& reflection = *message.GetReflection();
    const int size = reflection.FieldSize(message, &field);
    if (size > 0 && Below(3) == 0) {
      return reflection.RemoveLast(&message, &field);
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (depth >= kMaxDepth) return;
      Message& item = size > 0 && Below(2) == 0
                          ? *reflection.MutableRepeatedMessage(&message, &field,
                                                               Below(size))
                          : *reflection.AddMessage(&message, &field);
      for (int i = 0; i < 3; ++i) Mutate(item, depth + 1);
      return;
    }
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.AddInt32(&message, &field,
                                   static_cast<int32_t>(Number()));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.AddInt64(&message, &field, Number());
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.AddUInt64(&message, &field,
                                    static_cast<uint64_t>(Number()));
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection.AddEnumValue(&message, &field,
                                       EnumNumber(*field.enum_type()));
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.AddString(&message, &field, Text(""));
      default:
        return;
    }
  }

  const std::vector<std::string>& words_;
  Random& random_;
};

}  // namespace

void MutateMessage(Message& message, const std::vector<std::string>& words,
                   Random& random) {
  MessageMutator(words, random).Mutate(message, /*depth=*/0);
}

}  // namespace ft::fuzz
