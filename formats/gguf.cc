// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>

#include "absl/strings/escaping.h"
#include "common/check.h"
#include "common/status.h"
#include "formats/pickle.h"

namespace ft {
namespace {

constexpr uint64_t kMaxTensors = uint64_t{1} << 20;
constexpr uint64_t kMaxKeys = uint64_t{1} << 16;
constexpr uint64_t kMaxStringBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxNameBytes = 256;
constexpr int64_t kDefaultAlignment = 32;

enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Bytes of a value of fixed size; 0 for the others.
size_t FixedBytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T Load(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

absl::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Quoted(absl::string_view name) {
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(name.substr(0, 300)),
                      "\"");
}

// Nothing if the value is no integer, or does not fit.
std::optional<int64_t> LoadInt(uint32_t type,
                               std::span<const std::byte> bytes) {
  switch (type) {
    case kUint8:
      return Load<uint8_t>(bytes);
    case kInt8:
      return Load<int8_t>(bytes);
    case kUint16:
      return Load<uint16_t>(bytes);
    case kInt16:
      return Load<int16_t>(bytes);
    case kUint32:
      return Load<uint32_t>(bytes);
    case kInt32:
      return Load<int32_t>(bytes);
    case kInt64:
      return Load<int64_t>(bytes);
    case kUint64: {
      const uint64_t value = Load<uint64_t>(bytes);
      if (value >> 63 != 0) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

int64_t GgufTensor::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         std::multiplies<>());
}

// Walks the mapped bytes; every read is checked against what is left.
class GgufParser {
 public:
  explicit GgufParser(GgufFile& file)
      : file_(file), all_(file.file_.bytes()), rest_(all_) {}

  absl::Status Parse() {
    uint64_t tensors = 0;
    uint64_t keys = 0;
    FT_RETURN_IF_ERROR(ParseHeader(tensors, keys));
    for (uint64_t i = 0; i < keys; ++i) FT_RETURN_IF_ERROR(ParseKey());
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < tensors; ++i) {
      FT_RETURN_IF_ERROR(ParseTensor(offsets));
    }
    return PlaceTensors(offsets);
  }

 private:
  absl::Status ParseHeader(uint64_t& tensors, uint64_t& keys) {
    const absl::string_view head =
        AsText(all_.first(std::min<size_t>(all_.size(), 16)));
    if (head.substr(0, 4) != "GGUF") {
      FT_RETURN_IF_ERROR(RefusePickleBytes("content", head));
      return absl::InvalidArgumentError(
          "not a GGUF file: it does not begin with \"GGUF\"");
    }
    rest_ = rest_.subspan(4);
    uint32_t version = 0;
    FT_RETURN_IF_ERROR(Read(version));
    if (version == 0x03000000) {
      return absl::UnimplementedError("GGUF in big-endian order");
    }
    if (version != 3) {
      return absl::UnimplementedError(
          absl::StrCat("GGUF version ", version, "; version 3 is supported"));
    }
    FT_RETURN_IF_ERROR(Read(tensors));
    FT_RETURN_IF_ERROR(Read(keys));
    FT_RETURN_IF_ERROR(CheckCount("tensors", tensors, kMaxTensors));
    return CheckCount("metadata keys", keys, kMaxKeys);
  }

  static absl::Status CheckCount(absl::string_view what, uint64_t count,
                                 uint64_t limit) {
    if (count <= limit) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat(count, " ", what, ", the limit is ", limit));
  }

  absl::Status Take(uint64_t bytes, std::span<const std::byte>& taken) {
    if (bytes > rest_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("cut off: ", bytes, " bytes wanted at byte ",
                       all_.size() - rest_.size(), " of ", all_.size()));
    }
    taken = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return absl::OkStatus();
  }

  template <typename T>
  absl::Status Read(T& value) {
    std::span<const std::byte> bytes;
    FT_RETURN_IF_ERROR(Take(sizeof(T), bytes));
    value = Load<T>(bytes);
    return absl::OkStatus();
  }

  absl::Status ReadString(uint64_t limit, absl::string_view& text) {
    uint64_t size = 0;
    FT_RETURN_IF_ERROR(Read(size));
    FT_RETURN_IF_ERROR(CheckCount("bytes in a string", size, limit));
    std::span<const std::byte> bytes;
    FT_RETURN_IF_ERROR(Take(size, bytes));
    text = AsText(bytes);
    return absl::OkStatus();
  }

  absl::Status ParseKey() {
    absl::string_view key;
    FT_RETURN_IF_ERROR(ReadString(kMaxNameBytes, key), "metadata key");
    GgufFile::Value value;
    FT_RETURN_IF_ERROR(Read(value.type), Quoted(key));
    FT_RETURN_IF_ERROR(
        value.type == kArray ? ParseArray(value) : ParseScalar(value),
        "metadata ", Quoted(key));
    if (!file_.values_.emplace(key, value).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata ", Quoted(key), ": stands twice"));
    }
    return absl::OkStatus();
  }

  absl::Status ParseScalar(GgufFile::Value& value) {
    if (value.type == kString) {
      absl::string_view text;
      FT_RETURN_IF_ERROR(ReadString(kMaxStringBytes, text));
      value.bytes = std::as_bytes(std::span(text.data(), text.size()));
      return absl::OkStatus();
    }
    const size_t size = FixedBytes(value.type);
    if (size == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown value type ", value.type));
    }
    return Take(size, value.bytes);
  }

  absl::Status ParseArray(GgufFile::Value& value) {
    FT_RETURN_IF_ERROR(Read(value.element_type));
    FT_RETURN_IF_ERROR(Read(value.count));
    FT_RETURN_IF_ERROR(
        CheckCount("array elements", value.count, kMaxArrayElements));
    const std::span<const std::byte> begin = rest_;
    if (value.element_type == kString) {
      absl::string_view text;
      for (uint64_t i = 0; i < value.count; ++i) {
        FT_RETURN_IF_ERROR(ReadString(kMaxStringBytes, text));
      }
      value.bytes = begin.first(begin.size() - rest_.size());
      return absl::OkStatus();
    }
    const size_t size = FixedBytes(value.element_type);
    if (size == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "arrays of value type ", value.element_type, " are not supported"));
    }
    return Take(value.count * size, value.bytes);
  }

  absl::Status ParseTensor(std::vector<uint64_t>& offsets) {
    absl::string_view name;
    FT_RETURN_IF_ERROR(ReadString(kMaxNameBytes, name), "tensor name");
    GgufTensor tensor;
    tensor.name = std::string(name);
    FT_RETURN_IF_ERROR(ParseShapeAndType(tensor), "tensor ", Quoted(name));
    uint64_t offset = 0;
    FT_RETURN_IF_ERROR(Read(offset), "tensor ", Quoted(name));
    offsets.push_back(offset);
    if (!file_.index_.emplace(name, file_.tensors_.size()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(name), ": stands twice"));
    }
    file_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::Status ParseShapeAndType(GgufTensor& tensor) {
    uint32_t dims = 0;
    FT_RETURN_IF_ERROR(Read(dims));
    if (dims > kMaxDims) {
      return absl::InvalidArgumentError(
          absl::StrCat(dims, " dimensions, the limit is ", kMaxDims));
    }
    int64_t numel = 1;
    for (uint32_t i = 0; i < dims; ++i) {
      uint64_t dim = 0;
      FT_RETURN_IF_ERROR(Read(dim));
      if (dim == 0 || dim >> 62 != 0 ||
          __builtin_mul_overflow(numel, static_cast<int64_t>(dim), &numel) ||
          numel >> 58 != 0) {
        return absl::InvalidArgumentError(absl::StrCat("a dimension of ", dim));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dim));
    }
    uint32_t type = 0;
    FT_RETURN_IF_ERROR(Read(type));
    const std::optional<GgufTypeInfo> info = FindGgufType(type);
    if (!info) {
      return absl::UnimplementedError(
          absl::StrCat("type ", GgufTypeName(type), " (", type,
                       ") is not supported; supported: ", kGgufTypeNames));
    }
    const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (row % info->block_elements != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "rows of ", row, " elements are no whole blocks of ", info->name));
    }
    tensor.type = info->type;
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Alignment() const {
    if (!file_.Has("general.alignment")) return kDefaultAlignment;
    FT_ASSIGN_OR_RETURN(const int64_t alignment,
                        file_.GetInt("general.alignment"));
    if (alignment < 32 || alignment > 4096 || alignment % 8 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("general.alignment: ", alignment,
                       " is not a multiple of 8 in [32, 4096]"));
    }
    return alignment;
  }

  // Gives each tensor its bytes; they must lie inside and apart.
  absl::Status PlaceTensors(const std::vector<uint64_t>& offsets) {
    FT_ASSIGN_OR_RETURN(const int64_t alignment, Alignment());
    const int64_t position = all_.size() - rest_.size();
    const int64_t start = (position + alignment - 1) / alignment * alignment;
    const int64_t size = all_.size();
    const uint64_t data_bytes = std::max<int64_t>(0, size - start);
    std::vector<size_t> order(offsets.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return offsets[a] < offsets[b]; });
    uint64_t end = 0;
    for (const size_t i : order) {
      GgufTensor& tensor = file_.tensors_[i];
      const GgufTypeInfo& info = InfoOf(tensor.type);
      const uint64_t bytes =
          tensor.numel() / info.block_elements * info.block_bytes;
      const std::string where = absl::StrCat("tensor ", Quoted(tensor.name));
      if (offsets[i] % alignment != 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            where, ": offset ", offsets[i], " is not aligned to ", alignment));
      }
      if (offsets[i] < end) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": overlaps another tensor"));
      }
      if (offsets[i] > data_bytes || bytes > data_bytes - offsets[i]) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": cut off: ", bytes, " bytes at ", offsets[i],
                         " of ", data_bytes));
      }
      tensor.bytes = all_.subspan(start + offsets[i], bytes);
      end = offsets[i] + bytes;
    }
    return absl::OkStatus();
  }

  GgufFile& file_;
  const std::span<const std::byte> all_;
  std::span<const std::byte> rest_;
};

absl::StatusOr<GgufFile> GgufFile::Open(const std::string& path) {
  FT_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  FT_RETURN_IF_ERROR(mapped.Map());
  GgufFile file(std::move(mapped));
  FT_RETURN_IF_ERROR(GgufParser(file).Parse(), path);
  return file;
}

const GgufTensor* GgufFile::Find(absl::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

bool GgufFile::Has(absl::string_view key) const {
  return values_.contains(key);
}

absl::StatusOr<const GgufFile::Value*> GgufFile::FindValue(
    absl::string_view key) const {
  const auto found = values_.find(key);
  if (found != values_.end()) return &found->second;
  return absl::NotFoundError(absl::StrCat("metadata ", key, ": is missing"));
}

namespace {
absl::Status WrongType(absl::string_view key, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("metadata ", key, ": is not ", wanted));
}
}  // namespace

absl::StatusOr<int64_t> GgufFile::GetInt(absl::string_view key) const {
  FT_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  const std::optional<int64_t> number = LoadInt(value->type, value->bytes);
  if (!number) return WrongType(key, "an integer");
  return *number;
}

absl::StatusOr<double> GgufFile::GetFloat(absl::string_view key) const {
  FT_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->type == kFloat32) return Load<float>(value->bytes);
  if (value->type == kFloat64) return Load<double>(value->bytes);
  return WrongType(key, "a floating-point number");
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key) const {
  FT_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->type != kBool) return WrongType(key, "a boolean");
  return Load<uint8_t>(value->bytes) != 0;
}

absl::StatusOr<absl::string_view> GgufFile::GetString(
    absl::string_view key) const {
  FT_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->type != kString) return WrongType(key, "a string");
  return AsText(value->bytes);
}

absl::StatusOr<std::vector<absl::string_view>> GgufFile::GetStrings(
    absl::string_view key) const {
  FT_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->type != kArray || value->element_type != kString) {
    return WrongType(key, "an array of strings");
  }
  // The lengths were checked when the file was opened.
  std::vector<absl::string_view> strings;
  strings.reserve(value->count);
  std::span<const std::byte> rest = value->bytes;
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint64_t size = Load<uint64_t>(rest);
    strings.push_back(AsText(rest.subspan(sizeof(size), size)));
    rest = rest.subspan(sizeof(size) + size);
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInts(
    absl::string_view key) const {
  FT_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->type != kArray) return WrongType(key, "an array of integers");
  const size_t size = FixedBytes(value->element_type);
  std::vector<int64_t> numbers;
  if (size != 0) numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> number =
        size == 0 ? std::nullopt
                  : LoadInt(value->element_type,
                            value->bytes.subspan(i * size, size));
    if (!number) return WrongType(key, "an array of integers");
    numbers.push_back(*number);
  }
  return numbers;
}

absl::StatusOr<int64_t> GgufFile::IntOr(absl::string_view key,
                                        int64_t missing) const {
  return Has(key) ? GetInt(key) : missing;
}

absl::StatusOr<double> GgufFile::FloatOr(absl::string_view key,
                                         double missing) const {
  return Has(key) ? GetFloat(key) : missing;
}

absl::StatusOr<bool> GgufFile::BoolOr(absl::string_view key,
                                      bool missing) const {
  return Has(key) ? GetBool(key) : missing;
}

std::vector<std::string> GgufFile::keys() const {
  std::vector<std::string> all;
  for (const auto& [key, value] : values_) all.push_back(key);
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace ft
