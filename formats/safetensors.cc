// SPDX-License-Identifier: Apache-2.0

#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "common/status.h"
#include "formats/json.h"
#include "formats/pickle.h"

namespace ft {
namespace {

constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kMaxDims = 8;
constexpr size_t kMaxNameBytes = 256;

std::string Quoted(absl::string_view name) {
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(name.substr(0, 300)),
                      "\"");
}

// What the header says of a tensor, offsets relative to the data area.
struct Entry {
  std::string name;
  std::optional<DType> dtype;
  bool has_shape = false;
  std::vector<int64_t> shape;
  bool has_data_offsets = false;
  std::vector<int64_t> data_offsets;
};

// Walks the header once, without building a tree of it.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string fault;

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override {
    return Unexpected("a negative number");
  }
  bool number_float(number_float_t, const string_t&) override {
    return Unexpected("a number that is not an integer");
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ != At::kShape && at_ != At::kOffsets) return Unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail("a number over 2^63");
    }
    std::vector<int64_t>& numbers =
        at_ == At::kShape ? entries.back().shape : entries.back().data_offsets;
    const int64_t limit = at_ == At::kShape ? kMaxDims : 2;
    if (static_cast<int64_t>(numbers.size()) == limit) {
      return Fail(absl::StrCat("more than ", limit, " numbers"));
    }
    numbers.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (at_ == At::kMetadata) {
      metadata[key_] = value;
      return true;
    }
    if (at_ != At::kTensor || key_ != "dtype") return Unexpected("a string");
    entries.back().dtype = DTypeFromName(value);
    if (!entries.back().dtype) {
      return Fail(absl::StrCat("unknown element type ", Quoted(value)));
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (at_ == At::kStart) {
      at_ = At::kTop;
      return true;
    }
    if (at_ != At::kTop) return Unexpected("an object");
    if (key_ == "__metadata__") {
      at_ = At::kMetadata;
      return true;
    }
    entries.emplace_back().name = key_;
    at_ = At::kTensor;
    return true;
  }

  bool end_object() override {
    if (at_ == At::kTensor) {
      key_.clear();
      const Entry& entry = entries.back();
      if (!entry.dtype || !entry.has_shape || !entry.has_data_offsets) {
        return Fail("dtype, shape or data_offsets is missing");
      }
    }
    at_ = at_ == At::kTop ? At::kDone : At::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ != At::kTensor) return Unexpected("an array");
    if (key_ == "shape") {
      entries.back().has_shape = true;
      at_ = At::kShape;
    } else if (key_ == "data_offsets") {
      entries.back().has_data_offsets = true;
      at_ = At::kOffsets;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    at_ = At::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    key_ = name;
    if (at_ == At::kTop) return TopKey(name);
    if (at_ == At::kMetadata) {
      if (metadata.contains(name)) return Fail("the key stands twice");
      return true;
    }
    const Entry& entry = entries.back();
    const bool again = name == "dtype"   ? entry.dtype.has_value()
                       : name == "shape" ? entry.has_shape
                                         : entry.has_data_offsets;
    if (name != "dtype" && name != "shape" && name != "data_offsets") {
      return Fail(absl::StrCat("unknown key ", Quoted(name)));
    }
    return again ? Fail("the key stands twice") : true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    fault = absl::StrCat("the header is not valid JSON at byte ", position);
    return false;
  }

 private:
  enum class At { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kDone };

  bool TopKey(const std::string& name) {
    if (name.empty() || name.size() > kMaxNameBytes) {
      return Fail(absl::StrCat("names have 1 to ", kMaxNameBytes, " bytes"));
    }
    if (!names_.insert(name).second) return Fail("the name stands twice");
    return true;
  }

  bool Fail(absl::string_view what) {
    fault = "header: ";
    if (at_ == At::kTensor || at_ == At::kShape || at_ == At::kOffsets) {
      absl::StrAppend(&fault, "tensor ", Quoted(entries.back().name), ": ");
    } else if (at_ == At::kMetadata) {
      absl::StrAppend(&fault, "__metadata__: ");
    }
    if (!key_.empty()) absl::StrAppend(&fault, Quoted(key_), ": ");
    absl::StrAppend(&fault, what);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    return Fail(absl::StrCat(what, " in the wrong place"));
  }

  At at_ = At::kStart;
  std::string key_;
  absl::flat_hash_set<std::string> names_;
};

// The bytes of an entry, with every product checked.
absl::StatusOr<int64_t> BytesOf(const Entry& entry) {
  int64_t bytes = SizeOf(*entry.dtype);
  for (const int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) {
      return absl::InvalidArgumentError("shape: more than 2^63 bytes");
    }
  }
  return bytes;
}

// Every byte of the data area belongs to exactly one tensor.
absl::Status CheckCover(const std::vector<Entry>& entries, int64_t data_bytes) {
  int64_t end = 0;
  for (const Entry& entry : entries) {
    const std::vector<int64_t>& offsets = entry.data_offsets;
    const std::string where = absl::StrCat("tensor ", Quoted(entry.name));
    if (offsets.size() != 2 || offsets[0] > offsets[1]) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": data_offsets is not [begin, end]"));
    }
    FT_ASSIGN_OR_RETURN(const int64_t bytes, BytesOf(entry), where);
    if (offsets[1] - offsets[0] != bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": data_offsets hold ", offsets[1] - offsets[0],
                       " bytes, dtype and shape say ", bytes));
    }
    if (offsets[0] != end) {
      return absl::InvalidArgumentError(absl::StrCat(
          where,
          offsets[0] < end ? ": overlaps another, begins at "
                           : ": leaves a hole before it, begins at ",
          offsets[0], ", the one before ends at ", end));
    }
    end = offsets[1];
  }
  if (end != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tensors end at byte ", end, " of the data, the file at ",
        data_bytes, end > data_bytes ? ": cut off" : ": bytes too many"));
  }
  return absl::OkStatus();
}

absl::StatusOr<HeaderReader> ReadHeader(const MappedFile& file,
                                        int64_t& data_begin) {
  char head[16] = {};
  const int64_t head_bytes = std::min<int64_t>(file.size(), sizeof(head));
  FT_RETURN_IF_ERROR(file.ReadAt(0, {head, static_cast<size_t>(head_bytes)}));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, head, sizeof(header_bytes));
  if (head_bytes < 9 || head[8] != '{') {
    FT_RETURN_IF_ERROR(RefusePickleBytes(
        file.path(), {head, static_cast<size_t>(head_bytes)}));
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": not a safetensors file: no header at byte 8"));
  }
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": the header has ", header_bytes,
                     " bytes, the limit is ", kMaxHeaderBytes));
  }
  if (static_cast<int64_t>(header_bytes) > file.size() - 8) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": the header has ", header_bytes,
        " bytes, the file only ", file.size() - 8, " after its length"));
  }

  std::string text(header_bytes, '\0');
  FT_RETURN_IF_ERROR(file.ReadAt(8, {text.data(), text.size()}));
  HeaderReader header;
  if (!nlohmann::json::sax_parse(text, &header)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", header.fault));
  }
  data_begin = 8 + static_cast<int64_t>(header_bytes);
  return header;
}

}  // namespace

int64_t TensorInfo::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         std::multiplies<>());
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  FT_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  int64_t data_begin = 0;
  FT_ASSIGN_OR_RETURN(HeaderReader header, ReadHeader(mapped, data_begin));
  std::vector<Entry>& entries = header.entries;
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) {
                     return a.data_offsets < b.data_offsets;
                   });
  FT_RETURN_IF_ERROR(CheckCover(entries, mapped.size() - data_begin), path);

  FT_RETURN_IF_ERROR(mapped.Map());
  SafetensorsFile file(std::move(mapped));
  file.metadata_ = std::move(header.metadata);
  file.tensors_.reserve(entries.size());
  const auto data = file.file_.bytes().subspan(data_begin);
  for (Entry& entry : entries) {
    const int64_t begin = entry.data_offsets[0];
    const int64_t end = entry.data_offsets[1];
    TensorView view;
    view.name = std::move(entry.name);
    view.dtype = *entry.dtype;
    view.shape = std::move(entry.shape);
    view.bytes = data.subspan(begin, end - begin);
    file.index_[view.name] = file.tensors_.size();
    file.tensors_.push_back(std::move(view));
  }
  return file;
}

const TensorView* SafetensorsFile::Find(absl::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

absl::StatusOr<const TensorView*> SafetensorsFile::Get(
    absl::string_view name) const {
  if (const TensorView* tensor = Find(name)) return tensor;
  return absl::NotFoundError(
      absl::StrCat(path(), ": no tensor ", Quoted(name)));
}

void SafetensorsFile::Forget(const TensorView& tensor) const {
  file_.Forget(tensor.bytes);
}

}  // namespace ft
