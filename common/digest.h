// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 (the name of every blob), CRC-32C (a check of what crosses a wire)
// and random bytes. The arithmetic is OpenSSL's.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct evp_md_ctx_st;

namespace ft {

// Streaming SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(absl::string_view bytes);
  void Update(const void* data, size_t size);

  // The digest of everything so far; begins anew. 32 bytes.
  std::string Finish();
  // The same as 64 lower-case hexadecimal characters.
  std::string FinishHex();

 private:
  evp_md_ctx_st* context_;
};

std::string Sha256Hex(absl::string_view bytes);

// Any error of reading the file.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

// Whether `text` is 64 lower-case hexadecimal characters.
bool IsSha256Hex(absl::string_view text);

// HMAC-SHA-256, 32 bytes.
std::string HmacSha256(absl::string_view key, absl::string_view message);

// Whether the two are equal, in a time that does not depend on where they
// differ.
bool EqualInConstantTime(absl::string_view a, absl::string_view b);

// CRC-32C (Castagnoli) of `bytes`, continued from `crc`.
uint32_t Crc32c(absl::string_view bytes, uint32_t crc = 0);

// Bytes nobody can guess.
std::string RandomBytes(size_t count);
std::string RandomHex(size_t bytes);

}  // namespace ft
