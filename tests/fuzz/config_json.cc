// SPDX-License-Identifier: Apache-2.0
//
// config.json to a ModelSpec and to a ModelShape, and everything that is
// derived from one.

#include "formats/model_shape.h"
#include "formats/model_spec.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

// What is planned may be of more families than what is trained.
void CheckShape(absl::string_view input) {
  const absl::StatusOr<ModelShape> shape = ParseModelShape(input);
  if (!shape.ok()) {
    FT_CHECK(absl::IsInvalidArgument(shape.status()) ||
             absl::IsUnimplemented(shape.status()));
    return;
  }
  FT_CHECK(shape->num_heads % shape->num_kv_heads == 0);
  int64_t elements = 0;
  for (const LinearShape& linear : shape->Linears()) {
    FT_CHECK(linear.numel() > 0);
    elements += linear.numel();
  }
  FT_CHECK(elements == shape->LinearsOfBlock());
  FT_CHECK(shape->Block() > elements);
  FT_CHECK(shape->NumParameters() > shape->Block());
}

FT_FUZZ_TARGET(config_json) {
  CheckShape(input);
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
