// SPDX-License-Identifier: Apache-2.0

#include "model/quantize_model.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/bitsandbytes.h"
#include "formats/hf_directory.h"
#include "formats/model_writer.h"
#include "model/packed_weight.h"

namespace ft {
namespace {

bool IsLinearWeight(const ParameterSpec& parameter) {
  return parameter.role == ParameterRole::kLinearWeight;
}

// What is written, in forward order.
absl::StatusOr<std::vector<TensorInfo>> Layout(const HfDirectory& model,
                                               const Nf4Quantization& options) {
  std::vector<TensorInfo> infos;
  for (const ParameterSpec& parameter : model.spec.Parameters()) {
    FT_ASSIGN_OR_RETURN(const TensorView* view,
                        model.weights.Get(parameter.name));
    if (!IsLinearWeight(parameter)) {
      infos.push_back(*view);
      continue;
    }
    for (TensorInfo& info : StoredNf4Infos(view->name, view->shape, view->dtype,
                                           options.double_quant)) {
      infos.push_back(std::move(info));
    }
  }
  return infos;
}

// Linears compute in what they were stored as.
DType ComputeDType(const HfDirectory& model) {
  for (const ParameterSpec& parameter : model.spec.Parameters()) {
    if (!IsLinearWeight(parameter)) continue;
    const DType dtype = model.weights.Find(parameter.name)->dtype;
    return dtype == DType::kF64 ? DType::kF32 : dtype;
  }
  return DType::kF32;
}

absl::Status WriteWeights(const HfDirectory& model,
                          const Nf4Quantization& options,
                          const std::string& out,
                          const ImportProgressFn& progress) {
  FT_ASSIGN_OR_RETURN(const std::vector<TensorInfo> infos,
                      Layout(model, options));
  FT_ASSIGN_OR_RETURN(ModelWriter writer, ModelWriter::Create(out, infos));
  ImportProgress state;
  for (const TensorView* view : model.weights.tensors()) {
    state.total_bytes += view->size_bytes();
  }
  for (const ParameterSpec& parameter : model.spec.Parameters()) {
    const TensorView* view = model.weights.Find(parameter.name);
    state.what = view->name;
    if (progress) progress(state);
    if (IsLinearWeight(parameter)) {
      FT_ASSIGN_OR_RETURN(const PackedWeight packed,
                          QuantizeTensor(*view, options));
      FT_RETURN_IF_ERROR(
          WriteStoredNf4(view->name, packed.AsStored(view->dtype), writer));
    } else {
      FT_RETURN_IF_ERROR(writer.Append(view->name, view->bytes));
    }
    model.weights.Forget(*view);
    state.done_bytes += view->size_bytes();
  }
  return writer.Finish();
}

}  // namespace

absl::Status QuantizeModel(const std::string& dir, const std::string& out_dir,
                           const Nf4Quantization& options,
                           const ImportProgressFn& progress) {
  FT_ASSIGN_OR_RETURN(const HfDirectory model, OpenHfDirectory(dir));
  if (model.spec.quantization) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir,
                     ": is stored in 4 bits already; name the directory of the "
                     "original"));
  }
  FT_ASSIGN_OR_RETURN(
      const std::string config,
      ReadRegularFile(JoinPath(dir, "config.json"), kMaxConfigBytes));
  return PublishDirectory(out_dir, [&](const std::string& out) -> absl::Status {
    FT_RETURN_IF_ERROR(WriteWeights(model, options, out, progress), dir);
    FT_RETURN_IF_ERROR(CopyModelText(dir, out));
    return WriteFileAtomic(
        JoinPath(out, "config.json"),
        WithNf4Config(config, ComputeDType(model), options.double_quant));
  });
}

}  // namespace ft
