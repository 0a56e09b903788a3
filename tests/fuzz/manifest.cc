// SPDX-License-Identifier: Apache-2.0
//
// The manifest of an artifact: bytes that anybody may upload.

#include "artifact/manifest.h"

#include "common/file.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

FT_FUZZ_TARGET(manifest) {
  const absl::StatusOr<v1::Manifest> manifest = ParseManifest(input);
  if (!manifest.ok()) {
    FT_CHECK(absl::IsInvalidArgument(manifest.status()) ||
             absl::IsResourceExhausted(manifest.status()));
    return;
  }
  FT_CHECK(BytesOf(*manifest) >= 0);
  for (const v1::FileEntry& file : manifest->files()) {
    FT_CHECK(IsSafeRelativePath(file.path()));
  }
  const std::string bytes = SerializeManifest(*manifest);
  const absl::StatusOr<v1::Manifest> again = ParseManifest(bytes);
  FT_CHECK(again.ok());
  FT_CHECK(SerializeManifest(*again) == bytes);
}

}  // namespace
}  // namespace ft
