// SPDX-License-Identifier: Apache-2.0

#include "model/units.h"

#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <utility>

#include "common/check.h"

namespace ft {
namespace {

using torch::autograd::variable_list;

void AcquireAll(UnitHooks& hooks, const UnitCall& call) {
  for (const int64_t unit : call.units) hooks.Acquire(unit);
}

void ReleaseAll(UnitHooks& hooks, const UnitCall& call) {
  for (const int64_t unit : call.units) hooks.Release(unit);
}

// A leaf with the values of `tensor`, so that the graph behind it ends there.
at::Tensor LeafOf(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  return tensor.detach().set_requires_grad(tensor.requires_grad());
}

class UnitNode : public torch::autograd::Node {
 public:
  UnitNode(UnitHooks& hooks, UnitCall call)
      : hooks_(hooks), call_(std::move(call)) {}

  at::Tensor Forward(const at::Tensor& input) {
    leaf_ = LeafOf(input);
    AcquireAll(hooks_, call_);
    at::Tensor output;
    {
      c10::AutoGradMode grad(call_.keeps_graph);
      output = call_.run(leaf_);
    }
    ReleaseAll(hooks_, call_);
    if (call_.keeps_graph) {
      output_ = output;
      call_.run = nullptr;
    }
    return output.detach();
  }

  variable_list apply(variable_list&& gradients) override {
    FT_CHECK(!std::exchange(was_run_back_, true));
    if (!call_.keeps_graph) {
      AcquireAll(hooks_, call_);
      c10::AutoGradMode grad(true);
      output_ = call_.run(leaf_);
    }
    if (call_.learns) {
      for (const int64_t unit : call_.units) hooks_.BeginGradients(unit);
    }
    torch::autograd::backward({output_}, {std::move(gradients[0])});
    if (!call_.keeps_graph) ReleaseAll(hooks_, call_);
    if (call_.learns) hooks_.EndGradients(call_.units.front());
    variable_list result = {leaf_.defined() ? leaf_.grad() : at::Tensor()};
    release_variables();
    return result;
  }

  void release_variables() override {
    leaf_ = at::Tensor();
    output_ = at::Tensor();
    call_.run = nullptr;
  }

 private:
  UnitHooks& hooks_;
  UnitCall call_;
  at::Tensor leaf_;    // The input.
  at::Tensor output_;  // With the graph inside, where it is kept.
  bool was_run_back_ = false;
};

}  // namespace

at::Tensor RunUnit(UnitHooks& hooks, UnitCall call, const at::Tensor& input) {
  const bool has_graph =
      c10::GradMode::is_enabled() &&
      (call.learns || (input.defined() && input.requires_grad()));
  if (!has_graph) {
    c10::NoGradGuard no_grad;
    AcquireAll(hooks, call);
    at::Tensor output = call.run(input);
    ReleaseAll(hooks, call);
    return output;
  }
  const std::shared_ptr<UnitNode> node(new UnitNode(hooks, std::move(call)),
                                       torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  at::Tensor output = node->Forward(input);
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace ft
