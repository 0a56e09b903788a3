// SPDX-License-Identifier: Apache-2.0

#include "model/lora_linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include "kernels/low_rank.h"
#include "kernels/philox.h"
#include "kernels/swiglu.h"
#include "model/spans.h"

namespace ft {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A node's inputs are x and then, linear by linear, those of weight, bias,
// lora_A and lora_B that exist. A packed weight is no input: it is constant.
enum Role : size_t { kWeight, kBias, kLoraA, kLoraB, kRoles };

using RoleTensors = std::array<at::Tensor, kRoles>;
using RoleFlags = std::array<bool, kRoles>;

// What is the same for all linears of a node, besides tensors.
struct LoraOptions {
  std::shared_ptr<const PackedWeight> packed;  // Null: the weight is a tensor.
  double scale = 0;
  double dropout = 0;
  uint64_t noise = 0;  // Key of the mask; 0 dropout: not used.
  bool has_bias = false;
  bool has_lora = false;

  bool has(size_t role) const {
    if (role == kWeight) return packed == nullptr;
    return role == kBias ? has_bias : has_lora;
  }
};

LoraOptions OptionsOf(const Linear& linear, const NoiseKey* noise) {
  LoraOptions options{.packed = linear.packed,
                      .scale = linear.lora_scale,
                      .has_bias = linear.bias.defined(),
                      .has_lora = linear.uses_lora()};
  if (noise != nullptr && linear.lora_dropout > 0) {
    options.dropout = linear.lora_dropout;
    uint64_t hash = MixHash(HashOf(linear.module), noise->seed);
    hash = MixHash(hash, static_cast<uint64_t>(noise->step));
    hash = MixHash(hash, static_cast<uint64_t>(noise->round));
    options.noise = MixHash(hash, static_cast<uint64_t>(noise->lane));
  }
  return options;
}

// x with a share of its elements zeroed and the rest scaled up; x itself
// without dropout.
at::Tensor Drop(const at::Tensor& x, const LoraOptions& options) {
  if (options.dropout == 0) return x;
  at::Tensor dropped = at::empty_like(x);
  const std::span<float> from = FloatsOf(x), to = FloatsOf(dropped);
  const float keep_scale = static_cast<float>(1 / (1 - options.dropout));
  const float threshold = static_cast<float>(options.dropout);
  for (size_t i = 0; i < from.size(); i += 4) {
    const auto words = Philox(options.noise, i / 4, 0);
    for (size_t j = i; j < std::min(i + 4, from.size()); ++j) {
      to[j] = UniformOf(words[j - i]) < threshold ? 0.0f : from[j] * keep_scale;
    }
  }
  return dropped;
}

// s x P.
at::Tensor Down(const at::Tensor& x_TD, const at::Tensor& p_DR, double scale) {
  // Above, and between, a BLAS is faster than kernels/low_rank.h. It then
  // stores the side of lora_rank as rows: as columns MKL runs the product at a
  // quarter of its speed (lora_rank 8, AVX2).
  constexpr int64_t kLargestRank = 16, kRankUnit = 8;
  const int64_t tokens = x_TD.size(0), width = x_TD.size(1);
  const int64_t rank = p_DR.size(1);
  if (rank > kLargestRank || rank % kRankUnit != 0) {
    return at::mm(p_DR.t(), x_TD.t()).mul_(scale).t();
  }
  const at::Tensor gapless_DR = p_DR.contiguous();
  at::Tensor out_TR = at::empty({tokens, rank}, x_TD.options());
  const auto x = FloatsOf(x_TD), p = FloatsOf(gapless_DR),
             out = FloatsOf(out_TR);
  ForRows(tokens, width * rank, [&](int64_t begin, int64_t end) {
    const size_t count = end - begin;
    LowRankDown(x.subspan(begin * width, count * width), p, rank,
                static_cast<float>(scale),
                out.subspan(begin * rank, count * rank));
  });
  return out_TR;
}

// W; of a packed one an expanded copy, until the next is asked for.
at::Tensor WeightOf(const RoleTensors& linear, const LoraOptions& options) {
  return options.packed != nullptr ? options.packed->Expand() : linear[kWeight];
}

// y = x W^T + b + s drop(x) A^T B^T; `down` becomes drop(x) A^T.
at::Tensor Forward(const at::Tensor& x, const RoleTensors& linear,
                   const LoraOptions& options, at::Tensor& down) {
  const at::Tensor weight = WeightOf(linear, options);
  at::Tensor y = options.has_bias ? at::addmm(linear[kBias], x, weight.t())
                                  : at::mm(x, weight.t());
  if (options.has_lora) {
    down = Down(Drop(x, options), linear[kLoraA].t(), /*scale=*/1);
    y.addmm_(down, linear[kLoraB].t(), /*beta=*/1, options.scale);
  }
  return y;
}

// What a linear adds to dx on top of `dx`, which is undefined at first.
void AddInputGradient(const at::Tensor& dy, const at::Tensor& g,
                      const RoleTensors& linear, const LoraOptions& options,
                      at::Tensor& dx) {
  const at::Tensor weight = WeightOf(linear, options);
  if (dx.defined()) {
    dx.addmm_(dy, weight);
  } else {
    dx = at::mm(dy, weight);
  }
  if (!options.has_lora) return;
  if (options.dropout == 0) {
    dx.addmm_(g, linear[kLoraA]);
  } else {
    dx.add_(Drop(at::mm(g, linear[kLoraA]), options));
  }
}

// G = s dy B; undefined without LoRA.
at::Tensor LowRankGradient(const at::Tensor& dy, const RoleTensors& linear,
                           const LoraOptions& options) {
  if (!options.has_lora) return at::Tensor();
  return Down(dy, linear[kLoraB], options.scale);
}

// The gradients of the tensors of one linear with input x.
RoleTensors ParameterGradients(const at::Tensor& dy, const at::Tensor& x,
                               const at::Tensor& down, const at::Tensor& g,
                               const LoraOptions& options,
                               const RoleFlags& wanted) {
  RoleTensors gradients;
  if (wanted[kWeight]) gradients[kWeight] = at::mm(dy.t(), x);
  if (wanted[kBias]) gradients[kBias] = dy.sum(0);
  // Here, too, lora_rank is the rows of what is stored.
  if (wanted[kLoraA]) gradients[kLoraA] = at::mm(g.t(), Drop(x, options));
  if (wanted[kLoraB]) {
    gradients[kLoraB] = at::mm(down.t(), dy).mul_(options.scale).t();
  }
  return gradients;
}

// The options of a node, kept for its backward pass.
struct SavedOptions : public torch::CustomClassHolder {
  explicit SavedOptions(std::vector<LoraOptions> options)
      : all(std::move(options)) {}

  const std::vector<LoraOptions> all;
};

void SaveOptions(AutogradContext* context,
                 const std::vector<LoraOptions>& all) {
  context->saved_data["options"] =
      c10::IValue::make_capsule(c10::make_intrusive<SavedOptions>(all));
}

const std::vector<LoraOptions>& OptionsIn(AutogradContext* context) {
  // Lives as long as the context.
  return static_cast<const SavedOptions&>(
             *context->saved_data["options"].toCapsule())
      .all;
}

// Index of a linear's tensor among all tensors of the node; the number of all
// tensors for one past the last linear.
size_t IndexOf(const std::vector<LoraOptions>& options, size_t linear,
               size_t role) {
  size_t index = 0;
  for (size_t i = 0; i < linear; ++i) {
    for (size_t r = 0; r < kRoles; ++r) index += options[i].has(r);
  }
  for (size_t r = 0; r < role; ++r) index += options[linear].has(r);
  return index;
}

size_t CountTensors(const std::vector<LoraOptions>& options) {
  return IndexOf(options, options.size(), 0);
}

RoleTensors TensorsAt(at::TensorList tensors,
                      const std::vector<LoraOptions>& options, size_t linear) {
  RoleTensors result;
  for (size_t r = 0; r < kRoles; ++r) {
    if (options[linear].has(r)) {
      result[r] = tensors[IndexOf(options, linear, r)];
    }
  }
  return result;
}

RoleFlags WantedAt(AutogradContext* context,
                   const std::vector<LoraOptions>& options, size_t linear) {
  RoleFlags wanted{};
  for (size_t r = 0; r < kRoles; ++r) {
    wanted[r] = options[linear].has(r) &&
                context->needs_input_grad(1 + IndexOf(options, linear, r));
  }
  return wanted;
}

void PlaceGradients(const RoleTensors& gradients,
                    const std::vector<LoraOptions>& options, size_t linear,
                    variable_list& results) {
  for (size_t r = 0; r < kRoles; ++r) {
    if (options[linear].has(r)) {
      results[1 + IndexOf(options, linear, r)] = gradients[r];
    }
  }
}

struct GroupFunction : public torch::autograd::Function<GroupFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               at::TensorList tensors,
                               const std::vector<LoraOptions>& options) {
    at::AutoDispatchBelowADInplaceOrView guard;
    variable_list outputs, saved = {x};
    saved.insert(saved.end(), tensors.begin(), tensors.end());
    for (size_t i = 0; i < options.size(); ++i) {
      at::Tensor down;
      outputs.push_back(
          Forward(x, TensorsAt(tensors, options, i), options[i], down));
      saved.push_back(down);
    }
    context->save_for_backward(saved);
    SaveOptions(context, options);
    return outputs;
  }

  static variable_list backward(AutogradContext* context,
                                variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const std::vector<LoraOptions>& options = OptionsIn(context);
    const at::Tensor& x = saved[0];
    const size_t count = CountTensors(options);
    const at::TensorList tensors = at::TensorList(saved).slice(1, count);

    at::Tensor dx;
    variable_list results(1 + count + 1);
    for (size_t i = 0; i < options.size(); ++i) {
      if (!gradients[i].defined()) continue;
      const at::Tensor dy = gradients[i].contiguous();
      const RoleTensors linear = TensorsAt(tensors, options, i);
      const at::Tensor g = LowRankGradient(dy, linear, options[i]);
      PlaceGradients(
          ParameterGradients(dy, x, saved[1 + count + i], g, options[i],
                             WantedAt(context, options, i)),
          options, i, results);
      if (context->needs_input_grad(0)) {
        AddInputGradient(dy, g, linear, options[i], dx);
      }
    }
    results[0] = dx;
    return results;
  }
};

// Calls run(begin, end) over the elements of the products of an MLP.
template <typename Run>
void ForElements(const at::Tensor& tensor, const Run& run) {
  constexpr int64_t kCostOfExp = 8;
  ForRows(tensor.numel(), kCostOfExp, run);
}

struct MlpFunction : public torch::autograd::Function<MlpFunction> {
  static constexpr size_t kGate = 0, kUp = 1, kDown = 2;

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            at::TensorList tensors,
                            const std::vector<LoraOptions>& options) {
    at::AutoDispatchBelowADInplaceOrView guard;
    std::array<at::Tensor, 3> down;
    const at::Tensor gate = Forward(x, TensorsAt(tensors, options, kGate),
                                    options[kGate], down[kGate]);
    const at::Tensor up =
        Forward(x, TensorsAt(tensors, options, kUp), options[kUp], down[kUp]);
    const at::Tensor product = at::empty_like(gate);
    const auto e = FloatsOf(gate), u = FloatsOf(up), h = FloatsOf(product);
    ForElements(product, [&](int64_t begin, int64_t end) {
      const size_t size = end - begin;
      SwigluForward(e.subspan(begin, size), u.subspan(begin, size),
                    h.subspan(begin, size));
    });
    at::Tensor y = Forward(product, TensorsAt(tensors, options, kDown),
                           options[kDown], down[kDown]);

    variable_list saved = {x};
    saved.insert(saved.end(), tensors.begin(), tensors.end());
    saved.insert(saved.end(), down.begin(), down.end());
    saved.push_back(gate);
    saved.push_back(up);
    context->save_for_backward(saved);
    SaveOptions(context, options);
    return y;
  }

  static variable_list backward(AutogradContext* context,
                                variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const std::vector<LoraOptions>& options = OptionsIn(context);
    const at::Tensor& x = saved[0];
    const size_t count = CountTensors(options);
    const at::TensorList tensors = at::TensorList(saved).slice(1, count);
    const at::TensorList down = at::TensorList(saved).slice(1 + count, 3);
    const at::Tensor gate = saved[count + 4], up = saved[count + 5];
    const at::Tensor dy = gradients[0].contiguous();

    // dh first; the kernel then turns the saved products into their gradients
    // and makes h again, which the gradients of `down` read.
    const RoleTensors down_linear = TensorsAt(tensors, options, kDown);
    const at::Tensor g = LowRankGradient(dy, down_linear, options[kDown]);
    at::Tensor dh;
    AddInputGradient(dy, g, down_linear, options[kDown], dh);
    const auto d = FloatsOf(dh), e = FloatsOf(gate), u = FloatsOf(up);
    ForElements(dh, [&](int64_t begin, int64_t end) {
      const size_t size = end - begin;
      SwigluBackwardInPlace(d.subspan(begin, size), e.subspan(begin, size),
                            u.subspan(begin, size), d.subspan(begin, size));
    });
    const at::Tensor& product = dh;

    variable_list results(1 + count + 1);
    PlaceGradients(
        ParameterGradients(dy, product, down[kDown], g, options[kDown],
                           WantedAt(context, options, kDown)),
        options, kDown, results);
    at::Tensor dx;
    for (const size_t i : {kGate, kUp}) {
      const at::Tensor& dproduct = i == kGate ? gate : up;
      const RoleTensors linear = TensorsAt(tensors, options, i);
      const at::Tensor gi = LowRankGradient(dproduct, linear, options[i]);
      PlaceGradients(ParameterGradients(dproduct, x, down[i], gi, options[i],
                                        WantedAt(context, options, i)),
                     options, i, results);
      if (context->needs_input_grad(0)) {
        AddInputGradient(dproduct, gi, linear, options[i], dx);
      }
    }
    results[0] = dx;
    return results;
  }
};

std::vector<at::Tensor> TensorsOf(const std::vector<const Linear*>& linears) {
  std::vector<at::Tensor> tensors;
  for (const Linear* linear : linears) {
    if (linear->packed == nullptr) tensors.push_back(linear->weight);
    if (linear->bias.defined()) tensors.push_back(linear->bias);
    if (!linear->uses_lora()) continue;
    tensors.push_back(linear->lora_A);
    tensors.push_back(linear->lora_B);
  }
  return tensors;
}

std::vector<LoraOptions> AllOptions(const std::vector<const Linear*>& linears,
                                    const NoiseKey* noise) {
  std::vector<LoraOptions> options;
  for (const Linear* linear : linears) {
    options.push_back(OptionsOf(*linear, noise));
  }
  return options;
}

}  // namespace

std::vector<at::Tensor> LinearGroup(const at::Tensor& x_TD,
                                    const std::vector<const Linear*>& linears,
                                    const NoiseKey* noise) {
  const std::vector<at::Tensor> tensors = TensorsOf(linears);
  return GroupFunction::apply(x_TD, at::TensorList(tensors),
                              AllOptions(linears, noise));
}

at::Tensor SwigluMlp(const at::Tensor& x_TD, const Linear& gate,
                     const Linear& up, const Linear& down,
                     const NoiseKey* noise) {
  const std::vector<const Linear*> linears = {&gate, &up, &down};
  const std::vector<at::Tensor> tensors = TensorsOf(linears);
  return MlpFunction::apply(x_TD, at::TensorList(tensors),
                            AllOptions(linears, noise));
}

}  // namespace ft
