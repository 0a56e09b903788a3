// SPDX-License-Identifier: Apache-2.0
//
// The goldens of tests/golden as tensors.

#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/check.h"
#include "formats/hf_directory.h"
#include "formats/safetensors.h"
#include "model/transformer.h"

namespace ft::testing {

inline std::string GoldenPath(const std::string& name) {
  return std::string(FT_TEST_SOURCE_DIR "/tests/golden/") + name;
}

inline nlohmann::json GoldenJson(const std::string& name) {
  std::ifstream file(GoldenPath(name));
  FT_CHECK(file.good());
  return nlohmann::json::parse(file);
}

// A safetensors file whose tensors are asked for by name.
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::string& name)
      : file_(SafetensorsFile::Open(GoldenPath(name)).value()) {}

  at::Tensor operator[](const std::string& name) const {
    const TensorView* view = file_.Get(name).value();
    const at::ScalarType type = view->dtype == DType::kI64   ? at::kLong
                                : view->dtype == DType::kI32 ? at::kInt
                                                             : at::kFloat;
    at::Tensor tensor = at::empty(view->shape, at::TensorOptions().dtype(type));
    FT_CHECK(static_cast<size_t>(tensor.nbytes()) == view->bytes.size());
    std::memcpy(tensor.data_ptr(), view->bytes.data(), view->bytes.size());
    return tensor;
  }
  std::vector<int64_t> Ints(const std::string& name) const {
    const at::Tensor tensor = (*this)[name].to(at::kLong).contiguous();
    const int64_t* begin = tensor.data_ptr<int64_t>();
    return {begin, begin + tensor.numel()};
  }
  const SafetensorsFile& file() const { return file_; }

 private:
  SafetensorsFile file_;
};

inline std::unique_ptr<Transformer> LoadGoldenModel(const std::string& name) {
  return Transformer::Load(
             OpenHfDirectory(GoldenPath("models/" + name)).value())
      .value();
}

// Padded rows as packed segments, with the rows that have a label: of token t
// the label of t + 1 in the same row.
struct Supervised {
  PackedBatch batch;
  std::vector<int64_t> rows, labels;
};

inline Supervised PackRows(const at::Tensor& ids, const at::Tensor& mask,
                           const at::Tensor& labels) {
  std::vector<std::vector<int64_t>> segments;
  Supervised packed;
  int64_t first = 0;
  for (int64_t row = 0; row < ids.size(0); ++row) {
    const int64_t length = mask[row].sum().item<int64_t>();
    std::vector<int64_t> segment;
    for (int64_t t = 0; t < length; ++t) {
      segment.push_back(ids[row][t].item<int64_t>());
      if (t + 1 == length) continue;
      const int64_t label = labels[row][t + 1].item<int64_t>();
      if (label == -100) continue;
      packed.rows.push_back(first + t);
      packed.labels.push_back(label);
    }
    first += length;
    segments.push_back(segment);
  }
  packed.batch = PackedBatch::Of(segments);
  return packed;
}

}  // namespace ft::testing
