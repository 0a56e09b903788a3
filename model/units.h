// SPDX-License-Identifier: Apache-2.0
//
// A model runs unit by unit: the embedding, each block, final norm and head.
// Whoever keeps a unit's weights elsewhere brings them when they are wanted and
// takes its gradients when they are complete; the model knows no more of it.
//
// A unit is one node of the graph. Its forward pass either keeps the graph
// inside, or keeps its input alone and is run again in the backward pass
// (recomputation, arXiv:1604.06174): the same kernels, therefore the same bits.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace ft {

// Called in the same order for each pass over the model, whatever the batch
// holds: ranks that call it in step exchange the same things.
class UnitHooks {
 public:
  virtual ~UnitHooks() = default;

  // The weights of `unit` must lie where they are bound, until Release.
  virtual void Acquire(int64_t unit) = 0;
  virtual void Release(int64_t unit) = 0;

  // Between the two, the gradients of the unit's parameters are added up.
  virtual void BeginGradients(int64_t unit) = 0;
  virtual void EndGradients(int64_t unit) = 0;
};

// Nothing needs to be brought or taken.
class NoUnitHooks : public UnitHooks {
 public:
  void Acquire(int64_t) override {}
  void Release(int64_t) override {}
  void BeginGradients(int64_t) override {}
  void EndGradients(int64_t) override {}
};

struct UnitCall {
  // The unit, and one whose weights it reads besides (a tied head); -1 is the
  // embedding.
  std::vector<int64_t> units;
  // Whether something in it learns. What learns in a unit of `units` but the
  // first gets more gradients from that unit's own call, later.
  bool learns = false;
  // Keep the graph inside rather than run again.
  bool keeps_graph = true;
  // Of the input (undefined if it has none). Where the graph is not kept it
  // runs twice: it has no side effects, and what it holds outlives the graph.
  std::function<at::Tensor(const at::Tensor&)> run;
};

// Runs the unit; the result is part of the graph if the input is, or if
// something learns. `hooks` must outlive the graph.
at::Tensor RunUnit(UnitHooks& hooks, UnitCall call, const at::Tensor& input);

}  // namespace ft
