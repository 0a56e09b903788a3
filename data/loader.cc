// SPDX-License-Identifier: Apache-2.0

#include "data/loader.h"

#include <algorithm>

#include "common/check.h"
#include "data/shuffle.h"

namespace ft {
namespace {

void Append(const TokenizedExample& example, int64_t index, MicroBatch& batch) {
  const auto begin = static_cast<int64_t>(batch.ids.size());
  for (size_t t = 0; t < example.ids.size(); ++t) {
    batch.ids.push_back(example.ids[t]);
    batch.positions.push_back(static_cast<int32_t>(t));
    if (t + 1 < example.ids.size() && example.learned[t + 1]) {
      batch.rows.push_back(begin + static_cast<int64_t>(t));
      batch.labels.push_back(example.ids[t + 1]);
    }
  }
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.ids.size()));
  batch.examples.push_back(index);
}

}  // namespace

int64_t StepsPerPass(int64_t examples, int64_t sequences) {
  return (examples + sequences - 1) / sequences;
}

Loader::Loader(const std::vector<TokenizedExample>& examples,
               LoaderOptions options)
    : examples_(examples), options_(options) {
  FT_CHECK(!examples.empty());
  FT_CHECK(options.sequences >= 1 && options.micro >= 1);
  FT_CHECK(0 <= options.first_lane && options.first_lane <= options.last_lane &&
           options.last_lane <= options.lanes);
}

StepPlan Loader::Plan(const Cursor& cursor) const {
  const auto size = static_cast<int64_t>(examples_.size());
  FT_CHECK(cursor.index >= 0 && cursor.index < size);
  const Permutation permutation(size, options_.seed, cursor.pass);
  const int64_t end = std::min(size, cursor.index + options_.sequences);
  const int64_t per_round = options_.micro * options_.lanes;

  StepPlan plan;
  for (int64_t place = cursor.index; place < end; ++place) {
    const int64_t in_round = (place - cursor.index) % per_round;
    if (in_round == 0) {
      plan.rounds.emplace_back(options_.last_lane - options_.first_lane);
      // The first lane is dealt to first.
      const int64_t dealt = std::min(per_round, end - place);
      plan.most_batches.push_back(
          options_.packing ? 1 : (dealt + options_.lanes - 1) / options_.lanes);
    }
    const int64_t index = options_.shuffle ? permutation(place) : place;
    const TokenizedExample& example = examples_[index];
    plan.targets += example.num_targets();
    plan.tokens += example.size();

    const int64_t lane = in_round % options_.lanes;
    if (lane < options_.first_lane || lane >= options_.last_lane) continue;
    std::vector<MicroBatch>& batches =
        plan.rounds.back()[lane - options_.first_lane];
    if (batches.empty() || !options_.packing) batches.emplace_back();
    Append(example, index, batches.back());
  }
  plan.after =
      end == size ? Cursor{cursor.pass + 1, 0} : Cursor{cursor.pass, end};
  return plan;
}

}  // namespace ft
