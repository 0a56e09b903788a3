// SPDX-License-Identifier: Apache-2.0
//
// ft-train import, chat and logits: models without a job.

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
#include "model/generate.h"
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

absl::StatusOr<std::unique_ptr<Transformer>> LoadModel(
    const std::string& dir, const std::string& adapter) {
  FT_ASSIGN_OR_RETURN(HfDirectory files, OpenHfDirectory(dir));
  FT_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model,
                      Transformer::Load(std::move(files)));
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
  const bool is_terminal = isatty(STDERR_FILENO) == 1;
  const absl::Status status = ImportModel(
      command.source, command.target, [&](const ImportProgress& progress) {
        if (!is_terminal) return;
        std::fprintf(stderr, "\r%s of %s ",
                     FormatBytes(progress.done_bytes).c_str(),
                     FormatBytes(progress.total_bytes).c_str());
      });
  if (is_terminal) std::fprintf(stderr, "\n");
  return Finish(status);
}

int RunChatCommand(const ChatCommand& command) {
  return Finish(GuardTorch([&] { return Chat(command); }));
}

int RunLogitsCommand(const LogitsCommand& command) {
  return Finish(GuardTorch([&] { return Logits(command); }));
}

}  // namespace ft
