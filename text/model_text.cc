// SPDX-License-Identifier: Apache-2.0

#include "text/model_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "text/sentencepiece.h"

namespace ft {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigFileBytes = 16 << 20;
constexpr int kMaxConfigDepth = 32;

// The object in an optional file; an empty one if the file is missing.
absl::StatusOr<json> ReadObject(const std::string& path) {
  if (!Exists(path)) return json::object();
  FT_ASSIGN_OR_RETURN(const std::string text,
                      ReadRegularFile(path, kMaxConfigFileBytes));
  // A deep tree would overflow the stack of whoever copies it.
  bool is_too_deep = false;
  const auto is_kept = [&](int depth, json::parse_event_t, json&) {
    is_too_deep |= depth > kMaxConfigDepth;
    return depth <= kMaxConfigDepth;
  };
  json value = json::parse(text, is_kept, /*allow_exceptions=*/false);
  if (is_too_deep) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": nested deeper than ", kMaxConfigDepth, " levels"));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no JSON object"));
  }
  return value;
}

// Adds the members named ..._token; each is a string or an object with
// "content". What is known already stays.
void AddSpecialTokens(const json& config,
                      std::map<std::string, std::string>& tokens) {
  for (const auto& [name, value] : config.items()) {
    if (!absl::EndsWith(name, "_token")) continue;
    const json text =
        value.is_object() ? value.value("content", json()) : json(value);
    if (text.is_string()) tokens.emplace(name, text.get<std::string>());
  }
}

std::string TokenNamed(const std::map<std::string, std::string>& tokens,
                       const std::string& name) {
  const auto found = tokens.find(name);
  return found == tokens.end() ? "" : found->second;
}

// The text of the model's own template; empty if it has none.
absl::StatusOr<std::string> OwnTemplate(const std::string& dir,
                                        const json& config) {
  const std::string path = JoinPath(dir, "chat_template.jinja");
  if (Exists(path)) return ReadRegularFile(path, kMaxConfigFileBytes);
  const auto found = config.find("chat_template");
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {  // Several, by name.
    for (const json& entry : *found) {
      if (entry.is_object() && entry.value("name", json()) == "default" &&
          entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  return "";
}

// eos_token_id is a number or a list of them.
void AddStopIds(const json& config, std::vector<int64_t>& stop_ids) {
  const json eos = config.value("eos_token_id", json());
  for (const json& id : eos.is_array() ? eos : json::array({eos})) {
    if (id.is_number_integer()) stop_ids.push_back(id.get<int64_t>());
  }
}

absl::StatusOr<std::vector<int64_t>> ReadStopIds(const std::string& dir) {
  std::vector<int64_t> stop_ids;
  FT_ASSIGN_OR_RETURN(const json generation,
                      ReadObject(JoinPath(dir, "generation_config.json")));
  AddStopIds(generation, stop_ids);
  if (!stop_ids.empty()) return stop_ids;
  FT_ASSIGN_OR_RETURN(const json config,
                      ReadObject(JoinPath(dir, "config.json")));
  AddStopIds(config, stop_ids);
  return stop_ids;
}

absl::StatusOr<std::string> ReadTokenizer(const std::string& dir) {
  const std::string path = JoinPath(dir, "tokenizer.json");
  const std::string pieces = JoinPath(dir, "tokenizer.model");
  if (Exists(path) || !Exists(pieces)) {
    return ReadRegularFile(path, kMaxTokenizerBytes);
  }
  FT_ASSIGN_OR_RETURN(const std::string model,
                      ReadRegularFile(pieces, kMaxTokenizerBytes));
  FT_ASSIGN_OR_RETURN(std::string tokenizer,
                      TokenizerJsonFromSentencePiece(model), pieces);
  return tokenizer;
}

}  // namespace

absl::StatusOr<RenderedChat> ModelText::Render(
    const ChatRequest& request) const {
  const auto parse = [](const std::string& text) {
    return nlohmann::ordered_json::parse(text, nullptr,
                                         /*allow_exceptions=*/false);
  };
  nlohmann::ordered_json context = parse(request.variables_json);
  if (!context.is_object()) {
    return absl::InvalidArgumentError(
        "the template's variables are no JSON object");
  }
  for (const auto& [name, token] : special_tokens) context[name] = token;
  context["messages"] = parse(request.messages_json);
  context["tools"] = parse(request.tools_json);
  context["documents"] = nullptr;
  context["add_generation_prompt"] = request.add_generation_prompt;
  if (!context["messages"].is_array() || context["tools"].is_discarded()) {
    return absl::InvalidArgumentError("messages or tools are not JSON");
  }
  return chat_template.Render(context.dump(), request.now);
}

bool ModelText::IsStop(int64_t id) const {
  return std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end();
}

absl::StatusOr<ModelText> LoadModelText(const std::string& dir,
                                        absl::string_view template_name) {
  FT_ASSIGN_OR_RETURN(const std::string tokenizer_json, ReadTokenizer(dir));
  FT_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Parse(tokenizer_json),
                      dir);
  FT_ASSIGN_OR_RETURN(const json config,
                      ReadObject(JoinPath(dir, "tokenizer_config.json")));
  FT_ASSIGN_OR_RETURN(const json token_map,
                      ReadObject(JoinPath(dir, "special_tokens_map.json")));
  FT_ASSIGN_OR_RETURN(std::vector<int64_t> stop_ids, ReadStopIds(dir));

  std::string source;
  if (template_name == "tokenizer") {
    FT_ASSIGN_OR_RETURN(source, OwnTemplate(dir, config));
    if (source.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(dir,
                       ": the model has no chat template; write data.template: "
                       "chatml"));
    }
  }
  FT_ASSIGN_OR_RETURN(ChatTemplate chat_template,
                      source.empty() ? ChatTemplate::BuiltIn(template_name)
                                     : ChatTemplate::Compile(source),
                      dir);

  std::map<std::string, std::string> tokens;
  AddSpecialTokens(config, tokens);
  AddSpecialTokens(token_map, tokens);
  const std::string eos_token = TokenNamed(tokens, "eos_token");
  if (const int64_t eos = tokenizer.IdOf(eos_token); eos >= 0) {
    stop_ids.push_back(eos);
  }
  std::sort(stop_ids.begin(), stop_ids.end());
  stop_ids.erase(std::unique(stop_ids.begin(), stop_ids.end()), stop_ids.end());
  return ModelText{
      .tokenizer = std::move(tokenizer),
      .chat_template = std::move(chat_template),
      .bos_token = TokenNamed(tokens, "bos_token"),
      .eos_token = eos_token,
      .pad_token = TokenNamed(tokens, "pad_token"),
      .special_tokens = std::move(tokens),
      .stop_ids = std::move(stop_ids),
      .tokenizer_sha256 = Sha256Hex(tokenizer_json),
      .template_sha256 = Sha256Hex(source.empty() ? template_name
                                                  : absl::string_view(source))};
}

}  // namespace ft
