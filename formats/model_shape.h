// SPDX-License-Identifier: Apache-2.0
//
// config.json -> ModelShape: how large a model is, of more families than the
// trainer has. Planning needs sizes only, so what changes the arithmetic but no
// size (ropes, activations, soft caps, windows) is not looked at; ModelSpec is
// what is trained.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/dtype.h"

namespace ft {

// One linear of a block.
struct LinearShape {
  std::string part;  // "self_attn"
  std::string kind;  // "q_proj"; of a fused one "qkv_proj"
  int64_t in_features = 0;
  int64_t out_features = 0;
  bool has_bias = false;

  int64_t numel() const { return in_features * out_features; }
};

struct ModelShape {
  std::string family;  // model_type as config.json writes it.
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // Divides num_heads.
  int64_t head_dim = 0;
  int64_t max_position = 0;
  bool qkv_bias = false;
  bool output_bias = false;  // Of the attention's o_proj.
  bool mlp_bias = false;
  bool fused_projections =
      false;                // q, k and v are one linear; gate and up too.
  bool qk_norm = false;     // Of each head's queries and keys.
  bool post_norms = false;  // After attention and MLP, too.
  bool tie_word_embeddings = false;
  // Element type that the file names; empty: none.
  std::optional<DType> dtype;
  // Empty if the trainer has this model; else what it lacks.
  std::string why_not_trained;

  int64_t q_features() const { return num_heads * head_dim; }
  int64_t kv_features() const { return num_kv_heads * head_dim; }

  // The linears of one block, in forward order. All blocks are alike.
  std::vector<LinearShape> Linears() const;

  // Elements: of the linears of a block; of a block with its norms and biases;
  // of the embedding, which a head of its own has again; of all.
  int64_t LinearsOfBlock() const;
  int64_t Block() const;
  int64_t Embedding() const { return vocab_size * hidden_size; }
  int64_t NumParameters() const;

  bool operator==(const ModelShape&) const = default;
};

// Rows of logits that the loss forms at once: small enough to stay near, large
// enough for the GEMM. The trainer and its planner ask here.
int64_t LossChunkRows(int64_t vocab_size);

// Reads the text of a config.json of the families llama, mistral, qwen2, qwen3,
// gemma, gemma2, gemma3 (its text part) and phi3. Keys that say no size are
// ignored. INVALID_ARGUMENT: the text is not what it must be; the message lists
// every fault. UNIMPLEMENTED: another family; the message says which there are.
absl::StatusOr<ModelShape> ParseModelShape(absl::string_view config_json);

// Reads a file. The message begins with its path.
absl::StatusOr<ModelShape> ReadModelShape(const std::string& config_path);

}  // namespace ft
