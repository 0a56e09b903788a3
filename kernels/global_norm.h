// SPDX-License-Identifier: Apache-2.0
//
// The global gradient norm in a form that does not depend on how the buffer is
// cut over ranks: each tile of 1,024 elements is summed on its own in fp64, and
// the tiles are added in the order of their index.

#pragma once

#include <cstdint>
#include <span>

namespace ft {

inline constexpr int64_t kNormTile = 1024;

// The sum of squares of each tile, fp64; the last tile may be short.
// REQUIRES: tiles.size() == values.size() / kNormTile, rounded up
void TileSquares(std::span<const float> values, std::span<double> tiles);
void TileSquaresReference(std::span<const float> values,
                          std::span<double> tiles);

// Adds them in the order of their index.
double SumTiles(std::span<const double> tiles);

// min(1, max_norm / (norm + 1e-6)); 1 if max_norm is 0.
double ClipFactor(double norm, double max_norm);

}  // namespace ft
