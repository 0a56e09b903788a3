// SPDX-License-Identifier: Apache-2.0

#include "bench/step_case.h"

#include <cstring>
#include <span>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status.h"
#include "data/dataset.h"
#include "formats/hf_directory.h"
#include "formats/peft_adapter.h"
#include "kernels/philox.h"
#include "model/transformer.h"
#include "text/model_text.h"
#include "train/adapter_export.h"

namespace ft::bench {
namespace {

constexpr int64_t kFixedRows = 100;  // 25 steps of cases 1 and 2.
constexpr int64_t kFixedTokens = 128;
constexpr int64_t kFixedSequences = 4;
constexpr int64_t kChatSequences = 8;
constexpr float kSupervisedShare = 0.3f;
constexpr int64_t kMaxTextBytes = 1 << 20;

std::string CasePath(const std::string& dir, int number) {
  return JoinPath(dir, absl::StrCat("case", number, ".safetensors"));
}

template <typename T>
TensorBytes TensorOf(const std::string& name, DType dtype,
                     const std::vector<T>& values) {
  return {{name, dtype, {static_cast<int64_t>(values.size())}},
          std::as_bytes(std::span(values))};
}

absl::Status WriteCase(const std::string& path, const StepCase& c) {
  std::vector<int64_t> ids, cu_seqlens = {0};
  std::vector<uint8_t> learned;
  for (const TokenizedExample& row : c.rows) {
    ids.insert(ids.end(), row.ids.begin(), row.ids.end());
    learned.insert(learned.end(), row.learned.begin(), row.learned.end());
    cu_seqlens.push_back(static_cast<int64_t>(ids.size()));
  }
  return WriteSafetensors(
      path,
      std::vector<TensorBytes>{TensorOf("ids", DType::kI64, ids),
                               TensorOf("learned", DType::kU8, learned),
                               TensorOf("cu_seqlens", DType::kI64, cu_seqlens)},
      {{"sequences", absl::StrCat(c.sequences)}});
}

// Rows of kFixedTokens tokens, one after another. The mask is a function of the
// token's place.
absl::StatusOr<StepCase> FixedCase(const ModelText& text,
                                   const std::string& path, bool is_sparse) {
  FT_ASSIGN_OR_RETURN(const std::string words, ReadFile(path, kMaxTextBytes));
  FT_ASSIGN_OR_RETURN(const Encoding encoding, text.tokenizer.Encode(words));
  if (static_cast<int64_t>(encoding.ids.size()) < kFixedTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": too short for one row"));
  }
  StepCase c{.sequences = kFixedSequences};
  const int64_t rows = std::min(
      kFixedRows, static_cast<int64_t>(encoding.ids.size()) / kFixedTokens);
  for (int64_t row = 0; row < rows; ++row) {
    TokenizedExample& example = c.rows.emplace_back();
    for (int64_t t = 0; t < kFixedTokens; ++t) {
      const auto at = static_cast<uint64_t>(row * kFixedTokens + t);
      example.ids.push_back(static_cast<int32_t>(encoding.ids[at]));
      example.learned.push_back(!is_sparse || UniformOf(Philox(0, at, 0)[0]) <
                                                  kSupervisedShare);
    }
  }
  return c;
}

absl::StatusOr<StepCase> ChatCase(const ModelText& text,
                                  const std::string& path) {
  FT_ASSIGN_OR_RETURN(
      Dataset dataset,
      LoadDataset({.files = {{.path = path, .format = RowFormat::kAlpaca}}},
                  text));
  return StepCase{.rows = std::move(dataset.train),
                  .sequences = kChatSequences};
}

absl::Status WriteAdapter(const std::string& model_dir,
                          const std::string& dir) {
  FT_ASSIGN_OR_RETURN(HfDirectory files, OpenHfDirectory(model_dir));
  FT_ASSIGN_OR_RETURN(const auto model, Transformer::Load(std::move(files)));
  FT_RETURN_IF_ERROR(
      model->AddLora({.lora_rank = kLoraRank, .alpha = kLoraAlpha}));
  v1::JobSpec spec;
  spec.mutable_adaptation()->mutable_lora()->set_rank(kLoraRank);
  spec.mutable_adaptation()->mutable_lora()->set_alpha(kLoraAlpha);
  return ExportAdapter(*model, spec, dir).status();
}

// The elements of tensor `name`, which must be a list of T.
template <typename T>
absl::StatusOr<std::vector<T>> Values(const SafetensorsFile& file,
                                      const char* name, DType dtype) {
  FT_ASSIGN_OR_RETURN(const TensorView* view, file.Get(name));
  if (view->dtype != dtype || view->shape.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", name, " is no list of ", NameOf(dtype),
                     "; prepare the cases again"));
  }
  std::vector<T> values(static_cast<size_t>(view->numel()));
  std::memcpy(values.data(), view->bytes.data(), view->bytes.size());
  return values;
}

}  // namespace

absl::Status PrepareCases(const std::string& model_dir, const std::string& data,
                          const std::string& out) {
  FT_ASSIGN_OR_RETURN(const ModelText text, LoadModelText(model_dir));
  FT_RETURN_IF_ERROR(MakeDirs(out));
  const std::string wiki = JoinPath(data, "wiki.txt");
  FT_ASSIGN_OR_RETURN(const StepCase dense, FixedCase(text, wiki, false));
  FT_ASSIGN_OR_RETURN(const StepCase sparse, FixedCase(text, wiki, true));
  FT_ASSIGN_OR_RETURN(const StepCase chat,
                      ChatCase(text, JoinPath(data, "alpaca_en_200.json")));
  FT_RETURN_IF_ERROR(WriteCase(CasePath(out, 1), dense));
  FT_RETURN_IF_ERROR(WriteCase(CasePath(out, 2), sparse));
  FT_RETURN_IF_ERROR(WriteCase(CasePath(out, 3), chat));
  return WriteAdapter(model_dir, JoinPath(out, "adapter"));
}

absl::StatusOr<StepCase> ReadCase(const std::string& dir, int number) {
  FT_ASSIGN_OR_RETURN(const SafetensorsFile file,
                      SafetensorsFile::Open(CasePath(dir, number)));
  FT_ASSIGN_OR_RETURN(const auto ids,
                      Values<int64_t>(file, "ids", DType::kI64));
  FT_ASSIGN_OR_RETURN(const auto learned,
                      Values<uint8_t>(file, "learned", DType::kU8));
  FT_ASSIGN_OR_RETURN(const auto cu_seqlens,
                      Values<int64_t>(file, "cu_seqlens", DType::kI64));
  StepCase c;
  const auto sequences = file.metadata().find("sequences");
  if (sequences == file.metadata().end() ||
      !absl::SimpleAtoi(sequences->second, &c.sequences) ||
      learned.size() != ids.size() || cu_seqlens.empty() ||
      cu_seqlens.back() != static_cast<int64_t>(ids.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": no case; prepare the cases again"));
  }
  for (size_t row = 0; row + 1 < cu_seqlens.size(); ++row) {
    TokenizedExample& example = c.rows.emplace_back();
    for (int64_t t = cu_seqlens[row]; t < cu_seqlens[row + 1]; ++t) {
      example.ids.push_back(static_cast<int32_t>(ids[t]));
      example.learned.push_back(learned[t] != 0);
    }
  }
  return c;
}

}  // namespace ft::bench
