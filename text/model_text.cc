// SPDX-License-Identifier: Apache-2.0

#include "text/model_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigFileBytes = 16 << 20;

// The object in an optional file; an empty one if the file is missing.
absl::StatusOr<json> ReadObject(const std::string& path) {
  if (!Exists(path)) return json::object();
  FT_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(path, kMaxConfigFileBytes));
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no JSON object"));
  }
  return value;
}

// A token is a string or an object with "content".
std::string TokenText(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") &&
      (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return "";
}

// The text of the model's own template; empty if it has none.
absl::StatusOr<std::string> OwnTemplate(const std::string& dir,
                                        const json& config) {
  const std::string path = JoinPath(dir, "chat_template.jinja");
  if (Exists(path)) return ReadFile(path, kMaxConfigFileBytes);
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

void AddStopId(int64_t id, std::vector<int64_t>& stop_ids) {
  if (id >= 0 && !std::count(stop_ids.begin(), stop_ids.end(), id)) {
    stop_ids.push_back(id);
  }
}

}  // namespace

absl::StatusOr<ModelText> LoadModelText(const std::string& dir,
                                        absl::string_view template_name) {
  FT_ASSIGN_OR_RETURN(
      const std::string tokenizer_json,
      ReadFile(JoinPath(dir, "tokenizer.json"), kMaxTokenizerBytes));
  FT_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Parse(tokenizer_json),
                      dir);
  FT_ASSIGN_OR_RETURN(const json config,
                      ReadObject(JoinPath(dir, "tokenizer_config.json")));
  FT_ASSIGN_OR_RETURN(const json generation,
                      ReadObject(JoinPath(dir, "generation_config.json")));

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

  ModelText text{
      .tokenizer = std::move(tokenizer),
      .chat_template = std::move(chat_template),
      .bos_token = TokenText(config, "bos_token"),
      .eos_token = TokenText(config, "eos_token"),
      .pad_token = TokenText(config, "pad_token"),
      .tokenizer_sha256 = Sha256Hex(tokenizer_json),
      .template_sha256 = Sha256Hex(source.empty() ? template_name
                                                  : absl::string_view(source))};
  AddStopId(text.tokenizer.IdOf(text.eos_token), text.stop_ids);
  const json eos = generation.value("eos_token_id", json());
  if (eos.is_number_integer()) AddStopId(eos.get<int64_t>(), text.stop_ids);
  if (eos.is_array()) {
    for (const json& id : eos) {
      if (id.is_number_integer()) AddStopId(id.get<int64_t>(), text.stop_ids);
    }
  }
  return text;
}

}  // namespace ft
