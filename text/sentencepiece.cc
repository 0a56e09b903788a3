// SPDX-License-Identifier: Apache-2.0
//
// The fields of sentencepiece_model.proto that matter, read from the wire: a
// few numbers and one list, not worth a dependency on protobuf.

#include "text/sentencepiece.h"

#include <cstdint>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "text/tokenizer.h"

namespace ft {
namespace {

using nlohmann::ordered_json;

// One field of a message; `bytes` of a string or message, `number` of the rest.
struct Field {
  uint64_t id = 0;
  uint64_t number = 0;
  absl::string_view bytes;
};

absl::Status NotAModel() {
  return absl::InvalidArgumentError("not a SentencePiece model");
}

bool TakeVarint(absl::string_view& rest, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !rest.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool TakeFixed(absl::string_view& rest, size_t size, uint64_t& value) {
  if (rest.size() < size) return false;
  value = 0;
  std::memcpy(&value, rest.data(), size);
  rest.remove_prefix(size);
  return true;
}

bool TakeField(absl::string_view& rest, Field& field) {
  uint64_t tag;
  if (!TakeVarint(rest, tag)) return false;
  field = {.id = tag >> 3};
  switch (tag & 7) {
    case 0:
      return TakeVarint(rest, field.number);
    case 1:
      return TakeFixed(rest, 8, field.number);
    case 2: {
      uint64_t size;
      if (!TakeVarint(rest, size) || size > rest.size()) return false;
      field.bytes = rest.substr(0, size);
      rest.remove_prefix(size);
      return true;
    }
    case 5:
      return TakeFixed(rest, 4, field.number);
    default:
      return false;
  }
}

absl::Status ForEachField(absl::string_view message,
                          const std::function<absl::Status(const Field&)>& on) {
  while (!message.empty()) {
    Field field;
    if (!TakeField(message, field)) return NotAModel();
    FT_RETURN_IF_ERROR(on(field));
  }
  return absl::OkStatus();
}

enum PieceType : uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kByte = 6,
};

struct Piece {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
};

// With the defaults of the proto.
struct Model {
  std::vector<Piece> pieces;
  uint64_t kind = 1;  // 1 Unigram, 2 BPE, 3 word, 4 char.
  bool byte_fallback = false;
  bool space_is_suffix = false;
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
  std::string charsmap;
};

absl::Status ReadPiece(absl::string_view message, Model& model) {
  if (static_cast<int64_t>(model.pieces.size()) == kMaxVocabulary) {
    return absl::ResourceExhaustedError(
        absl::StrCat("pieces: more than ", kMaxVocabulary));
  }
  Piece piece;
  FT_RETURN_IF_ERROR(ForEachField(message, [&](const Field& field) {
    if (field.id == 1) piece.text = std::string(field.bytes);
    if (field.id == 2) {
      const auto bits = static_cast<uint32_t>(field.number);
      std::memcpy(&piece.score, &bits, sizeof(bits));
    }
    if (field.id == 3) piece.type = field.number;
    return absl::OkStatus();
  }));
  model.pieces.push_back(std::move(piece));
  return absl::OkStatus();
}

absl::Status ReadTrainer(absl::string_view message, Model& model) {
  return ForEachField(message, [&](const Field& field) {
    if (field.id == 3) model.kind = field.number;
    if (field.id == 24) model.space_is_suffix = field.number != 0;
    if (field.id == 35) model.byte_fallback = field.number != 0;
    return absl::OkStatus();
  });
}

absl::Status ReadNormalizer(absl::string_view message, Model& model) {
  return ForEachField(message, [&](const Field& field) {
    if (field.id == 2) model.charsmap = std::string(field.bytes);
    if (field.id == 3) model.add_dummy_prefix = field.number != 0;
    if (field.id == 4) model.remove_extra_spaces = field.number != 0;
    if (field.id == 5) model.escape_spaces = field.number != 0;
    return absl::OkStatus();
  });
}

absl::StatusOr<Model> ReadModel(absl::string_view bytes) {
  Model model;
  FT_RETURN_IF_ERROR(ForEachField(bytes, [&](const Field& field) {
    if (field.id == 1) return ReadPiece(field.bytes, model);
    if (field.id == 2) return ReadTrainer(field.bytes, model);
    if (field.id == 3) return ReadNormalizer(field.bytes, model);
    return absl::OkStatus();
  }));
  if (model.pieces.empty()) return NotAModel();
  if (model.kind != 1 || model.space_is_suffix || !model.escape_spaces) {
    return absl::InvalidArgumentError(
        "only SentencePiece models of the kind Unigram are read; save the "
        "tokenizer as tokenizer.json with Hugging Face's library");
  }
  return model;
}

// In SentencePiece's order: the map of characters, then spaces.
ordered_json Normalizer(const Model& model) {
  ordered_json steps = ordered_json::array();
  if (!model.charsmap.empty()) {
    steps.push_back(
        {{"type", "Precompiled"},
         {"precompiled_charsmap", absl::Base64Escape(model.charsmap)}});
  }
  if (model.remove_extra_spaces) {
    // A "▁" of the text itself is a space too.
    steps.push_back({{"type", "Replace"},
                     {"pattern", {{"String", "\u2581"}}},
                     {"content", " "}});
    steps.push_back(
        {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
    steps.push_back({{"type", "Replace"},
                     {"pattern", {{"Regex", " {2,}"}}},
                     {"content", " "}});
  }
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

ordered_json Metaspace(const Model& model) {
  return {{"type", "Metaspace"},
          {"replacement", "\u2581"},
          {"prepend_scheme", model.add_dummy_prefix ? "always" : "never"},
          {"split", true}};
}

}  // namespace

absl::StatusOr<std::string> TokenizerJsonFromSentencePiece(
    absl::string_view bytes) {
  FT_ASSIGN_OR_RETURN(const Model model, ReadModel(bytes));
  ordered_json vocab = ordered_json::array();
  ordered_json added = ordered_json::array();
  ordered_json unknown_id = nullptr;
  for (const Piece& piece : model.pieces) {
    const size_t id = vocab.size();
    if (piece.type == kUnknown) unknown_id = id;
    if (piece.type == kUnknown || piece.type == kControl ||
        piece.type == kUserDefined) {
      added.push_back({{"id", id},
                       {"content", piece.text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", piece.type != kUserDefined}});
    }
    vocab.push_back({piece.text, static_cast<double>(piece.score)});
  }
  const ordered_json tokenizer = {{"version", "1.0"},
                                  {"truncation", nullptr},
                                  {"padding", nullptr},
                                  {"added_tokens", std::move(added)},
                                  {"normalizer", Normalizer(model)},
                                  {"pre_tokenizer", Metaspace(model)},
                                  {"post_processor", nullptr},
                                  {"decoder", Metaspace(model)},
                                  {"model",
                                   {{"type", "Unigram"},
                                    {"unk_id", std::move(unknown_id)},
                                    {"vocab", std::move(vocab)},
                                    {"byte_fallback", model.byte_fallback}}}};
  return tokenizer.dump(-1, ' ', /*ensure_ascii=*/false,
                        ordered_json::error_handler_t::replace);
}

}  // namespace ft
