// SPDX-License-Identifier: Apache-2.0
//
// Examples to the micro-batches of optimizer steps, dealt to lanes. What a lane
// gets depends on the number of lanes, never on the number of ranks; the state
// is one cursor.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/example.h"

namespace ft {

// The next example is place `index` of `pass`.
struct Cursor {
  int64_t pass = 0;
  int64_t index = 0;
  bool operator==(const Cursor&) const = default;
};

struct LoaderOptions {
  int64_t sequences = 16;  // Examples of a step.
  int64_t micro = 1;       // Examples of a lane's micro-batch.
  int64_t lanes = 1;
  // Lanes of this rank: [first_lane, last_lane).
  int64_t first_lane = 0;
  int64_t last_lane = 1;
  bool packing = true;
  uint64_t seed = 0;
  bool shuffle = true;  // false: file order (evaluation).
};

// Examples one after another without padding; rows[i] is a token whose label
// is labels[i].
struct MicroBatch {
  std::vector<int64_t> ids;
  std::vector<int32_t> positions;
  std::vector<int32_t> cu_seqlens = {0};
  std::vector<int64_t> rows;
  std::vector<int64_t> labels;
  std::vector<int64_t> examples;  // Indices into the data set.
};

struct StepPlan {
  // rounds[r][l]: what lane first_lane + l does in round r. Without packing a
  // lane has a micro-batch an example; a lane without examples has none.
  std::vector<std::vector<std::vector<MicroBatch>>> rounds;
  // By round: the micro-batches of the lane, of any rank, that has most.
  std::vector<int64_t> most_batches;
  // Of all lanes of all ranks.
  int64_t targets = 0;
  int64_t tokens = 0;
  Cursor after;  // Where the next step begins.
};

// The steps that one walk over `examples` takes.
int64_t StepsPerPass(int64_t examples, int64_t sequences);

// Not thread-safe. Plans are a function of options and cursor alone.
class Loader {
 public:
  // `examples` must outlive it. REQUIRES: !examples.empty()
  Loader(const std::vector<TokenizedExample>& examples, LoaderOptions options);

  // The step at the cursor. Does not move it.
  StepPlan Plan(const Cursor& cursor) const;

  int64_t steps_per_pass() const {
    return StepsPerPass(static_cast<int64_t>(examples_.size()),
                        options_.sequences);
  }

 private:
  const std::vector<TokenizedExample>& examples_;
  const LoaderOptions options_;
};

}  // namespace ft
