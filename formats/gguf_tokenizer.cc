// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "formats/json.h"

namespace ft {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxVocab = size_t{1} << 22;

// How text is cut before the merges, by the name that llama.cpp gives it.
struct PreTokenizer {
  absl::string_view name;
  absl::string_view json;
};
constexpr absl::string_view kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
    R"("use_regex":true})";
// Each digit by itself, then GPT-2's expression.
constexpr absl::string_view kDigitsThenByteLevel =
    R"({"type":"Sequence","pretokenizers":[)"
    R"({"type":"Digits","individual_digits":true},)"
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
    R"("use_regex":true}]})";
constexpr PreTokenizer kPreTokenizers[] = {
    {"gpt-2", kByteLevel},
    {"smollm", kDigitsThenByteLevel},
};

constexpr absl::string_view kDecoder =
    R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,)"
    R"("use_regex":true})";

// tokenizer.ggml.token_type
enum TokenType : int64_t { kControl = 3, kUserDefined = 4 };

struct SpecialIds {
  std::optional<int64_t> bos;
  std::optional<int64_t> eos;
  std::optional<int64_t> eot;  // Ends a turn, where that is not eos.
  std::optional<int64_t> unk;
  std::optional<int64_t> pad;
};

// The metadata, checked.
struct GgufVocabulary {
  std::vector<absl::string_view> tokens;
  std::vector<int64_t> types;
  std::vector<absl::string_view> merges;
  absl::string_view pre_tokenizer;
  SpecialIds ids;
  bool adds_bos = false;
  std::optional<absl::string_view> chat_template;
  std::optional<int64_t> context_length;
};

absl::Status CheckModel(const GgufFile& file) {
  FT_ASSIGN_OR_RETURN(const absl::string_view model,
                      file.GetString("tokenizer.ggml.model"));
  if (model == "gpt2") return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.ggml.model: ", JsonString(model),
                   " is not supported yet; supported: gpt2 (byte-level BPE)"));
}

absl::StatusOr<absl::string_view> FindPreTokenizer(const GgufFile& file) {
  FT_ASSIGN_OR_RETURN(const absl::string_view wanted,
                      file.GetString("tokenizer.ggml.pre"));
  std::vector<absl::string_view> known;
  for (const PreTokenizer& pre : kPreTokenizers) {
    if (pre.name == wanted) return pre.json;
    known.push_back(pre.name);
  }
  return absl::UnimplementedError(absl::StrCat(
      "tokenizer.ggml.pre: ", JsonString(wanted),
      " is not supported yet; supported: ", absl::StrJoin(known, ", ")));
}

// Every token is distinct text, so that the vocabulary is a JSON object.
absl::Status CheckTokens(const GgufVocabulary& vocabulary) {
  if (vocabulary.tokens.empty() || vocabulary.tokens.size() > kMaxVocab) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.tokens: ", vocabulary.tokens.size(),
                     " tokens, wanted 1 to ", kMaxVocab));
  }
  absl::flat_hash_set<absl::string_view> seen;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const absl::string_view token = vocabulary.tokens[id];
    if (!IsUtf8(token)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.tokens: token ", id, " is not UTF-8"));
    }
    if (!seen.insert(token).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.tokens: token ", id, ", ",
                       JsonString(token), ", stands twice"));
    }
  }
  if (vocabulary.types.size() != vocabulary.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.token_type: ", vocabulary.types.size(),
                     " types for ", vocabulary.tokens.size(), " tokens"));
  }
  return absl::OkStatus();
}

// A merge joins two tokens into a third; the tokenizer refuses a file where
// one of them is missing.
absl::Status CheckMerges(const GgufVocabulary& vocabulary) {
  const absl::flat_hash_set<absl::string_view> tokens(vocabulary.tokens.begin(),
                                                      vocabulary.tokens.end());
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const absl::string_view merge = vocabulary.merges[i];
    const size_t space = merge.find(' ');
    if (space == absl::string_view::npos || space != merge.rfind(' ') ||
        !tokens.contains(merge.substr(0, space)) ||
        !tokens.contains(merge.substr(space + 1)) ||
        !tokens.contains(
            absl::StrCat(merge.substr(0, space), merge.substr(space + 1)))) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.merges: merge ", i,
                       " is not of two tokens that make a third"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadId(const GgufFile& file, absl::string_view name,
                    size_t vocab_size, std::optional<int64_t>& id) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
  if (!file.Has(key)) return absl::OkStatus();
  FT_ASSIGN_OR_RETURN(id, file.GetInt(key));
  if (*id >= 0 && *id < static_cast<int64_t>(vocab_size)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(key, ": ", *id, " is not in [0, ", vocab_size, ")"));
}

absl::StatusOr<GgufVocabulary> ReadVocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary;
  FT_RETURN_IF_ERROR(CheckModel(file));
  FT_ASSIGN_OR_RETURN(vocabulary.pre_tokenizer, FindPreTokenizer(file));
  FT_ASSIGN_OR_RETURN(vocabulary.tokens,
                      file.GetStrings("tokenizer.ggml.tokens"));
  FT_ASSIGN_OR_RETURN(vocabulary.types,
                      file.GetInts("tokenizer.ggml.token_type"));
  FT_ASSIGN_OR_RETURN(vocabulary.merges,
                      file.GetStrings("tokenizer.ggml.merges"));
  FT_RETURN_IF_ERROR(CheckTokens(vocabulary));
  FT_RETURN_IF_ERROR(CheckMerges(vocabulary));

  const size_t size = vocabulary.tokens.size();
  SpecialIds& ids = vocabulary.ids;
  FT_RETURN_IF_ERROR(ReadId(file, "bos", size, ids.bos));
  FT_RETURN_IF_ERROR(ReadId(file, "eos", size, ids.eos));
  FT_RETURN_IF_ERROR(ReadId(file, "eot", size, ids.eot));
  FT_RETURN_IF_ERROR(ReadId(file, "unknown", size, ids.unk));
  FT_RETURN_IF_ERROR(ReadId(file, "padding", size, ids.pad));
  FT_ASSIGN_OR_RETURN(vocabulary.adds_bos,
                      file.BoolOr("tokenizer.ggml.add_bos_token", false));
  if (vocabulary.adds_bos && !ids.bos) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.add_bos_token: true without a bos_token_id");
  }
  if (file.Has("tokenizer.chat_template")) {
    FT_ASSIGN_OR_RETURN(const absl::string_view text,
                        file.GetString("tokenizer.chat_template"));
    if (!IsUtf8(text)) {
      return absl::InvalidArgumentError("tokenizer.chat_template: not UTF-8");
    }
    vocabulary.chat_template = text;
  }
  if (file.Has("llama.context_length")) {
    FT_ASSIGN_OR_RETURN(vocabulary.context_length,
                        file.GetInt("llama.context_length"));
  }
  return vocabulary;
}

std::string AddedTokensJson(const GgufVocabulary& vocabulary) {
  std::vector<std::string> added;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int64_t type = vocabulary.types[id];
    if (type != kControl && type != kUserDefined) continue;
    added.push_back(absl::StrCat(
        "{\"id\":", id, ",\"content\":", JsonString(vocabulary.tokens[id]),
        ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,\"special\":",
        type == kControl ? "true}" : "false}"));
  }
  return absl::StrCat("[", absl::StrJoin(added, ","), "]");
}

// Puts bos before every text.
std::string PostProcessorJson(const GgufVocabulary& vocabulary) {
  if (!vocabulary.adds_bos) return "null";
  const int64_t id = *vocabulary.ids.bos;
  const std::string bos = JsonString(vocabulary.tokens[id]);
  const std::string first =
      absl::StrCat("{\"SpecialToken\":{\"id\":", bos, ",\"type_id\":0}}");
  const absl::string_view a = R"({"Sequence":{"id":"A","type_id":0}})";
  const absl::string_view b = R"({"Sequence":{"id":"B","type_id":1}})";
  return absl::StrCat(
      "{\"type\":\"TemplateProcessing\",\"single\":[", first, ",", a,
      "],\"pair\":[", first, ",", a, ",",
      absl::StrCat("{\"SpecialToken\":{\"id\":", bos, ",\"type_id\":1}}"), ",",
      b, "],\"special_tokens\":{", bos, ":{\"id\":", bos, ",\"ids\":[", id,
      "],\"tokens\":[", bos, "]}}}");
}

// Written by hand, in the order of the ids: an ordered tree of so many entries
// would be slow.
std::string TokenizerJson(const GgufVocabulary& vocabulary) {
  std::string json = absl::StrCat(
      "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
      "\"added_tokens\":",
      AddedTokensJson(vocabulary),
      ",\"normalizer\":null,\"pre_tokenizer\":", vocabulary.pre_tokenizer,
      ",\"post_processor\":", PostProcessorJson(vocabulary),
      ",\"decoder\":", kDecoder,
      ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
      "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
      "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
      "\"vocab\":{");
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    absl::StrAppend(&json, id == 0 ? "" : ",",
                    JsonString(vocabulary.tokens[id]), ":", id);
  }
  json += "},\"merges\":[";
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const absl::string_view merge = vocabulary.merges[i];
    const size_t space = merge.find(' ');
    absl::StrAppend(&json, i == 0 ? "[" : ",[",
                    JsonString(merge.substr(0, space)), ",",
                    JsonString(merge.substr(space + 1)), "]");
  }
  json += "]}}";
  return json;
}

// bos_token, eos_token and so on, as far as there are any.
void AddSpecialTokens(const GgufVocabulary& vocabulary, ordered_json& json) {
  const SpecialIds& ids = vocabulary.ids;
  const auto text = [&](int64_t id) {
    return std::string(vocabulary.tokens[id]);
  };
  ordered_json additional = ordered_json::array();
  for (const std::optional<int64_t>& id : {ids.bos, ids.eos, ids.eot}) {
    const bool is_listed = id && std::find(additional.begin(), additional.end(),
                                           text(*id)) != additional.end();
    if (id && !is_listed) additional.push_back(text(*id));
  }
  json["additional_special_tokens"] = additional;
  if (ids.bos) json["bos_token"] = text(*ids.bos);
  if (ids.eos) json["eos_token"] = text(*ids.eos);
  if (ids.pad) json["pad_token"] = text(*ids.pad);
  if (ids.unk) json["unk_token"] = text(*ids.unk);
}

std::string TokenizerConfigJson(const GgufVocabulary& vocabulary) {
  ordered_json added = ordered_json::object();
  // Past the object's own insertion, which looks for the key in all before it.
  ordered_json::object_t::Container& members =
      added.get_ref<ordered_json::object_t&>();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int64_t type = vocabulary.types[id];
    if (type != kControl && type != kUserDefined) continue;
    members.emplace_back(
        absl::StrCat(id),
        ordered_json{{"content", std::string(vocabulary.tokens[id])},
                     {"lstrip", false},
                     {"normalized", false},
                     {"rstrip", false},
                     {"single_word", false},
                     {"special", type == kControl}});
  }
  ordered_json json;
  json["add_bos_token"] = vocabulary.adds_bos;
  json["add_prefix_space"] = false;
  json["added_tokens_decoder"] = added;
  AddSpecialTokens(vocabulary, json);
  if (vocabulary.chat_template) {
    json["chat_template"] = std::string(*vocabulary.chat_template);
  }
  json["clean_up_tokenization_spaces"] = false;
  if (vocabulary.context_length) {
    json["model_max_length"] = *vocabulary.context_length;
  }
  // The class that takes tokenizer.json as it is; others rebuild parts of it.
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  json["vocab_size"] = vocabulary.tokens.size();
  return json.dump(2);
}

std::string GenerationConfigJson(const GgufVocabulary& vocabulary) {
  const SpecialIds& ids = vocabulary.ids;
  ordered_json json;
  json["_from_model_config"] = true;
  if (ids.bos) json["bos_token_id"] = *ids.bos;
  if (ids.eos && ids.eot && *ids.eot != *ids.eos) {
    json["eos_token_id"] = {*ids.eos, *ids.eot};
  } else if (ids.eos) {
    json["eos_token_id"] = *ids.eos;
  }
  if (ids.pad) json["pad_token_id"] = *ids.pad;
  return json.dump(2);
}

}  // namespace

absl::StatusOr<TokenizerFiles> MakeTokenizerFiles(const GgufFile& file) {
  FT_ASSIGN_OR_RETURN(const GgufVocabulary vocabulary, ReadVocabulary(file),
                      file.path());
  ordered_json special;
  AddSpecialTokens(vocabulary, special);
  return TokenizerFiles{
      .tokenizer_json = TokenizerJson(vocabulary),
      .tokenizer_config_json = TokenizerConfigJson(vocabulary),
      .special_tokens_map_json = special.dump(2),
      .generation_config_json = GenerationConfigJson(vocabulary)};
}

}  // namespace ft
