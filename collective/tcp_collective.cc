// SPDX-License-Identifier: Apache-2.0

#include "collective/tcp_collective.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "collective/handshake.h"
#include "collective/sequence.h"
#include "collective/socket.h"
#include "common/check.h"
#include "common/status.h"

namespace ft {
namespace {

using internal::Accept;
using internal::Connect;
using internal::Handshake;
using internal::Identity;
using internal::Listener;
using internal::Side;

// Before the bytes of every message.
struct Header {
  uint32_t magic;
  uint32_t op;
  uint64_t epoch;
  uint64_t sequence;  // Hash over all calls so far, this one included.
  uint64_t bytes;
};
static_assert(sizeof(Header) == 32);
constexpr uint32_t kHeaderMagic = 0x66744331;

// One direction of a pair within one call: a header, then data.
struct Transfer {
  Header header{};
  std::byte* data = nullptr;  // Not written when sending.
  size_t size = 0;
  size_t done = 0;  // Bytes of header and data so far.

  bool is_over() const { return done == sizeof(Header) + size; }
  // Where the next bytes are, and how many.
  std::pair<std::byte*, size_t> Next() {
    if (done < sizeof(Header)) {
      return {reinterpret_cast<std::byte*>(&header) + done,
              sizeof(Header) - done};
    }
    const size_t at = done - sizeof(Header);
    return {data + at, size - at};
  }
};

class TcpCollective : public Collective {
 public:
  TcpCollective(const TcpOptions& options, std::vector<UniqueFd> peers)
      : options_(options), peers_(std::move(peers)) {}

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  absl::Status AllGather(std::span<std::byte> out,
                         std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() * size());
    sent_.all_gather += static_cast<int64_t>(in.size()) * (size() - 1);
    std::copy_n(in.data(), in.size(), out.data() + rank() * in.size());
    return Exchange(
        CollectiveOp::kAllGather, in.size(), [&](int) { return in; },
        [&](int r) { return out.subspan(r * in.size(), in.size()); });
  }

  absl::Status AllToAll(std::span<std::byte> out,
                        std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() && in.size() % size() == 0);
    const size_t block = in.size() / size();
    sent_.all_to_all += static_cast<int64_t>(block) * (size() - 1);
    std::copy_n(in.data() + rank() * block, block, out.data() + rank() * block);
    return Exchange(
        CollectiveOp::kAllToAll, in.size(),
        [&](int r) { return in.subspan(r * block, block); },
        [&](int r) { return out.subspan(r * block, block); });
  }

  absl::Status Broadcast(std::span<std::byte> data, int root) override {
    const std::span<const std::byte> none;
    if (rank() == root) {
      sent_.broadcast += static_cast<int64_t>(data.size()) * (size() - 1);
    }
    return Exchange(
        CollectiveOp::kBroadcast, data.size(),
        [&](int) {
          return rank() == root ? std::span<const std::byte>(data) : none;
        },
        [&](int r) { return r == root ? data : std::span<std::byte>(); });
  }

  absl::Status Barrier() override {
    return Exchange(
        CollectiveOp::kBarrier, 0,
        [](int) { return std::span<const std::byte>(); },
        [](int) { return std::span<std::byte>(); });
  }

  void Abort(const absl::Status&) override {
    // Peers see the end of the stream at once, wherever they wait.
    aborted_ = true;
    for (const UniqueFd& peer : peers_) {
      if (peer.is_open()) shutdown(peer.get(), SHUT_RDWR);
    }
  }

  uint64_t sequence_hash() const override { return sequence_.value(); }
  const CollectiveBytes& bytes_sent() const override { return sent_; }

 private:
  // Sends `outgoing(r)` to and receives into `incoming(r)` from every peer r,
  // all at once.
  template <typename Outgoing, typename Incoming>
  absl::Status Exchange(CollectiveOp op, size_t call_size,
                        const Outgoing& outgoing, const Incoming& incoming) {
    if (!failure_.ok()) return failure_;
    sequence_.Add(op, call_size);
    std::vector<Transfer> sends(peers_.size()), receives(peers_.size());
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      const std::span<const std::byte> out = outgoing(r);
      const std::span<std::byte> in = incoming(r);
      sends[r] = {.header = {.magic = kHeaderMagic,
                             .op = static_cast<uint32_t>(op),
                             .epoch = options_.epoch,
                             .sequence = sequence_.value(),
                             .bytes = out.size()},
                  .data = const_cast<std::byte*>(out.data()),
                  .size = out.size()};
      receives[r] = {.data = in.data(), .size = in.size()};
    }
    failure_ = Drive(sends, receives);
    // Whoever fails tells the others by hanging up.
    if (!failure_.ok()) Abort(failure_);
    return failure_;
  }

  absl::Status Drive(std::vector<Transfer>& sends,
                     std::vector<Transfer>& receives) {
    absl::Time deadline = absl::Now() + options_.idle_timeout;
    while (true) {
      std::vector<pollfd> waiting;
      std::vector<int> ranks;
      for (int r = 0; r < size(); ++r) {
        if (r == rank()) continue;
        short events = 0;
        if (!sends[r].is_over()) events |= POLLOUT;
        if (!receives[r].is_over()) events |= POLLIN;
        if (events == 0) continue;
        waiting.push_back({.fd = peers_[r].get(), .events = events});
        ranks.push_back(r);
      }
      if (waiting.empty()) return absl::OkStatus();
      const int ready = poll(waiting.data(), waiting.size(), 1000);
      if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
      if (aborted_) return absl::CancelledError("the collective was aborted");
      if (ready <= 0) {
        if (absl::Now() < deadline) continue;
        return absl::DeadlineExceededError(
            absl::StrCat("rank ", ranks[0], " sent nothing for ",
                         absl::FormatDuration(options_.idle_timeout)));
      }
      deadline = absl::Now() + options_.idle_timeout;
      for (size_t i = 0; i < waiting.size(); ++i) {
        const int r = ranks[i];
        if (waiting[i].revents & POLLOUT) {
          FT_RETURN_IF_ERROR(Send(r, sends[r]), "to rank ", r);
        }
        if (waiting[i].revents & (POLLIN | POLLHUP | POLLERR)) {
          FT_RETURN_IF_ERROR(Receive(r, receives[r]), "from rank ", r);
        }
      }
    }
  }

  absl::Status Send(int r, Transfer& transfer) {
    while (!transfer.is_over()) {
      const auto [data, left] = transfer.Next();
      const ssize_t sent = send(peers_[r].get(), data, left, MSG_NOSIGNAL);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (sent < 0) {
        return absl::AbortedError(
            absl::StrCat("the rank is gone: ", std::strerror(errno)));
      }
      transfer.done += static_cast<size_t>(sent);
    }
    return absl::OkStatus();
  }

  absl::Status Receive(int r, Transfer& transfer) {
    while (!transfer.is_over()) {
      const auto [data, left] = transfer.Next();
      const ssize_t got = recv(peers_[r].get(), data, left, 0);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (got < 0) {
        return absl::AbortedError(
            absl::StrCat("the rank is gone: ", std::strerror(errno)));
      }
      if (got == 0) return absl::AbortedError("the rank is gone");
      const bool was_header = transfer.done < sizeof(Header);
      transfer.done += static_cast<size_t>(got);
      if (was_header && transfer.done == sizeof(Header)) {
        FT_RETURN_IF_ERROR(CheckHeader(transfer));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckHeader(const Transfer& transfer) const {
    const Header& header = transfer.header;
    if (header.magic != kHeaderMagic || header.epoch != options_.epoch) {
      return absl::PermissionDeniedError("a message of another attempt");
    }
    if (header.sequence != sequence_.value() || header.bytes != transfer.size) {
      return absl::InternalError(
          absl::StrCat("it made other collective calls: operation ", header.op,
                       " with ", header.bytes, " bytes, here ", transfer.size));
    }
    return absl::OkStatus();
  }

  const TcpOptions options_;
  const std::vector<UniqueFd> peers_;  // By rank; the own one is closed.
  std::atomic<bool> aborted_{false};
  absl::Status failure_;
  SequenceHash sequence_;
  CollectiveBytes sent_;
};

constexpr absl::Duration kHandshakeTimeout = absl::Seconds(5);

std::string AddressKey(int rank) { return absl::StrCat("tcp/", rank); }

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> ConnectTcp(
    const TcpOptions& options, RendezvousStore& store) {
  FT_CHECK(options.rank >= 0 && options.rank < options.size);
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  const Identity self{.job_id = options.job_id,
                      .epoch = options.epoch,
                      .rank = options.rank,
                      .size = options.size,
                      .secret = options.secret};
  std::vector<UniqueFd> peers(options.size);
  if (options.size == 1) {
    return std::make_unique<TcpCollective>(options, std::move(peers));
  }
  FT_ASSIGN_OR_RETURN(const Listener listener,
                      internal::Listen(options.bind_address));
  FT_RETURN_IF_ERROR(store.Set(AddressKey(options.rank), listener.address));

  // Each rank connects to those below it and accepts those above.
  for (int r = 0; r < options.rank; ++r) {
    FT_ASSIGN_OR_RETURN(const std::string address,
                        store.Get(AddressKey(r), deadline - absl::Now()),
                        "address of rank ", r);
    FT_ASSIGN_OR_RETURN(UniqueFd fd, Connect(address, deadline), "rank ", r);
    FT_ASSIGN_OR_RETURN(const int peer,
                        Handshake(fd.get(), Side::kConnector, self, deadline),
                        "rank ", r);
    if (peer != r) {
      return absl::PermissionDeniedError(
          absl::StrCat(address, " should be rank ", r, ", it is ", peer));
    }
    peers[r] = std::move(fd);
  }
  for (int left = options.size - 1 - options.rank; left > 0;) {
    FT_ASSIGN_OR_RETURN(UniqueFd fd, Accept(listener, deadline), "waiting for ",
                        left, " more ranks");
    // A stranger that says nothing must not use up everybody's time.
    const absl::StatusOr<int> peer =
        Handshake(fd.get(), Side::kAcceptor, self,
                  std::min(deadline, absl::Now() + kHandshakeTimeout));
    // A stranger, or a rank of an old epoch: hang up and wait for the right
    // one.
    if (!peer.ok() || *peer <= options.rank || peers[*peer].is_open()) continue;
    peers[*peer] = std::move(fd);
    --left;
  }
  return std::make_unique<TcpCollective>(options, std::move(peers));
}

}  // namespace ft
