// SPDX-License-Identifier: Apache-2.0

#include "formats/weight_names.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/check.h"

namespace ft {
namespace {

struct NamePair {
  absl::string_view gguf;
  absl::string_view hf;
};

constexpr NamePair kWhole[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

constexpr NamePair kParts[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

constexpr absl::string_view kGgufBlock = "blk.";
constexpr absl::string_view kHfBlock = "model.layers.";

// "3.attn_q.weight" -> {3, "attn_q", "weight"}.
struct BlockName {
  int64_t layer = 0;
  std::string part;
  std::string suffix;
};
std::optional<BlockName> SplitBlockName(absl::string_view rest) {
  const size_t first = rest.find('.');
  const size_t last = rest.rfind('.');
  if (first == absl::string_view::npos || first == last) return std::nullopt;
  BlockName name;
  if (!absl::SimpleAtoi(rest.substr(0, first), &name.layer) ||
      absl::StrCat(name.layer) != rest.substr(0, first) || name.layer < 0) {
    return std::nullopt;
  }
  name.part = std::string(rest.substr(first + 1, last - first - 1));
  name.suffix = std::string(rest.substr(last + 1));
  if (name.suffix != "weight" && name.suffix != "bias") return std::nullopt;
  return name;
}

}  // namespace

std::optional<std::string> HfNameOfGguf(absl::string_view gguf_name) {
  for (const NamePair& pair : kWhole) {
    if (gguf_name == pair.gguf) return std::string(pair.hf);
  }
  if (!absl::ConsumePrefix(&gguf_name, kGgufBlock)) return std::nullopt;
  const std::optional<BlockName> name = SplitBlockName(gguf_name);
  if (!name) return std::nullopt;
  for (const NamePair& pair : kParts) {
    if (name->part == pair.gguf) {
      return absl::StrCat(kHfBlock, name->layer, ".", pair.hf, ".",
                          name->suffix);
    }
  }
  return std::nullopt;
}

std::optional<std::string> GgufNameOfHf(absl::string_view hf_name) {
  for (const NamePair& pair : kWhole) {
    if (hf_name == pair.hf) return std::string(pair.gguf);
  }
  if (!absl::ConsumePrefix(&hf_name, kHfBlock)) return std::nullopt;
  const std::optional<BlockName> name = SplitBlockName(hf_name);
  if (!name) return std::nullopt;
  for (const NamePair& pair : kParts) {
    if (name->part == pair.hf) {
      return absl::StrCat(kGgufBlock, name->layer, ".", pair.gguf, ".",
                          name->suffix);
    }
  }
  return std::nullopt;
}

int64_t PermutedHeads(const ModelSpec& spec, absl::string_view hf_name) {
  if (absl::StrContains(hf_name, ".self_attn.q_proj.")) return spec.num_heads;
  if (absl::StrContains(hf_name, ".self_attn.k_proj.")) {
    return spec.num_kv_heads;
  }
  return 0;
}

int64_t GgufRowOf(int64_t hf_row, int64_t rows, int64_t heads) {
  FT_CHECK(rows % (2 * heads) == 0);
  const int64_t head_dim = rows / heads;
  const int64_t head = hf_row / head_dim;
  const int64_t half = hf_row % head_dim / (head_dim / 2);
  const int64_t i = hf_row % (head_dim / 2);
  return head * head_dim + 2 * i + half;
}

}  // namespace ft
