// SPDX-License-Identifier: Apache-2.0

#include "model/attention.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty_like.h>

#include <memory>

#include "kernels/rope.h"
#include "model/spans.h"

namespace ft {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What a node keeps besides tensors: small, and the same for all layers.
struct Layout : torch::CustomClassHolder {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::vector<int32_t> positions, cu_seqlens;
  const RopeTable* table = nullptr;  // Outlives the graph (the model's own).

  int64_t group() const { return heads / kv_heads; }
  size_t segments() const { return cu_seqlens.size() - 1; }
};

void Turn(const at::Tensor& x_TD, int64_t heads, const Layout& layout,
          RopeDirection direction) {
  const std::span<float> x = FloatsOf(x_TD);
  const int64_t width = heads * layout.head_dim;
  ForRows(x_TD.size(0), width, [&](int64_t begin, int64_t end) {
    RopeInPlace(x.data() + begin * width, end - begin, heads, layout.head_dim,
                layout.head_dim, width,
                std::span(layout.positions).subspan(begin, end - begin),
                layout.table->cos(), layout.table->sin(), direction);
  });
}

// Tokens [begin, end) as [1, heads, tokens, head_dim].
at::Tensor Segment(const at::Tensor& x_TD, int64_t begin, int64_t end,
                   const Layout& layout) {
  return x_TD.narrow(0, begin, end - begin)
      .view({1, end - begin, -1, layout.head_dim})
      .transpose(1, 2);
}

// Key or value heads, each as often as it has query heads: [T, heads * K].
at::Tensor RepeatHeads(const at::Tensor& x_TD, const Layout& layout) {
  if (layout.group() == 1) return x_TD;
  const int64_t tokens = x_TD.size(0);
  return x_TD.view({tokens, layout.kv_heads, 1, layout.head_dim})
      .expand({tokens, layout.kv_heads, layout.group(), layout.head_dim})
      .reshape({tokens, layout.heads * layout.head_dim});
}

at::Tensor SumHeads(const at::Tensor& dx_TD, const Layout& layout) {
  if (layout.group() == 1) return dx_TD;
  const int64_t tokens = dx_TD.size(0);
  return dx_TD.view({tokens, layout.kv_heads, layout.group(), layout.head_dim})
      .sum(2)
      .view({tokens, layout.kv_heads * layout.head_dim});
}

struct AttentionFunction : public torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_TD,
                            const at::Tensor& k_TD, const at::Tensor& v_TD,
                            const c10::intrusive_ptr<Layout>& layout) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Turn(q_TD, layout->heads, *layout, RopeDirection::kForward);
    Turn(k_TD, layout->kv_heads, *layout, RopeDirection::kForward);
    const at::Tensor keys = RepeatHeads(k_TD, *layout);
    const at::Tensor values = RepeatHeads(v_TD, *layout);
    at::Tensor out_TD = at::empty_like(q_TD);

    variable_list saved = {q_TD, k_TD, v_TD, out_TD};
    for (size_t s = 0; s < layout->segments(); ++s) {
      const int64_t begin = layout->cu_seqlens[s];
      const int64_t end = layout->cu_seqlens[s + 1];
      const auto [out, log_sum_exp] =
          at::_scaled_dot_product_flash_attention_for_cpu(
              Segment(q_TD, begin, end, *layout),
              Segment(keys, begin, end, *layout),
              Segment(values, begin, end, *layout), /*dropout_p=*/0,
              /*is_causal=*/true);
      Segment(out_TD, begin, end, *layout).copy_(out);
      saved.push_back(log_sum_exp);
    }
    context->save_for_backward(saved);
    context->saved_data["layout"] = c10::IValue::make_capsule(layout);
    return out_TD;
  }

  static variable_list backward(AutogradContext* context,
                                variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto capsule = context->saved_data["layout"].toCapsule();
    const auto* const layout = static_cast<const Layout*>(capsule.get());
    const at::Tensor &q_TD = saved[0], &k_TD = saved[1], &v_TD = saved[2],
                     &out_TD = saved[3];
    const at::Tensor dout_TD = gradients[0].contiguous();
    const at::Tensor keys = RepeatHeads(k_TD, *layout);
    const at::Tensor values = RepeatHeads(v_TD, *layout);
    at::Tensor dq_TD = at::empty_like(q_TD);
    at::Tensor dkeys = at::empty_like(q_TD);
    at::Tensor dvalues = at::empty_like(q_TD);
    for (size_t s = 0; s < layout->segments(); ++s) {
      const int64_t begin = layout->cu_seqlens[s];
      const int64_t end = layout->cu_seqlens[s + 1];
      const auto [dq, dk, dv] =
          at::_scaled_dot_product_flash_attention_for_cpu_backward(
              Segment(dout_TD, begin, end, *layout),
              Segment(q_TD, begin, end, *layout),
              Segment(keys, begin, end, *layout),
              Segment(values, begin, end, *layout),
              Segment(out_TD, begin, end, *layout), saved[4 + s],
              /*dropout_p=*/0, /*is_causal=*/true);
      Segment(dq_TD, begin, end, *layout).copy_(dq);
      Segment(dkeys, begin, end, *layout).copy_(dk);
      Segment(dvalues, begin, end, *layout).copy_(dv);
    }
    at::Tensor dk_TD = SumHeads(dkeys, *layout);
    Turn(dq_TD, layout->heads, *layout, RopeDirection::kBackward);
    Turn(dk_TD, layout->kv_heads, *layout, RopeDirection::kBackward);
    return {dq_TD, dk_TD, SumHeads(dvalues, *layout), at::Tensor()};
  }
};

}  // namespace

at::Tensor PackedAttention(const at::Tensor& q_TD, const at::Tensor& k_TD,
                           const at::Tensor& v_TD, const ModelSpec& spec,
                           const PackedBatch& batch, const RopeTable& table) {
  auto layout = c10::make_intrusive<Layout>();
  layout->heads = spec.num_heads;
  layout->kv_heads = spec.num_kv_heads;
  layout->head_dim = spec.head_dim;
  layout->positions = batch.positions;
  layout->cu_seqlens = batch.cu_seqlens;
  layout->table = &table;
  return AttentionFunction::apply(q_TD, k_TD, v_TD, layout);
}

}  // namespace ft
