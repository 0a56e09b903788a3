// SPDX-License-Identifier: Apache-2.0
//
// data/ speaks plain vectors, model/ reads a PackedBatch.

#pragma once

#include "data/loader.h"
#include "model/batch.h"

namespace ft {

inline PackedBatch Collate(const MicroBatch& batch) {
  return {.ids = batch.ids,
          .positions = batch.positions,
          .cu_seqlens = batch.cu_seqlens};
}

}  // namespace ft
