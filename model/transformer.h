// SPDX-License-Identifier: Apache-2.0
//
// The decoder: h = x + Attn(norm1(x)), y = h + MLP(norm2(h)), block after
// block, over one packed token axis. Single-device code: it knows no ranks and
// no optimizer; train/assemble.cc marries it to sharding/.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/hf_directory.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/lm_head.h"
#include "model/lora_linear.h"
#include "model/rope.h"
#include "model/units.h"

namespace ft {

// What is added to the linears.
struct LoraConfig {
  int64_t lora_rank = 16;
  double alpha = 32;
  double dropout = 0;
  // Kinds ("q_proj") or module names; empty: every linear of the blocks.
  std::vector<std::string> targets;
  // A is drawn from it and from its own name: U(-1/sqrt(in), 1/sqrt(in)).
  uint64_t seed = 0;
};

inline constexpr int64_t kEmbeddingUnit = -1;

// A tensor that learns. `name` is the module's with ".lora_A" or ".lora_B", or
// the file's own name under full fine-tuning.
struct NamedParameter {
  std::string name;
  at::Tensor tensor;  // [.., ..], fp32
  // The unit of sharding: the block; kEmbeddingUnit; num_layers norm and head.
  int64_t unit = 0;
  // Whether weight decay applies: not to norms and biases.
  bool decays = true;
  // Whether it stands beside the model's own weights.
  bool is_adapter = false;
};

// A tensor that does not learn.
struct FrozenWeight {
  int64_t unit = 0;
  at::Tensor tensor;
};

// One of the model's own weights, under its name in the files.
struct NamedWeight {
  std::string name;
  at::Tensor tensor;
  int64_t unit = 0;
  DType source_dtype = DType::kF32;  // In the files that it was loaded from.
};

// Not thread-safe.
class Transformer {
 public:
  // Loads the weights; all are frozen. The files stay mapped. Weights of
  // linears that the files hold in NF4 stay so; others are quantised with
  // `quantize`, if given.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(
      HfDirectory files,
      const std::optional<Nf4Quantization>& quantize = std::nullopt);

  const ModelSpec& spec() const { return files_.spec; }

  // How the weights of the linears are packed; none of them: nothing.
  std::optional<Nf4Quantization> quantization() const;

  // Adds LoRA to the linears; B = 0, so nothing changes yet.
  // INVALID_ARGUMENT: a target that names no linear; the message lists those
  // there are.
  absl::Status AddLora(const LoraConfig& config);

  // Takes A and B from a PEFT directory; adds LoRA where the adapter has it.
  absl::Status LoadAdapter(const std::string& dir);

  // Whether generation and the forward pass use the adapter. Default: yes.
  void EnableAdapter(bool enabled);

  // Makes every parameter learn (full fine-tuning). What learns must be bound
  // before its values may change: until then it lies in the mapped files.
  // REQUIRES: none is packed
  void TrainEverything();

  // Makes the weights of the last so many blocks learn; negative: of the first.
  void TrainBlocks(int64_t last_blocks);

  // What learns, in forward order.
  std::vector<NamedParameter> Trainables() const;

  // Trainable `index` lies in `storage` (contiguous fp32, the same number of
  // elements) from now on, with the values that are there; its gradient is
  // added up in `gradient`.
  void Bind(size_t index, const at::Tensor& storage,
            const at::Tensor& gradient);

  // The model's own weights, in forward order; a tied head is not told again.
  std::vector<NamedWeight> Weights();

  // What does not learn, in forward order; a tied head is not told again.
  std::vector<FrozenWeight> FrozenWeights();

  // Frozen weight `index` lies in `storage` (of its type and shape) from now
  // on.
  void BindFrozen(size_t index, const at::Tensor& storage);

  // Drops the pages of the files from this process. What still lies there is
  // read again when it is touched.
  void ForgetFiles();

  // Runs unit by unit from now on. `hooks` must outlive the model, or be null:
  // nothing is brought or taken. Where weights come and go, `recomputes_blocks`
  // is required.
  void RunByUnits(UnitHooks* hooks, bool recomputes_blocks);

  // Calls the hooks as a forward pass would, and as a backward pass would if
  // `and_back`, without a token. REQUIRES: RunByUnits was called
  void PassUnits(bool and_back);

  // hidden_TD, before the final norm. `noise` names the dropout masks; null: no
  // dropout.
  at::Tensor Forward(const PackedBatch& batch, const NoiseKey* noise = nullptr);

  // Of these rows only, in their order: hidden_MD. What the last block computes
  // for each token by itself is computed for them alone.
  at::Tensor ForwardRows(const PackedBatch& batch,
                         const std::vector<int64_t>& rows,
                         const NoiseKey* noise = nullptr);

  // LmHeadLoss with this model's head.
  at::Tensor LossSum(const at::Tensor& hidden_TD,
                     const std::vector<int64_t>& rows,
                     const std::vector<int64_t>& labels, double scale,
                     std::vector<double>* nll = nullptr) const;

  // Logits [M, V], without a graph.
  at::Tensor Logits(const at::Tensor& hidden_TD,
                    const std::vector<int64_t>& rows) const;

  // Appends `ids` to what the cache holds and returns the logits [V] of the
  // last one. Without a graph.
  at::Tensor Next(const std::vector<int64_t>& ids, KvCache& cache);

 private:
  struct Block {
    at::Tensor input_norm_D, post_attention_norm_D;
    Linear q, k, v, o, gate, up, down;

    std::vector<Linear*> linears() {
      return {&q, &k, &v, &o, &gate, &up, &down};
    }
    std::vector<const Linear*> linears() const {
      return {&q, &k, &v, &o, &gate, &up, &down};
    }
  };
  struct Weight {
    int64_t unit;
    at::Tensor* tensor;
  };
  // A pointer to the tensor that learns, and what else Trainables tells.
  struct Slot {
    std::string name;
    at::Tensor* tensor;
    int64_t unit;
    bool decays;
    bool is_adapter;
  };

  explicit Transformer(HfDirectory files);
  absl::Status BuildBlocks(const std::optional<Nf4Quantization>& quantize);
  std::vector<Linear*> AllLinears();
  using WeightVisitor = std::function<void(
      const std::string& name, at::Tensor& tensor, int64_t unit, bool decays)>;
  // The model's own weights under their names, in forward order; a tied head
  // not again.
  void VisitWeights(const WeightVisitor& visit);
  std::vector<Weight> FrozenPlaces();
  // The unit of the head, and that of the embedding where it is tied.
  std::vector<int64_t> HeadUnits() const;
  bool Learns(const std::vector<int64_t>& units) const;
  void AddTrainable(const std::string& name, at::Tensor& tensor, int64_t unit,
                    bool decays, bool is_adapter = false);
  HeadWeights Head() const;
  // Embedding and blocks; `rows_M`, if defined, are the only tokens of the
  // result.
  at::Tensor RunBlocks(const PackedBatch& batch, const NoiseKey* noise,
                       const at::Tensor& rows_M);
  at::Tensor RunBlock(const Block& block, const at::Tensor& x_TD,
                      const PackedBatch& batch, const NoiseKey* noise,
                      const at::Tensor& rows_M);
  at::Tensor Attend(const Block& block, const at::Tensor& x_TD,
                    const PackedBatch& batch, const NoiseKey* noise);
  // What follows the attention: each token by itself.
  at::Tensor Finish(const Block& block, const at::Tensor& x_TD,
                    const at::Tensor& attended_TD, const NoiseKey* noise);

  HfDirectory files_;
  RopeTable rope_;
  at::Tensor embedding_VD_;
  at::Tensor head_VD_;  // The same tensor when tied.
  at::Tensor norm_D_;
  std::vector<Block> blocks_;
  std::vector<Slot> trainables_;
  NoUnitHooks no_hooks_;
  UnitHooks* hooks_ = nullptr;  // Null: not by units.
  bool recomputes_blocks_ = false;
};

}  // namespace ft
