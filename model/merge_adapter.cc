// SPDX-License-Identifier: Apache-2.0

#include "model/merge_adapter.h"

#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/bitsandbytes.h"
#include "formats/hf_directory.h"
#include "formats/model_writer.h"
#include "formats/peft_adapter.h"
#include "model/packed_weight.h"
#include "model/spans.h"
#include "model/weights.h"

namespace ft {
namespace {

// A weight is merged by rows, so many elements at a time.
constexpr int64_t kPieceElements = int64_t{1} << 22;

// The update of one linear.
struct Update {
  at::Tensor A;  // [R, in]
  at::Tensor B;  // [out, R]
  double scale = 0;
};

// Squares of norms, summed over the linears of a block.
struct Squares {
  double wanted = 0, missed = 0;
};

absl::StatusOr<at::Tensor> TakeFactor(const PeftAdapter& adapter,
                                      const std::string& name,
                                      const std::vector<int64_t>& shape) {
  FT_ASSIGN_OR_RETURN(const TensorView* view, adapter.weights.Get(name));
  if (view->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        adapter.weights.path(), ": ", name, " is [",
        absl::StrJoin(view->shape, ", "), "], the base model wants [",
        absl::StrJoin(shape, ", "), "]"));
  }
  FT_ASSIGN_OR_RETURN(at::Tensor factor, TensorOf(*view),
                      adapter.weights.path());
  return factor;
}

// The updates by the name of the weight that they change.
absl::StatusOr<std::map<std::string, Update>> UpdatesOf(
    const PeftAdapter& adapter, const ModelSpec& spec) {
  const AdapterConfig& config = adapter.config;
  FT_RETURN_IF_ERROR(CheckTargets(config.target_modules, spec),
                     adapter.weights.path());
  std::map<std::string, Update> updates;
  for (const LinearSpec& linear : spec.Linears()) {
    if (!IsTarget(config.target_modules, linear.module)) continue;
    Update& update = updates[linear.module + ".weight"];
    FT_ASSIGN_OR_RETURN(update.A,
                        TakeFactor(adapter, LoraAName(linear.module),
                                   {config.lora_rank, linear.in_features}));
    FT_ASSIGN_OR_RETURN(update.B,
                        TakeFactor(adapter, LoraBName(linear.module),
                                   {linear.out_features, config.lora_rank}));
    update.scale = config.scale();
  }
  if (2 * updates.size() != adapter.weights.tensors().size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        adapter.weights.path(), ": holds ", adapter.weights.tensors().size(),
        " tensors, the base model has a place for ", 2 * updates.size()));
  }
  return updates;
}

// Rounded to `dtype`, as bytes of a file; `values` become what was written.
absl::StatusOr<std::vector<std::byte>> Rounded(std::span<float> values,
                                               DType dtype,
                                               absl::string_view name) {
  std::vector<std::byte> bytes(values.size() *
                               static_cast<size_t>(SizeOf(dtype)));
  if (dtype == DType::kF32) {
    const auto same = std::as_bytes(values);
    std::copy(same.begin(), same.end(), bytes.begin());
  } else {
    FT_CHECK(dtype == DType::kBF16);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t rounded = FloatToBfloat16(values[i]);
      std::memcpy(bytes.data() + i * sizeof(rounded), &rounded,
                  sizeof(rounded));
      values[i] = Bfloat16ToFloat(rounded);
    }
  }
  if (!IsFinite(values)) return NotFinite(name);
  return bytes;
}

class Merger {
 public:
  Merger(const HfDirectory& model, std::map<std::string, Update> updates,
         const std::optional<Nf4Quantization>& base, DType dtype)
      : model_(model),
        updates_(std::move(updates)),
        base_(base),
        dtype_(dtype) {}

  absl::Status Write(const std::string& out, int64_t max_shard_bytes,
                     const ImportProgressFn& progress) {
    std::vector<TensorInfo> infos;
    ImportProgress state;
    for (const ParameterSpec& parameter : model_.spec.Parameters()) {
      infos.push_back(
          {.name = parameter.name, .dtype = dtype_, .shape = parameter.shape});
      state.total_bytes += infos.back().size_bytes();
    }
    FT_ASSIGN_OR_RETURN(ModelWriter writer,
                        ModelWriter::Create(out, infos, max_shard_bytes));
    for (const ParameterSpec& parameter : model_.spec.Parameters()) {
      state.what = parameter.name;
      if (progress) progress(state);
      FT_RETURN_IF_ERROR(WriteOne(parameter, writer));
      state.done_bytes += parameter.numel() * SizeOf(dtype_);
    }
    return writer.Finish();
  }

  std::vector<LayerMerge> layers() const {
    std::vector<LayerMerge> layers;
    for (const auto& [layer, squares] : squares_) {
      layers.push_back(
          {.layer = layer,
           .error = squares.wanted == 0
                        ? 0
                        : std::sqrt(squares.missed / squares.wanted)});
    }
    return layers;
  }

 private:
  // W as the adapter knows it. `packed` keeps what it is made of.
  absl::StatusOr<at::Tensor> BaseWeight(const ParameterSpec& parameter,
                                        PackedWeight& packed) {
    const bool is_linear = parameter.role == ParameterRole::kLinearWeight;
    if (is_linear && IsStoredNf4(model_.weights, parameter.name)) {
      FT_ASSIGN_OR_RETURN(
          const StoredNf4 stored,
          ReadStoredNf4(model_.weights, parameter.name, parameter.shape));
      FT_ASSIGN_OR_RETURN(packed, UnpackStored(stored), "tensor ",
                          parameter.name);
    } else {
      FT_ASSIGN_OR_RETURN(const TensorView* view,
                          model_.weights.Get(parameter.name));
      if (!is_linear || !base_) return TensorOf(*view);
      FT_ASSIGN_OR_RETURN(packed, QuantizeTensor(*view, *base_));
    }
    packed.scratch = scratch_;
    return packed.Expand();
  }

  absl::Status WriteOne(const ParameterSpec& parameter, ModelWriter& writer) {
    PackedWeight packed;
    FT_ASSIGN_OR_RETURN(const at::Tensor weight, BaseWeight(parameter, packed));
    const auto found = updates_.find(parameter.name);
    const Update* update = found == updates_.end() ? nullptr : &found->second;
    const int64_t rows = weight.size(0);
    const int64_t width = rows == 0 ? 0 : weight.numel() / rows;
    const int64_t step =
        std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, width));
    for (int64_t begin = 0; begin < rows; begin += step) {
      const int64_t count = std::min(step, rows - begin);
      at::Tensor merged = weight.narrow(0, begin, count).clone();
      at::Tensor wanted;
      if (update != nullptr) {
        wanted = at::mm(update->B.narrow(0, begin, count), update->A)
                     .mul_(update->scale);
        merged.add_(wanted);
      }
      FT_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes,
                          Rounded(FloatsOf(merged), dtype_, parameter.name));
      FT_RETURN_IF_ERROR(writer.Append(parameter.name, bytes));
      if (update != nullptr) {
        Count(FloatsOf(merged), FloatsOf(weight.narrow(0, begin, count)),
              FloatsOf(wanted), squares_[parameter.layer]);
      }
    }
    for (const std::string& name : StoredNf4Names(parameter.name)) {
      if (const TensorView* view = model_.weights.Find(name)) {
        model_.weights.Forget(*view);
      }
    }
    return absl::OkStatus();
  }

  static void Count(std::span<const float> merged,
                    std::span<const float> before,
                    std::span<const float> wanted, Squares& squares) {
    for (size_t i = 0; i < merged.size(); ++i) {
      const double w = wanted[i];
      const double applied = static_cast<double>(merged[i]) - before[i];
      squares.wanted += w * w;
      squares.missed += (applied - w) * (applied - w);
    }
  }

  const HfDirectory& model_;
  const std::map<std::string, Update> updates_;
  const std::optional<Nf4Quantization> base_;
  const DType dtype_;
  const std::shared_ptr<WeightScratch> scratch_ =
      std::make_shared<WeightScratch>();
  std::map<int64_t, Squares> squares_;
};

// How the base lay for this adapter, and what the caller says against it.
absl::StatusOr<std::optional<Nf4Quantization>> ChooseBase(
    const HfDirectory& model, const PeftAdapter& adapter,
    const MergeOptions& options, std::vector<std::string>& warnings) {
  if (model.spec.quantization) {
    if (options.overrides_base && !options.base) {
      return absl::InvalidArgumentError(
          absl::StrCat(model.path,
                       ": is stored in 4 bits; for a merge with full weights "
                       "name the directory of the original"));
    }
    return model.spec.quantization;
  }
  if (!options.overrides_base) return adapter.base_quantization;
  if (adapter.base_quantization && adapter.base_quantization != options.base) {
    warnings.push_back(absl::StrCat(
        adapter.weights.path(),
        ": was trained on a base quantised in another way; what is merged "
        "computes something else"));
  }
  return options.base;
}

}  // namespace

absl::StatusOr<MergeReport> MergeAdapter(const std::string& model_dir,
                                         const std::string& adapter_dir,
                                         const std::string& out_dir,
                                         const MergeOptions& options,
                                         const ImportProgressFn& progress) {
  c10::NoGradGuard no_grad;
  FT_ASSIGN_OR_RETURN(const HfDirectory model, OpenHfDirectory(model_dir));
  FT_ASSIGN_OR_RETURN(const PeftAdapter adapter, OpenPeftAdapter(adapter_dir));
  FT_ASSIGN_OR_RETURN(auto updates, UpdatesOf(adapter, model.spec));
  FT_ASSIGN_OR_RETURN(
      const std::string config,
      ReadRegularFile(JoinPath(model_dir, "config.json"), kMaxConfigBytes));
  MergeReport report;
  FT_ASSIGN_OR_RETURN(report.base,
                      ChooseBase(model, adapter, options, report.warnings));
  Merger merger(model, std::move(updates), report.base, options.dtype);
  FT_RETURN_IF_ERROR(
      PublishDirectory(out_dir, [&](const std::string& out) -> absl::Status {
        FT_RETURN_IF_ERROR(merger.Write(out, options.max_shard_bytes, progress),
                           model_dir);
        FT_RETURN_IF_ERROR(CopyModelText(model_dir, out));
        return WriteFileAtomic(
            JoinPath(out, "config.json"),
            WithoutQuantizationConfig(config, options.dtype));
      }));
  report.layers = merger.layers();
  return report;
}

}  // namespace ft
