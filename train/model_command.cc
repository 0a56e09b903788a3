// SPDX-License-Identifier: Apache-2.0
//
// ft-train import, quantize, merge, chat and logits: models without a job.

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/bytes.h"
#include "common/exit_code.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/model_import.h"
#include "formats/peft_adapter.h"
#include "model/generate.h"
#include "model/merge_adapter.h"
#include "model/quantize_model.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "text/model_text.h"
#include "train/commands.h"
#include "train/torch_guard.h"

namespace ft {
namespace {

int Finish(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  // A model of a kind that is not supported yet.
  return absl::IsUnimplemented(status) ? kExitInvalid
                                       : ExitCodeOf(status.code());
}

// The base lies as it did when the adapter was trained.
absl::StatusOr<std::unique_ptr<Transformer>> LoadModel(
    const std::string& dir, const std::string& adapter) {
  FT_ASSIGN_OR_RETURN(HfDirectory files, OpenHfDirectory(dir));
  std::optional<Nf4Quantization> base;
  if (!adapter.empty()) {
    FT_ASSIGN_OR_RETURN(const PeftAdapter opened, OpenPeftAdapter(adapter));
    base = opened.base_quantization;
  }
  FT_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model,
                      Transformer::Load(std::move(files), base));
  if (!adapter.empty()) FT_RETURN_IF_ERROR(model->LoadAdapter(adapter));
  return model;
}

// An id without an embedding: the tokenizer is another model's.
absl::Status CheckId(int64_t id, const ModelSpec& spec) {
  if (id >= 0 && id < spec.vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("token ", id, " is beyond the model's ", spec.vocab_size,
                   " tokens; take the tokenizer that belongs to the model"));
}

absl::Status Chat(const ChatCommand& command) {
  at::set_num_threads(command.threads > 0
                          ? command.threads
                          : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  FT_ASSIGN_OR_RETURN(const ModelText text,
                      LoadModelText(command.model, command.chat_template));
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Transformer> model,
                      LoadModel(command.model, command.adapter));
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  if (!command.system.empty()) {
    messages.push_back({{"role", "system"}, {"content", command.system}});
  }
  messages.push_back(
      {{"role", "user"}, {"content", absl::StrJoin(command.text, " ")}});
  FT_ASSIGN_OR_RETURN(
      const RenderedChat prompt,
      text.Render({.messages_json = messages.dump(
                       -1, ' ', false,
                       nlohmann::ordered_json::error_handler_t::replace),
                   .add_generation_prompt = true,
                   .now = std::time(nullptr)}));
  FT_ASSIGN_OR_RETURN(const Encoding encoding,
                      text.tokenizer.Encode(prompt.text));
  for (const int64_t id : encoding.ids) {
    FT_RETURN_IF_ERROR(CheckId(id, model->spec()), command.model);
  }
  const int64_t room =
      model->spec().max_position - static_cast<int64_t>(encoding.ids.size());
  if (room <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", encoding.ids.size(),
                     " tokens; the model reads ", model->spec().max_position));
  }

  StreamingDecoder decoder(text.tokenizer);
  absl::Status status;
  const auto say = [](const std::string& piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  Generate(*model, encoding.ids,
           {.max_new_tokens = std::min(command.max_new_tokens, room),
            .stop_ids = text.stop_ids,
            .sample = command.sample,
            .seed = command.seed},
           [&](int64_t token) {
             absl::StatusOr<std::string> piece = decoder.Add(token);
             if (!piece.ok()) status = piece.status();
             if (piece.ok()) say(*piece);
             return status.ok();
           });
  FT_RETURN_IF_ERROR(status);
  FT_ASSIGN_OR_RETURN(const std::string rest, decoder.Finish());
  say(rest + "\n");
  return absl::OkStatus();
}

// Runs what tells its progress; on a terminal it is shown in a line.
template <typename Run>
auto WithProgress(const Run& run) {
  if (isatty(STDERR_FILENO) != 1) return run(nullptr);
  auto result = run([](const ImportProgress& progress) {
    std::fprintf(stderr, "\r%s of %s ",
                 FormatBytes(progress.done_bytes).c_str(),
                 FormatBytes(progress.total_bytes).c_str());
  });
  std::fprintf(stderr, "\n");
  return result;
}

std::string NameOfBase(const std::optional<Nf4Quantization>& base) {
  if (!base) return "full";
  return base->double_quant ? "nf4, double_quant" : "nf4";
}

void PrintMerge(const MergeCommand& command, const MergeReport& report) {
  if (command.format == "json") {
    nlohmann::ordered_json layers = nlohmann::ordered_json::array();
    for (const LayerMerge& layer : report.layers) {
      layers.push_back({{"layer", layer.layer}, {"error", layer.error}});
    }
    const nlohmann::ordered_json value = {{"dir", command.output},
                                          {"dtype", command.dtype},
                                          {"base", NameOfBase(report.base)},
                                          {"layers", layers}};
    std::printf("%s\n", value.dump(2).c_str());
    return;
  }
  std::printf("%s  %s, base %s\n", command.output.c_str(),
              command.dtype.c_str(), NameOfBase(report.base).c_str());
  std::printf("layer  lost of the update by rounding\n");
  for (const LayerMerge& layer : report.layers) {
    std::printf("%5ld  %.1e\n", static_cast<long>(layer.layer), layer.error);
  }
}

absl::Status Merge(const MergeCommand& command) {
  MergeOptions options{
      .dtype = command.dtype == "fp32" ? DType::kF32 : DType::kBF16,
      .overrides_base = !command.quantization.empty()};
  if (command.quantization == "nf4") {
    options.base = Nf4Quantization{.double_quant = command.double_quant};
  }
  FT_ASSIGN_OR_RETURN(const MergeReport report,
                      WithProgress([&](const ImportProgressFn& progress) {
                        return MergeAdapter(command.model, command.adapter,
                                            command.output, options, progress);
                      }));
  for (const std::string& warning : report.warnings) {
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
  PrintMerge(command, report);
  return absl::OkStatus();
}

absl::Status Logits(const LogitsCommand& command) {
  c10::NoGradGuard no_grad;
  FT_ASSIGN_OR_RETURN(const std::string json,
                      ReadFile(command.ids_file, 64 << 20));
  const auto sequences = nlohmann::json::parse(json, nullptr, false);
  if (!sequences.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(command.ids_file, ": must be a list of lists of ids"));
  }
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Transformer> model,
                      LoadModel(command.model, command.adapter));
  std::vector<at::Tensor> results;
  std::vector<TensorBytes> tensors;
  for (const auto& sequence : sequences) {
    std::vector<int64_t> ids;
    for (const auto& id : sequence) {
      const int64_t value = id.is_number_integer() ? id.get<int64_t>() : -1;
      if (value < 0 || value >= model->spec().vocab_size) {
        return absl::InvalidArgumentError(
            absl::StrCat(command.ids_file, ": ", id.dump(), " is no token id"));
      }
      ids.push_back(value);
    }
    if (ids.empty()) continue;
    std::vector<int64_t> rows(ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    results.push_back(
        model->Logits(model->Forward(PackedBatch::Of({ids})), rows));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    tensors.push_back(BytesOf(absl::StrCat("logits.", i), results[i]));
  }
  return WriteSafetensors(command.output, tensors);
}

}  // namespace

int RunImportCommand(const ImportCommand& command) {
  return Finish(WithProgress([&](const ImportProgressFn& progress) {
    return ImportModel(command.source, command.target, progress);
  }));
}

int RunQuantizeCommand(const QuantizeCommand& command) {
  return Finish(WithProgress([&](const ImportProgressFn& progress) {
    return GuardTorch([&] {
      return QuantizeModel(command.model, command.target,
                           {.double_quant = command.double_quant}, progress);
    });
  }));
}

int RunMergeCommand(const MergeCommand& command) {
  return Finish(GuardTorch([&] { return Merge(command); }));
}

int RunChatCommand(const ChatCommand& command) {
  return Finish(GuardTorch([&] { return Chat(command); }));
}

int RunLogitsCommand(const LogitsCommand& command) {
  return Finish(GuardTorch([&] { return Logits(command); }));
}

}  // namespace ft
