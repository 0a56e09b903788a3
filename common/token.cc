// SPDX-License-Identifier: Apache-2.0

#include "common/token.h"

#include <sys/stat.h>

#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr absl::string_view kPrefix = "ft_";
constexpr size_t kSecretLength = 64;
constexpr size_t kChecksumLength = 8;

std::string Checksum(absl::string_view secret) {
  return Sha256Hex(absl::StrCat("ft token ", secret))
      .substr(0, kChecksumLength);
}

}  // namespace

std::string MakeToken() {
  const std::string secret = RandomHex(kSecretLength / 2);
  return absl::StrCat(kPrefix, secret, Checksum(secret));
}

bool IsWellFormedToken(absl::string_view token) {
  if (token.size() != kPrefix.size() + kSecretLength + kChecksumLength ||
      !absl::StartsWith(token, kPrefix)) {
    return false;
  }
  const absl::string_view secret = token.substr(kPrefix.size(), kSecretLength);
  return EqualInConstantTime(Checksum(secret),
                             token.substr(kPrefix.size() + kSecretLength));
}

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("token file ", path));
  }
  if ((info.st_mode & 0077) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        "token file ", path, ": others may read it; chmod 0600 it"));
  }
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 4096));
  const std::string token(absl::StripAsciiWhitespace(text));
  if (!IsWellFormedToken(token)) {
    return absl::InvalidArgumentError(
        absl::StrCat("token file ", path, ": holds no whole token"));
  }
  return token;
}

absl::StatusOr<std::string> ReadOrMakeTokenFile(const std::string& path) {
  if (!Exists(path)) {
    FT_RETURN_IF_ERROR(MakeDirs(DirName(path), 0700));
    FT_RETURN_IF_ERROR(RemoveTemporaries(path));
    FT_RETURN_IF_ERROR(WriteFileAtomic(path, MakeToken() + "\n", 0600));
  }
  return ReadTokenFile(path);
}

}  // namespace ft
