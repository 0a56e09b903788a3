// SPDX-License-Identifier: Apache-2.0
//
// config.json -> ModelSpec: what a model is, without its weights. The one
// reader of config.json: jobspec/ plans with it, model/ builds with it,
// sharding/ cuts what Parameters() lists. A family is a function from
// config.json to this struct, never a forward of its own.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/dtype.h"

namespace ft {

enum class RopeKind { kDefault, kLinear, kDynamic, kLlama3, kYarn };

// "default", "linear", ... as config.json spells it.
absl::string_view NameOf(RopeKind kind);

// Rotary embedding, half style: (x_i, x_{i+d/2}) are rotated, d = head_dim. The
// equations of the kinds are in model/rope.h. A field that the kind does not
// use keeps its default.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                // All but kDefault.
  double low_freq_factor = 1.0;       // kLlama3
  double high_freq_factor = 1.0;      // kLlama3
  int64_t original_max_position = 0;  // kLlama3, kYarn, kDynamic
  double beta_fast = 32.0;            // kYarn
  double beta_slow = 1.0;             // kYarn
  // cos and sin are multiplied by it; already resolved (kYarn: the file's own,
  // or from mscale, or 0.1 ln(factor) + 1). 1 for the other kinds.
  double attention_factor = 1.0;

  bool operator==(const RopeSpec&) const = default;
};

enum class ParameterRole {
  kEmbedding,     // [vocab, hidden]
  kNorm,          // [hidden]
  kLinearWeight,  // [out, in]
  kLinearBias,    // [out]
  kHead,          // [vocab, hidden]; absent when tied
};

// One tensor of the model, under its Hugging Face name.
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  ParameterRole role = ParameterRole::kLinearWeight;
  // The block it belongs to; -1: the embedding; num_layers: final norm and
  // head.
  int64_t layer = 0;

  int64_t numel() const;
};

// One linear of a block: what LoRA can adapt.
struct LinearSpec {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  std::string kind;    // "q_proj": its last part, as target_modules names it
  int64_t layer = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  bool has_bias = false;
};

// How the weights of linears are stored in 4 bits (arXiv:2305.14314).
struct Nf4Quantization {
  bool double_quant = true;  // Their scales in 8 bits.

  bool operator==(const Nf4Quantization&) const = default;
};

struct ModelSpec {
  std::string model_type;  // "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // Divides num_heads.
  int64_t head_dim = 0;      // Even; not always hidden_size / num_heads.
  int64_t max_position = 0;
  double rms_norm_eps = 0;
  bool attention_bias = false;  // On q, k, v and o.
  bool mlp_bias = false;        // On gate, up and down.
  bool tie_word_embeddings = false;
  RopeSpec rope;
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;
  // Element type that the file names; empty: none. Weights say their own.
  std::optional<DType> dtype;
  // Of the files, in the layout of bitsandbytes.h. Some linears may still be
  // floats.
  std::optional<Nf4Quantization> quantization;

  int64_t q_features() const { return num_heads * head_dim; }
  int64_t kv_features() const { return num_kv_heads * head_dim; }

  // Every parameter, in forward order: embedding, blocks (input norm, q, k, v,
  // o, post-attention norm, gate, up, down; a weight before its bias), final
  // norm, head.
  std::vector<ParameterSpec> Parameters() const;

  // The linears of all blocks, in forward order; never the head.
  std::vector<LinearSpec> Linears() const;

  int64_t NumParameters() const;

  bool operator==(const ModelSpec&) const = default;
};

// Largest config.json that is read.
inline constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

// Reads the text of a config.json. Keys without meaning to us are ignored;
// those that look as if they should have one are told in `warnings`, if given.
// INVALID_ARGUMENT: the text is not what it must be; the message lists every
// fault. UNIMPLEMENTED: a family or feature that we do not have; the message
// says which there are.
absl::StatusOr<ModelSpec> ParseModelSpec(
    absl::string_view config_json,
    std::vector<std::string>* warnings = nullptr);

// Reads a file. The message begins with its path.
absl::StatusOr<ModelSpec> ReadModelSpec(
    const std::string& config_path,
    std::vector<std::string>* warnings = nullptr);

}  // namespace ft
