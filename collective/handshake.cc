// SPDX-License-Identifier: Apache-2.0

#include "collective/handshake.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "collective/socket.h"
#include "common/digest.h"
#include "common/status.h"

namespace ft::internal {
namespace {

constexpr char kMagic[8] = {'f', 't', '-', 'r', 'a', 'n', 'k', '1'};
constexpr size_t kNonceBytes = 32;
constexpr size_t kMacBytes = 32;

// The job travels as a digest: one size for all, and nothing to bound.
struct Hello {
  char magic[8];
  char job_sha256[32];
  uint64_t epoch;
  uint32_t rank;
  uint32_t size;
  char nonce[kNonceBytes];
};
static_assert(sizeof(Hello) == 88);

Hello MakeHello(const Identity& self) {
  Hello hello;
  std::memcpy(hello.magic, kMagic, sizeof(kMagic));
  Sha256 sha;
  sha.Update(self.job_id);
  std::memcpy(hello.job_sha256, sha.Finish().data(), 32);
  hello.epoch = self.epoch;
  hello.rank = static_cast<uint32_t>(self.rank);
  hello.size = static_cast<uint32_t>(self.size);
  std::memcpy(hello.nonce, RandomBytes(kNonceBytes).data(), kNonceBytes);
  return hello;
}

absl::string_view BytesOf(const Hello& hello) {
  return {reinterpret_cast<const char*>(&hello), sizeof(hello)};
}

// Over both hellos, the connector's first, and the role of who proves: a proof
// cannot be sent back to the one who made it.
std::string Proof(const std::string& secret, Side side, const Hello& connector,
                  const Hello& acceptor) {
  return HmacSha256(
      secret, absl::StrCat(side == Side::kConnector ? "connector" : "acceptor",
                           BytesOf(connector), BytesOf(acceptor)));
}

absl::Status CheckHello(const Hello& mine, const Hello& theirs) {
  if (std::memcmp(theirs.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::InvalidArgumentError("the peer is no rank of ours");
  }
  if (std::memcmp(theirs.job_sha256, mine.job_sha256, 32) != 0) {
    return absl::PermissionDeniedError("the peer belongs to another job");
  }
  if (theirs.epoch != mine.epoch) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the peer is of epoch ", theirs.epoch, ", not ", mine.epoch));
  }
  if (theirs.size != mine.size || theirs.rank >= mine.size ||
      theirs.rank == mine.rank) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the peer says it is rank ", theirs.rank, " of ", theirs.size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int> Handshake(int fd, Side side, const Identity& self,
                              Deadline deadline) {
  const Hello mine = MakeHello(self);
  FT_RETURN_IF_ERROR(SendAll(fd, BytesOf(mine), deadline));
  FT_ASSIGN_OR_RETURN(const std::string bytes,
                      ReceiveExactly(fd, sizeof(Hello), deadline));
  Hello theirs;
  std::memcpy(&theirs, bytes.data(), sizeof(theirs));
  FT_RETURN_IF_ERROR(CheckHello(mine, theirs));

  const bool connects = side == Side::kConnector;
  const Hello& connector = connects ? mine : theirs;
  const Hello& acceptor = connects ? theirs : mine;
  FT_RETURN_IF_ERROR(
      SendAll(fd, Proof(self.secret, side, connector, acceptor), deadline));
  FT_ASSIGN_OR_RETURN(const std::string proof,
                      ReceiveExactly(fd, kMacBytes, deadline));
  const Side other = connects ? Side::kAcceptor : Side::kConnector;
  if (!EqualInConstantTime(proof,
                           Proof(self.secret, other, connector, acceptor))) {
    return absl::PermissionDeniedError(
        "the peer does not know the attempt's secret");
  }
  return static_cast<int>(theirs.rank);
}

}  // namespace ft::internal
