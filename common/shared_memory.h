// SPDX-License-Identifier: Apache-2.0
//
// Memory that processes share by descriptor (memfd): it has no name, so nothing
// of it can be left behind, whoever dies.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/file.h"

namespace ft {

// What a gang on one machine gets for each of its ranks.
inline constexpr int64_t kSharedMemoryBytesPerRank = 4 << 20;

// `bytes` of zeros. They are allocated now and the size is sealed: no use of
// them can fail later. `name` is only for /proc.
// RESOURCE_EXHAUSTED: there is not so much memory.
absl::StatusOr<UniqueFd> CreateSharedMemory(const std::string& name,
                                            int64_t bytes);

// Whether nobody can make the memory smaller under a reader.
bool IsSizeSealed(int fd);

}  // namespace ft
