// SPDX-License-Identifier: Apache-2.0

#include "train/adapter_export.h"

#include <set>

#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/peft_adapter.h"
#include "model/weights.h"
#include "train/job.h"
#include "train/local_file.h"

namespace ft {

absl::StatusOr<v1::ExportFiles> ExportAdapter(const Transformer& model,
                                              const v1::JobSpec& spec,
                                              const std::string& dir) {
  FT_RETURN_IF_ERROR(MakeDirs(dir));
  std::vector<TensorBytes> tensors;
  std::vector<at::Tensor> alive;
  std::set<std::string> kinds;
  for (const NamedParameter& parameter : model.Trainables()) {
    absl::string_view module = parameter.name;
    const bool is_A = absl::ConsumeSuffix(&module, ".lora_A");
    if (!is_A) absl::ConsumeSuffix(&module, ".lora_B");
    alive.push_back(parameter.tensor.detach().contiguous());
    tensors.push_back(
        BytesOf(is_A ? LoraAName(module) : LoraBName(module), alive.back()));
    kinds.insert(std::string(module.substr(module.rfind('.') + 1)));
  }
  // Names as the job wrote them, where it did: a kind would mean that linear of
  // every block.
  std::vector<std::string> targets = LoraTargets(spec);
  if (targets.empty()) targets.assign(kinds.begin(), kinds.end());
  const v1::Lora& lora = spec.adaptation().lora();
  const AdapterConfig config{.base_model_name_or_path = spec.model().base(),
                             .lora_rank = lora.rank(),
                             .lora_alpha = lora.alpha(),
                             .lora_dropout = lora.dropout(),
                             .target_modules = targets};
  FT_RETURN_IF_ERROR(WriteSafetensors(JoinPath(dir, kAdapterWeightsName),
                                      tensors,
                                      AdapterMetadata(model.quantization())));
  FT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(dir, kAdapterConfigName),
                                     AdapterConfigJson(config)));

  v1::ExportFiles files;
  files.set_dir(dir);
  for (const char* name : {kAdapterConfigName, kAdapterWeightsName}) {
    FT_ASSIGN_OR_RETURN(*files.add_files(), DescribeFile(dir, name));
  }
  return files;
}

}  // namespace ft
