// SPDX-License-Identifier: Apache-2.0
//
// What a rank believes of another. An even first byte plays a peer's handshake
// (its fields are changed as the input says, its proof is right for them), an
// odd one what a proven peer sends while this rank makes collective calls.

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "collective/frame.h"
#include "collective/handshake.h"
#include "collective/tcp_collective.h"
#include "common/digest.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

constexpr char kJob[] = "job-0123456789ab";
constexpr uint64_t kEpoch = 7;
const std::string& Secret() {
  static const std::string secret(kSecretBytes, 's');
  return secret;
}

struct Ends {
  UniqueFd ours;    // Non-blocking.
  UniqueFd theirs;  // Blocking.
};
Ends MakeEnds() {
  int ends[2];
  FT_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  FT_CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// --- Handshake ---------------------------------------------------------------

constexpr size_t kHelloBytes = 88;
constexpr size_t kProofBytes = 32;

// The connector: sends our own hello with `changes` put over it, then the proof
// for what both sides said, xored with `spoil`.
void PlayConnector(int fd, absl::string_view changes, char spoil) {
  std::string theirs(kHelloBytes, '\0');
  if (recv(fd, theirs.data(), theirs.size(), MSG_WAITALL) !=
      static_cast<ssize_t>(kHelloBytes)) {
    return;
  }
  std::string mine = theirs;
  const uint32_t rank = 1;
  std::memcpy(mine.data() + 48, &rank, sizeof(rank));
  for (size_t i = 0; i + 1 < changes.size(); i += 2) {
    mine[static_cast<unsigned char>(changes[i]) % kHelloBytes] ^=
        changes[i + 1];
  }
  std::string proof =
      HmacSha256(Secret(), absl::StrCat("connector", mine, theirs));
  proof[0] ^= spoil;
  const std::string all = mine + proof;
  (void)send(fd, all.data(), all.size(), MSG_NOSIGNAL);
  std::string answer(kProofBytes, '\0');
  (void)recv(fd, answer.data(), answer.size(), MSG_WAITALL);
}

void FuzzHandshake(absl::string_view input) {
  const char spoil = input.empty() ? 0 : input[0];
  const absl::string_view changes =
      input.substr(std::min<size_t>(1, input.size()));
  Ends ends = MakeEnds();
  std::thread peer([&] {
    PlayConnector(ends.theirs.get(), changes, spoil);
    shutdown(ends.theirs.get(), SHUT_RDWR);
  });
  const absl::StatusOr<int> rank =
      internal::Handshake(ends.ours.get(), internal::Side::kAcceptor,
                          {.job_id = kJob,
                           .epoch = kEpoch,
                           .rank = 0,
                           .size = 4,
                           .secret = Secret()},
                          internal::After(absl::Seconds(5)));
  ends.ours.Close();
  peer.join();
  if (!rank.ok()) return;
  FT_CHECK(*rank > 0 && *rank < 4);
  FT_CHECK(spoil == 0);
}

// --- Calls -------------------------------------------------------------------

void FuzzCalls(absl::string_view input) {
  // Four calls; each byte says which and of how many bytes.
  const absl::string_view calls = input.substr(0, 4);
  const absl::string_view sent = input.substr(calls.size());
  Ends ends = MakeEnds();
  if (sent.size() > (32 << 10)) return;  // Must fit into the socket.
  FT_CHECK(send(ends.theirs.get(), sent.data(), sent.size(), 0) ==
           static_cast<ssize_t>(sent.size()));
  shutdown(ends.theirs.get(), SHUT_WR);
  std::vector<UniqueFd> peers(2);
  peers[1] = std::move(ends.ours);
  const auto ranks = TcpOver({.rank = 0,
                              .size = 2,
                              .job_id = kJob,
                              .epoch = kEpoch,
                              .secret = Secret(),
                              .idle_timeout = absl::Seconds(5)},
                             std::move(peers))
                         .value();
  std::vector<std::byte> in(128), out(256);
  absl::Status status;
  for (const char call : calls) {
    if (!status.ok()) break;
    const size_t size = static_cast<unsigned char>(call) / 4 * 2;
    const std::span<std::byte> part = std::span(in).first(size);
    switch (call & 3) {
      case 0:
        status = ranks->AllGather(std::span(out).first(2 * size), part);
        break;
      case 1:
        status = ranks->AllToAll(std::span(out).first(size), part);
        break;
      case 2:
        status = ranks->Broadcast(part, /*root=*/1);
        break;
      default:
        status = ranks->Barrier();
        break;
    }
  }
  if (!status.ok()) {
    FT_CHECK(!ranks->Barrier().ok());  // Once failed, for ever failed.
  }
}

FT_FUZZ_TARGET(collective_frames) {
  if (input.empty()) return;
  const bool is_handshake = input[0] % 2 == 0;
  input.remove_prefix(1);
  is_handshake ? FuzzHandshake(input) : FuzzCalls(input);
}

}  // namespace
}  // namespace ft
