// SPDX-License-Identifier: Apache-2.0

#include "model/transformer.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "formats/peft_adapter.h"
#include "kernels/philox.h"
#include "kernels/rope.h"
#include "model/attention.h"
#include "model/rms_norm.h"
#include "model/spans.h"
#include "model/weights.h"

namespace ft {
namespace {

// A ~ U(-1/sqrt(in), 1/sqrt(in)): kaiming_uniform with a = sqrt(5), as PEFT.
at::Tensor DrawA(int64_t lora_rank, int64_t in, uint64_t seed,
                 const std::string& name) {
  at::Tensor A = at::zeros({lora_rank, in});
  const std::span<float> values = FloatsOf(A);
  const uint64_t key = MixHash(HashOf(name), seed);
  const float bound = 1 / std::sqrt(static_cast<float>(in));
  for (size_t i = 0; i < values.size(); ++i) {
    const float uniform = UniformOf(Philox(key, i / 4, 1)[i % 4]);
    values[i] = (2 * uniform - 1) * bound;
  }
  return A;
}

at::Tensor IndexTensor(const std::vector<int64_t>& ids) {
  return at::tensor(ids, at::TensorOptions().dtype(at::kLong));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(
    HfDirectory files, const std::optional<Nf4Quantization>& quantize) {
  std::unique_ptr<Transformer> model(new Transformer(std::move(files)));
  FT_RETURN_IF_ERROR(model->BuildBlocks(quantize), model->files_.path);
  return model;
}

Transformer::Transformer(HfDirectory files)
    : files_(std::move(files)),
      rope_(files_.spec.rope, files_.spec.head_dim, files_.spec.max_position) {}

std::optional<Nf4Quantization> Transformer::quantization() const {
  for (const Block& block : blocks_) {
    for (const Linear* linear : block.linears()) {
      if (linear->packed != nullptr) {
        return Nf4Quantization{.double_quant = linear->packed->double_quant()};
      }
    }
  }
  return std::nullopt;
}

absl::Status Transformer::BuildBlocks(
    const std::optional<Nf4Quantization>& quantize) {
  FT_ASSIGN_OR_RETURN(const ModelWeights weights,
                      ReadWeights(files_, quantize));
  const auto take = [&](const std::string& name) {
    const auto found = weights.dense.find(name);
    return found == weights.dense.end() ? at::Tensor() : found->second;
  };
  embedding_VD_ = take("model.embed_tokens.weight");
  head_VD_ =
      spec().tie_word_embeddings ? embedding_VD_ : take("lm_head.weight");
  norm_D_ = take("model.norm.weight");
  for (int64_t layer = 0; layer < spec().num_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    Block& block = blocks_.emplace_back();
    block.input_norm_D = take(prefix + "input_layernorm.weight");
    block.post_attention_norm_D =
        take(prefix + "post_attention_layernorm.weight");
    const std::vector<const char*> names = {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
        "mlp.down_proj"};
    const std::vector<Linear*> linears = block.linears();
    for (size_t i = 0; i < linears.size(); ++i) {
      linears[i]->module = prefix + names[i];
      linears[i]->weight = take(linears[i]->module + ".weight");
      const auto packed = weights.packed.find(linears[i]->module + ".weight");
      if (packed != weights.packed.end()) linears[i]->packed = packed->second;
      linears[i]->bias = take(linears[i]->module + ".bias");
    }
  }
  return absl::OkStatus();
}

std::vector<Linear*> Transformer::AllLinears() {
  std::vector<Linear*> all;
  for (Block& block : blocks_) {
    for (Linear* linear : block.linears()) all.push_back(linear);
  }
  return all;
}

void Transformer::AddTrainable(const std::string& name, at::Tensor& tensor,
                               int64_t unit, bool decays, bool is_adapter) {
  tensor.set_requires_grad(true);
  trainables_.push_back({name, &tensor, unit, decays, is_adapter});
}

absl::Status Transformer::AddLora(const LoraConfig& config) {
  FT_RETURN_IF_ERROR(CheckTargets(config.targets, spec()));
  const int64_t per_block = 7;
  const std::vector<Linear*> linears = AllLinears();
  for (size_t i = 0; i < linears.size(); ++i) {
    Linear& linear = *linears[i];
    if (!config.targets.empty() && !IsTarget(config.targets, linear.module)) {
      continue;
    }
    const int64_t unit = static_cast<int64_t>(i) / per_block;
    linear.lora_scale = config.alpha / static_cast<double>(config.lora_rank);
    linear.lora_dropout = config.dropout;
    linear.lora_A = DrawA(config.lora_rank, linear.in_features(), config.seed,
                          linear.module);
    linear.lora_B = at::zeros({linear.out_features(), config.lora_rank});
    AddTrainable(linear.module + ".lora_A", linear.lora_A, unit, true,
                 /*is_adapter=*/true);
    AddTrainable(linear.module + ".lora_B", linear.lora_B, unit, true,
                 /*is_adapter=*/true);
  }
  return absl::OkStatus();
}

absl::Status Transformer::LoadAdapter(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const PeftAdapter opened, OpenPeftAdapter(dir));
  const AdapterConfig& adapter = opened.config;
  const SafetensorsFile& file = opened.weights;

  const bool is_new = trainables_.empty();
  if (is_new) {
    FT_RETURN_IF_ERROR(AddLora({.lora_rank = adapter.lora_rank,
                                .alpha = adapter.lora_alpha,
                                .targets = adapter.target_modules}),
                       dir);
  }
  size_t used = 0;
  c10::NoGradGuard no_grad;
  for (Linear* linear : AllLinears()) {
    if (!linear->is_adapted()) continue;
    linear->lora_scale = adapter.scale();
    for (const auto& [name, target] :
         {std::pair{LoraAName(linear->module), &linear->lora_A},
          std::pair{LoraBName(linear->module), &linear->lora_B}}) {
      FT_ASSIGN_OR_RETURN(const TensorView* view, file.Get(name));
      if (view->shape != target->sizes().vec()) {
        return absl::InvalidArgumentError(absl::StrCat(
            file.path(), ": ", name, " is [", absl::StrJoin(view->shape, ", "),
            "], the base model wants [", absl::StrJoin(target->sizes(), ", "),
            "]"));
      }
      FT_ASSIGN_OR_RETURN(const at::Tensor value, TensorOf(*view), file.path());
      target->copy_(value);
      ++used;
    }
  }
  if (used != file.tensors().size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": holds ", file.tensors().size(),
                     " tensors, the base model has a place for ", used));
  }
  return absl::OkStatus();
}

void Transformer::EnableAdapter(bool enabled) {
  for (Linear* linear : AllLinears()) linear->lora_enabled = enabled;
}

void Transformer::VisitWeights(const WeightVisitor& visit) {
  visit("model.embed_tokens.weight", embedding_VD_, kEmbeddingUnit, true);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    Block& block = blocks_[layer];
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    const auto unit = static_cast<int64_t>(layer);
    visit(prefix + "input_layernorm.weight", block.input_norm_D, unit, false);
    for (Linear* linear : block.linears()) {
      if (linear == &block.gate) {
        visit(prefix + "post_attention_layernorm.weight",
              block.post_attention_norm_D, unit, false);
      }
      if (linear->weight.defined()) {
        visit(linear->module + ".weight", linear->weight, unit, true);
      }
      if (linear->bias.defined()) {
        visit(linear->module + ".bias", linear->bias, unit, false);
      }
    }
  }
  visit("model.norm.weight", norm_D_, spec().num_layers, false);
  if (!spec().tie_word_embeddings) {
    visit("lm_head.weight", head_VD_, spec().num_layers, true);
  }
}

void Transformer::TrainEverything() {
  FT_CHECK(!quantization().has_value());
  trainables_.clear();
  VisitWeights(
      [this](const std::string& name, at::Tensor& tensor, int64_t unit,
             bool decays) { AddTrainable(name, tensor, unit, decays); });
}

void Transformer::TrainBlocks(int64_t last_blocks) {
  const auto layers = static_cast<int64_t>(blocks_.size());
  const int64_t begin =
      std::max<int64_t>(0, last_blocks < 0 ? 0 : layers - last_blocks);
  const int64_t end = last_blocks < 0 ? std::min(layers, -last_blocks) : layers;
  trainables_.clear();
  VisitWeights([&](const std::string& name, at::Tensor& tensor, int64_t unit,
                   bool decays) {
    if (unit >= begin && unit < end) AddTrainable(name, tensor, unit, decays);
  });
}

std::vector<NamedParameter> Transformer::Trainables() const {
  std::vector<NamedParameter> parameters;
  for (const Slot& slot : trainables_) {
    parameters.push_back(
        {slot.name, *slot.tensor, slot.unit, slot.decays, slot.is_adapter});
  }
  return parameters;
}

void Transformer::Bind(size_t index, const at::Tensor& storage,
                       const at::Tensor& gradient) {
  at::Tensor& tensor = *trainables_[index].tensor;
  FT_CHECK(storage.numel() == tensor.numel());
  FT_CHECK(gradient.numel() == tensor.numel());
  const bool is_tied_head =
      tensor.is_same(head_VD_) && spec().tie_word_embeddings;
  c10::NoGradGuard no_grad;
  at::Tensor view = storage.view(tensor.sizes()).detach();
  view.set_requires_grad(true);
  view.mutable_grad() = gradient.view(tensor.sizes());
  tensor = view;
  if (is_tied_head) head_VD_ = view;
}

std::vector<Transformer::Weight> Transformer::FrozenPlaces() {
  std::vector<Weight> places;
  VisitWeights([&](const std::string&, at::Tensor& tensor, int64_t unit, bool) {
    if (!tensor.requires_grad()) places.push_back({unit, &tensor});
  });
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    for (Linear* linear : blocks_[layer].linears()) {
      if (linear->packed == nullptr) continue;
      for (at::Tensor* tensor : linear->packed->tensors()) {
        places.push_back({static_cast<int64_t>(layer), tensor});
      }
    }
  }
  // Forward order: a unit's weights stand together.
  std::ranges::stable_sort(places, {}, &Weight::unit);
  return places;
}

std::vector<NamedWeight> Transformer::Weights() {
  std::vector<NamedWeight> weights;
  VisitWeights(
      [&](const std::string& name, at::Tensor& tensor, int64_t unit, bool) {
        const TensorView* source = files_.weights.Find(name);
        FT_CHECK(source != nullptr);
        weights.push_back({name, tensor, unit, source->dtype});
      });
  return weights;
}

std::vector<FrozenWeight> Transformer::FrozenWeights() {
  std::vector<FrozenWeight> weights;
  for (const Weight& place : FrozenPlaces()) {
    weights.push_back({place.unit, *place.tensor});
  }
  return weights;
}

void Transformer::BindFrozen(size_t index, const at::Tensor& storage) {
  at::Tensor& tensor = *FrozenPlaces()[index].tensor;
  FT_CHECK(storage.sizes() == tensor.sizes());
  FT_CHECK(storage.scalar_type() == tensor.scalar_type());
  tensor = storage;
  if (&tensor == &embedding_VD_ && spec().tie_word_embeddings) {
    head_VD_ = embedding_VD_;
  }
}

void Transformer::ForgetFiles() {
  for (const TensorView* view : files_.weights.tensors()) {
    files_.weights.Forget(*view);
  }
}

void Transformer::RunByUnits(UnitHooks* hooks, bool recomputes_blocks) {
  hooks_ = hooks == nullptr ? &no_hooks_ : hooks;
  recomputes_blocks_ = recomputes_blocks;
}

std::vector<int64_t> Transformer::HeadUnits() const {
  if (!spec().tie_word_embeddings) return {spec().num_layers};
  return {spec().num_layers, kEmbeddingUnit};
}

bool Transformer::Learns(const std::vector<int64_t>& units) const {
  return std::ranges::any_of(trainables_, [&](const Slot& slot) {
    return std::ranges::find(units, slot.unit) != units.end();
  });
}

void Transformer::PassUnits(bool and_back) {
  const auto layers = static_cast<int64_t>(blocks_.size());
  const auto visit = [this](const std::vector<int64_t>& units) {
    for (const int64_t unit : units) hooks_->Acquire(unit);
    for (const int64_t unit : units) hooks_->Release(unit);
  };
  visit({kEmbeddingUnit});
  for (int64_t unit = 0; unit < layers; ++unit) visit({unit});
  const std::vector<int64_t> head = HeadUnits();
  visit(head);
  if (!and_back || trainables_.empty()) return;

  const auto gradients = [this](const std::vector<int64_t>& units) {
    if (!Learns(units)) return;
    for (const int64_t unit : units) hooks_->BeginGradients(unit);
    hooks_->EndGradients(units.front());
  };
  gradients(head);
  const int64_t first = trainables_.front().unit;
  for (int64_t unit = layers - 1; unit >= first && unit >= 0; --unit) {
    if (recomputes_blocks_) visit({unit});
    gradients({unit});
  }
  gradients({kEmbeddingUnit});
}

at::Tensor Transformer::Forward(const PackedBatch& batch,
                                const NoiseKey* noise) {
  return RunBlocks(batch, noise, at::Tensor());
}

at::Tensor Transformer::ForwardRows(const PackedBatch& batch,
                                    const std::vector<int64_t>& rows,
                                    const NoiseKey* noise) {
  return RunBlocks(batch, noise, IndexTensor(rows));
}

at::Tensor Transformer::RunBlocks(const PackedBatch& batch,
                                  const NoiseKey* noise,
                                  const at::Tensor& rows_M) {
  FT_CHECK(batch.num_tokens() > 0);
  FT_CHECK(batch.positions.size() == batch.ids.size());
  FT_CHECK(batch.cu_seqlens.back() == batch.num_tokens());
  rope_.Extend(
      *std::max_element(batch.positions.begin(), batch.positions.end()) + 1);
  const size_t last = blocks_.size() - 1;
  if (hooks_ == nullptr) {
    at::Tensor x_TD = at::embedding(embedding_VD_, IndexTensor(batch.ids));
    for (size_t layer = 0; layer <= last; ++layer) {
      x_TD = RunBlock(blocks_[layer], x_TD, batch, noise,
                      layer == last ? rows_M : at::Tensor());
    }
    return x_TD;
  }

  // The graph may run a block again when the caller's batch is gone.
  struct Kept {
    PackedBatch batch;
    std::optional<NoiseKey> noise;
    const NoiseKey* key() const { return noise ? &*noise : nullptr; }
  };
  const auto kept = std::make_shared<Kept>(Kept{batch, std::nullopt});
  if (noise != nullptr) kept->noise = *noise;
  at::Tensor x_TD = RunUnit(
      *hooks_,
      {.units = {kEmbeddingUnit},
       .learns = Learns({kEmbeddingUnit}),
       .run =
           [this, kept](const at::Tensor&) {
             return at::embedding(embedding_VD_, IndexTensor(kept->batch.ids));
           }},
      at::Tensor());
  for (size_t layer = 0; layer <= last; ++layer) {
    const auto unit = static_cast<int64_t>(layer);
    const at::Tensor rows = layer == last ? rows_M : at::Tensor();
    x_TD = RunUnit(*hooks_,
                   {.units = {unit},
                    .learns = Learns({unit}),
                    .keeps_graph = !recomputes_blocks_,
                    .run =
                        [this, kept, layer, rows](const at::Tensor& input_TD) {
                          return RunBlock(blocks_[layer], input_TD, kept->batch,
                                          kept->key(), rows);
                        }},
                   x_TD);
  }
  return x_TD;
}

at::Tensor Transformer::RunBlock(const Block& block, const at::Tensor& x_TD,
                                 const PackedBatch& batch,
                                 const NoiseKey* noise,
                                 const at::Tensor& rows_M) {
  const at::Tensor attended_TD = Attend(block, x_TD, batch, noise);
  if (!rows_M.defined()) return Finish(block, x_TD, attended_TD, noise);
  return Finish(block, x_TD.index_select(0, rows_M),
                attended_TD.index_select(0, rows_M), noise);
}

at::Tensor Transformer::Attend(const Block& block, const at::Tensor& x_TD,
                               const PackedBatch& batch,
                               const NoiseKey* noise) {
  const std::vector<at::Tensor> qkv =
      LinearGroup(RmsNorm(x_TD, block.input_norm_D, spec().rms_norm_eps),
                  {&block.q, &block.k, &block.v}, noise);
  return PackedAttention(qkv[0], qkv[1], qkv[2], spec(), batch, rope_);
}

at::Tensor Transformer::Finish(const Block& block, const at::Tensor& x_TD,
                               const at::Tensor& attended_TD,
                               const NoiseKey* noise) {
  const at::Tensor h_TD = x_TD + LinearGroup(attended_TD, {&block.o}, noise)[0];
  return h_TD + SwigluMlp(RmsNorm(h_TD, block.post_attention_norm_D,
                                  spec().rms_norm_eps),
                          block.gate, block.up, block.down, noise);
}

HeadWeights Transformer::Head() const {
  return {.norm_D = norm_D_, .head_VD = head_VD_, .eps = spec().rms_norm_eps};
}

at::Tensor Transformer::LossSum(const at::Tensor& hidden_TD,
                                const std::vector<int64_t>& rows,
                                const std::vector<int64_t>& labels,
                                double scale, std::vector<double>* nll) const {
  if (hooks_ == nullptr) {
    return LmHeadLoss(hidden_TD, Head(), rows, labels, scale, nll);
  }
  // The head forms its gradients in the forward pass and never runs again.
  const std::vector<int64_t> units = HeadUnits();
  return RunUnit(*hooks_,
                 {.units = units,
                  .learns = Learns(units),
                  .run =
                      [&](const at::Tensor& input_TD) {
                        return LmHeadLoss(input_TD, Head(), rows, labels, scale,
                                          nll);
                      }},
                 hidden_TD);
}

at::Tensor Transformer::Logits(const at::Tensor& hidden_TD,
                               const std::vector<int64_t>& rows) const {
  return LmHeadLogits(hidden_TD, Head(), rows);
}

at::Tensor Transformer::Next(const std::vector<int64_t>& ids, KvCache& cache) {
  c10::NoGradGuard no_grad;
  const auto tokens = static_cast<int64_t>(ids.size());
  // Either a prompt into an empty cache or one token behind the others: both
  // need no mask but the causal one.
  FT_CHECK(tokens == 1 || cache.length() == 0);
  std::vector<int32_t> positions(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    positions[i] =
        static_cast<int32_t>(cache.length()) + static_cast<int32_t>(i);
  }
  rope_.Extend(cache.length() + tokens);
  const auto turn = [&](const at::Tensor& x_TD, int64_t heads) {
    RopeInPlace(FloatsOf(x_TD).data(), tokens, heads, spec().head_dim,
                spec().head_dim, heads * spec().head_dim, positions,
                rope_.cos(), rope_.sin(), RopeDirection::kForward);
  };

  at::Tensor x_TD = at::embedding(embedding_VD_, IndexTensor(ids));
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Block& block = blocks_[layer];
    const std::vector<at::Tensor> qkv =
        LinearGroup(RmsNorm(x_TD, block.input_norm_D, spec().rms_norm_eps),
                    {&block.q, &block.k, &block.v}, nullptr);
    turn(qkv[0], spec().num_heads);
    turn(qkv[1], spec().num_kv_heads);
    const KvCache::KeysAndValues all =
        cache.Append(static_cast<int64_t>(layer), qkv[1], qkv[2]);
    const at::Tensor q =
        qkv[0]
            .view({1, tokens, spec().num_heads, spec().head_dim})
            .transpose(1, 2);
    const at::Tensor attended = at::scaled_dot_product_attention(
        q, all.keys.unsqueeze(0).transpose(1, 2),
        all.values.unsqueeze(0).transpose(1, 2), std::nullopt, 0.0,
        /*is_causal=*/tokens > 1, std::nullopt, /*enable_gqa=*/true);
    const at::Tensor attended_TD =
        attended.transpose(1, 2).reshape({tokens, spec().q_features()});
    x_TD = x_TD + LinearGroup(attended_TD, {&block.o}, nullptr)[0];
    x_TD = x_TD + SwigluMlp(RmsNorm(x_TD, block.post_attention_norm_D,
                                    spec().rms_norm_eps),
                            block.gate, block.up, block.down, nullptr);
  }
  cache.Advance(tokens);
  return LmHeadLogits(x_TD, Head(), {tokens - 1}).squeeze(0);
}

}  // namespace ft
