// SPDX-License-Identifier: Apache-2.0
//
// A safetensors file that holds a weight of 8 x 18 elements in the 4 bits of
// bitsandbytes. Every byte of an accepted one is touched.

#include <unistd.h>

#include <cmath>
#include <numeric>

#include "common/file.h"
#include "formats/bitsandbytes.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

// The folder of a model whose only file has these bytes.
std::string ModelFolder(absl::string_view input) {
  static const auto* const dir = new TempDir(TempDir::Create().value());
  const std::string path = JoinPath(dir->path(), "model.safetensors");
  FT_CHECK(RemoveFile(path).ok());
  FT_CHECK(symlink(fuzz::InputFile(input).c_str(), path.c_str()) == 0);
  return dir->path();
}

FT_FUZZ_TARGET(stored_nf4) {
  const absl::StatusOr<SafetensorsModel> model =
      SafetensorsModel::Open(ModelFolder(input));
  if (!model.ok() || !IsStoredNf4(*model, "w")) return;
  const absl::StatusOr<StoredNf4> stored = ReadStoredNf4(*model, "w", {8, 18});
  if (!stored.ok()) return;
  FT_CHECK(stored->codes.size() == 72);
  FT_CHECK(stored->scales.size() == (stored->double_quant ? 3 : 12));
  FT_CHECK(stored->super_scales.size() == (stored->double_quant ? 4 : 0));
  FT_CHECK(std::isfinite(stored->offset));
  unsigned sum = 0;
  for (const auto& part :
       {stored->codes, stored->scales, stored->super_scales}) {
    for (const std::byte byte : part) sum += static_cast<unsigned>(byte);
  }
  FT_CHECK(sum <= 255u * 88);
  for (const float value : stored->scale_values) {
    FT_CHECK(std::isfinite(value));
  }
}

}  // namespace
}  // namespace ft
