// SPDX-License-Identifier: Apache-2.0
//
// config.json to a ModelSpec, and everything that is derived from one.

#include "formats/model_spec.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

FT_FUZZ_TARGET(config_json) {
  std::vector<std::string> warnings;
  const absl::StatusOr<ModelSpec> spec = ParseModelSpec(input, &warnings);
  if (!spec.ok()) {
    FT_CHECK(absl::IsInvalidArgument(spec.status()) ||
             absl::IsUnimplemented(spec.status()));
    return;
  }
  FT_CHECK(spec->num_heads % spec->num_kv_heads == 0);
  FT_CHECK(spec->head_dim % 2 == 0);
  FT_CHECK(spec->Linears().size() == static_cast<size_t>(7 * spec->num_layers));
  FT_CHECK(spec->NumParameters() > 0);
}

}  // namespace
}  // namespace ft
