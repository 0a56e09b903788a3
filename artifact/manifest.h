// SPDX-License-Identifier: Apache-2.0
//
// What an artifact is made of: files by path, size and digest. The manifest is
// a blob itself, named by the digest of its bytes.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ft/v1/artifacts.pb.h"

namespace ft {

inline constexpr int kMaxManifestFiles = 10'000;
inline constexpr int64_t kMaxManifestBytes = 4 << 20;
// Of all files of one artifact together.
inline constexpr int64_t kMaxArtifactBytes = int64_t{1} << 60;

// The bytes of a manifest: its files by path. The same manifest always gives
// the same bytes.
std::string SerializeManifest(v1::Manifest manifest);

// INVALID_ARGUMENT: no manifest, a path that could leave a folder, a path
// twice, a digest that is none, a negative size, a negative step, or too many
// files. RESOURCE_EXHAUSTED: over kMaxManifestBytes or kMaxArtifactBytes.
absl::StatusOr<v1::Manifest> ParseManifest(absl::string_view bytes);
absl::Status CheckManifest(const v1::Manifest& manifest);

int64_t BytesOf(const v1::Manifest& manifest);

}  // namespace ft
