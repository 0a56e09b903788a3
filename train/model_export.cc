// SPDX-License-Identifier: Apache-2.0

#include "train/model_export.h"

#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/file.h"
#include "common/no_space.h"
#include "common/status.h"
#include "formats/dtype.h"
#include "formats/hf_directory.h"
#include "formats/model_import.h"
#include "formats/model_writer.h"
#include "model/spans.h"
#include "train/local_file.h"

namespace ft {
namespace {

constexpr char kConfigName[] = "config.json";

// The type in which an element is written; fp64 was read as fp32.
DType WrittenType(DType source) {
  return source == DType::kF64 ? DType::kF32 : source;
}

// The files of rank 0.
class ModelFiles {
 public:
  static absl::StatusOr<ModelFiles> Create(
      const std::vector<NamedWeight>& weights, const std::string& source_dir,
      const std::string& dir) {
    if (Exists(dir)) FT_RETURN_IF_ERROR(RemoveTree(dir));
    FT_RETURN_IF_ERROR(MakeDirs(dir));
    FT_ASSIGN_OR_RETURN(
        const std::string config,
        ReadFile(JoinPath(source_dir, kConfigName), kMaxConfigBytes));
    FT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(dir, kConfigName), config));
    FT_RETURN_IF_ERROR(CopyModelText(source_dir, dir));
    std::vector<TensorInfo> infos;
    for (const NamedWeight& weight : weights) {
      infos.push_back({.name = weight.name,
                       .dtype = WrittenType(weight.source_dtype),
                       .shape = weight.tensor.sizes().vec()});
    }
    FT_ASSIGN_OR_RETURN(ModelWriter writer, ModelWriter::Create(dir, infos));
    return ModelFiles(std::move(writer));
  }

  absl::Status Write(const NamedWeight& weight) {
    const at::Tensor values = weight.tensor.detach().contiguous();
    const std::span<const float> floats = FloatsOf(values);
    const DType dtype = WrittenType(weight.source_dtype);
    if (dtype == DType::kF32) {
      return writer_.Append(weight.name, std::as_bytes(floats));
    }
    std::vector<uint16_t> halves(floats.size());
    std::ranges::transform(
        floats, halves.begin(),
        dtype == DType::kBF16 ? FloatToBfloat16 : FloatToHalf);
    return writer_.Append(weight.name, std::as_bytes(std::span(halves)));
  }

  absl::Status Finish() { return writer_.Finish(); }

 private:
  explicit ModelFiles(ModelWriter writer) : writer_(std::move(writer)) {}

  ModelWriter writer_;
};

// Every rank learns how rank 0 fared.
absl::Status Agree(const absl::Status& mine, Collective& ranks) {
  enum Outcome : uint8_t { kDone, kNoSpace, kFailed };
  const uint8_t outcome = mine.ok()         ? kDone
                          : IsNoSpace(mine) ? kNoSpace
                                            : kFailed;
  std::vector<uint8_t> all(ranks.size());
  FT_RETURN_IF_ERROR(ranks.AllGather(std::as_writable_bytes(std::span(all)),
                                     std::as_bytes(std::span(&outcome, 1))),
                     "whether the model is written");
  if (!mine.ok() || all[0] == kDone) return mine;
  if (all[0] == kNoSpace) return ErrnoStatus(ENOSPC, "rank 0");
  return absl::AbortedError("rank 0 could not write the model");
}

absl::StatusOr<v1::ExportFiles> Describe(const std::string& dir) {
  v1::ExportFiles files;
  files.set_dir(dir);
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ModelFileNames(dir));
  for (const std::string& name : names) {
    FT_ASSIGN_OR_RETURN(*files.add_files(), DescribeFile(dir, name));
  }
  return files;
}

}  // namespace

absl::StatusOr<v1::ExportFiles> ExportModel(ShardedModel& model,
                                            Collective& ranks,
                                            const std::string& source_dir,
                                            const std::string& dir) {
  const std::vector<NamedWeight> weights = model.model().Weights();
  std::optional<ModelFiles> files;
  absl::Status status;
  if (ranks.rank() == 0) {
    absl::StatusOr<ModelFiles> created =
        ModelFiles::Create(weights, source_dir, dir);
    status = created.status();
    if (created.ok()) files = *std::move(created);
  }
  // Whatever becomes of the files, each rank gathers each unit.
  size_t next = 0;
  const auto write = [&](int64_t unit) {
    for (; next < weights.size() && weights[next].unit == unit; ++next) {
      if (files.has_value() && status.ok()) {
        status = files->Write(weights[next]);
      }
    }
  };
  FT_RETURN_IF_ERROR(model.ForEachUnit(write));
  if (files.has_value() && status.ok()) status = files->Finish();
  FT_RETURN_IF_ERROR(Agree(status, ranks));
  return ranks.rank() == 0 ? Describe(dir) : v1::ExportFiles();
}

}  // namespace ft
