// SPDX-License-Identifier: Apache-2.0

#include "collective/tcp_collective.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "collective/frame.h"
#include "collective/handshake.h"
#include "collective/sequence.h"
#include "collective/socket.h"
#include "common/check.h"
#include "common/status.h"

namespace ft {
namespace {

using internal::Deadline;
using internal::FrameHeader;
using internal::Identity;
using internal::Listener;
using internal::Side;

// One direction of a pair within one call: a header, then data.
struct Transfer {
  FrameHeader header{};
  std::byte* data = nullptr;  // Not written when sending.
  size_t size = 0;
  size_t done = 0;  // Bytes of header and data so far.

  bool is_over() const { return done == sizeof(FrameHeader) + size; }
  bool is_at_boundary() const { return done == 0 || is_over(); }

  // What is left of the header and of the data.
  std::pair<iovec, iovec> Left() {
    const size_t of_header = std::min(done, sizeof(FrameHeader));
    const size_t of_data = done - of_header;
    return {{reinterpret_cast<std::byte*>(&header) + of_header,
             sizeof(FrameHeader) - of_header},
            {data + of_data, size - of_data}};
  }
};

void Copy(std::span<const std::byte> from, std::byte* to) {
  if (!from.empty() && from.data() != to) {
    std::memcpy(to, from.data(), from.size());
  }
}

absl::Status Gone(absl::string_view why) {
  return absl::AbortedError(absl::StrCat("the rank is gone: ", why));
}

class TcpCollective : public Collective {
 public:
  TcpCollective(const TcpOptions& options, std::vector<UniqueFd> peers,
                UniqueFd wake)
      : options_(options),
        job_(internal::JobTag(options.job_id)),
        peers_(std::move(peers)),
        wake_(std::move(wake)),
        sends_(peers_.size()),
        receives_(peers_.size()),
        polled_(peers_.size() + 1) {}

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  absl::Status AllGather(std::span<std::byte> out,
                         std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() * size());
    sent_.all_gather += static_cast<int64_t>(in.size()) * (size() - 1);
    Copy(in, out.data() + rank() * in.size());
    return Exchange(
        CollectiveOp::kAllGather, in.size(), [&](int) { return in; },
        [&](int r) { return out.subspan(r * in.size(), in.size()); });
  }

  absl::Status AllToAll(std::span<std::byte> out,
                        std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() && in.size() % size() == 0);
    const size_t block = in.size() / size();
    sent_.all_to_all += static_cast<int64_t>(block) * (size() - 1);
    Copy(in.subspan(rank() * block, block), out.data() + rank() * block);
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

  void Abort(const absl::Status& why) override {
    FT_CHECK(!why.ok());
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return;
    failure_ = why;
    if (is_inside_call_) {
      const uint64_t one = 1;
      WriteAll(wake_.get(), {reinterpret_cast<const char*>(&one), sizeof(one)})
          .IgnoreError();  // Fails only when the counter is full: it is awake.
    } else {
      HangUp();
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
    {
      absl::MutexLock lock(&mutex_);
      if (!failure_.ok()) return failure_;
      is_inside_call_ = true;
    }
    sequence_.Add(op, call_size);
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      const std::span<const std::byte> out = outgoing(r);
      const std::span<std::byte> in = incoming(r);
      sends_[r] = {.header = Frame(op, out.size()),
                   .data = const_cast<std::byte*>(out.data()),
                   .size = out.size()};
      receives_[r] = {.data = in.data(), .size = in.size()};
    }
    op_ = op;
    const absl::Status status = Drive();

    absl::MutexLock lock(&mutex_);
    is_inside_call_ = false;
    if (failure_.ok()) failure_ = status;
    if (!failure_.ok()) HangUp();
    return failure_;
  }

  FrameHeader Frame(CollectiveOp op, size_t bytes) const {
    return internal::MakeFrame(op, job_, options_.epoch, sequence_.value(),
                               bytes);
  }

  // Tells the peers why, where a message may begin, and ends the streams: they
  // see it at once, wherever they wait.
  void HangUp() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::string why = std::string(failure_.message());
    why.resize(std::min(why.size(), internal::kMaxAbortBytes));
    const FrameHeader header = Frame(CollectiveOp::kAbort, why.size());
    why.insert(0, reinterpret_cast<const char*>(&header), sizeof(header));
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      if (sends_[r].is_at_boundary()) {
        // Best effort: the end of the stream says the rest.
        (void)send(peers_[r].get(), why.data(), why.size(), MSG_NOSIGNAL);
      }
      shutdown(peers_[r].get(), SHUT_RDWR);
    }
  }

  absl::Status Drive() {
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) FT_RETURN_IF_ERROR(Move(r), "rank ", r);
    }
    Deadline silence_ends = internal::After(options_.idle_timeout);
    while (true) {
      int awaited = -1;
      for (int r = 0; r < size(); ++r) {
        short events = 0;
        if (r != rank() && !sends_[r].is_over()) events |= POLLOUT;
        if (r != rank() && !receives_[r].is_over()) events |= POLLIN;
        if (events != 0) awaited = r;
        // poll() skips negative descriptors.
        polled_[r] = {.fd = events != 0 ? peers_[r].get() : -1,
                      .events = events};
      }
      if (awaited < 0) return absl::OkStatus();
      pollfd& wake = polled_[size()];
      wake = {.fd = wake_.get(), .events = POLLIN};
      FT_ASSIGN_OR_RETURN(const bool is_any_ready,
                          internal::Poll(polled_, silence_ends));
      if (!is_any_ready) {
        return absl::AbortedError(
            absl::StrCat("rank ", awaited, " was silent for ",
                         absl::FormatDuration(options_.idle_timeout)));
      }
      if (wake.revents != 0) return absl::CancelledError("aborted");
      for (int r = 0; r < size(); ++r) {
        if (polled_[r].revents != 0) FT_RETURN_IF_ERROR(Move(r), "rank ", r);
      }
      silence_ends = internal::After(options_.idle_timeout);
    }
  }

  // Sends and receives what is possible without waiting. Receives first: the
  // reason of a peer that hung up is worth more than a broken pipe.
  absl::Status Move(int r) {
    FT_RETURN_IF_ERROR(Receive(peers_[r].get(), receives_[r]));
    return Send(peers_[r].get(), sends_[r]);
  }

  static absl::Status Send(int fd, Transfer& transfer) {
    while (!transfer.is_over()) {
      auto [header, data] = transfer.Left();
      iovec parts[2] = {header, data};
      msghdr message{};
      message.msg_iov = parts;
      message.msg_iovlen = 2;
      const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) break;
      if (sent < 0) return Gone(std::strerror(errno));
      transfer.done += static_cast<size_t>(sent);
    }
    return absl::OkStatus();
  }

  absl::Status Receive(int fd, Transfer& transfer) {
    while (!transfer.is_over()) {
      const auto [header, data] = transfer.Left();
      const iovec& next = header.iov_len > 0 ? header : data;
      const ssize_t got = recv(fd, next.iov_base, next.iov_len, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) break;
      if (got < 0) return Gone(std::strerror(errno));
      if (got == 0) return Gone("it closed the connection");
      const bool was_header = header.iov_len > 0;
      transfer.done += static_cast<size_t>(got);
      if (was_header && transfer.done == sizeof(FrameHeader)) {
        FT_RETURN_IF_ERROR(CheckHeader(fd, transfer));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckHeader(int fd, const Transfer& transfer) const {
    const FrameHeader& got = transfer.header;
    const FrameHeader abort = Frame(CollectiveOp::kAbort, got.bytes);
    // An abort may come at any call, so its sequence is its own.
    if (got.magic == abort.magic && got.job == abort.job &&
        got.epoch == abort.epoch && got.op == abort.op) {
      char why[internal::kMaxAbortBytes];
      const ssize_t size =
          recv(fd, why, std::min<uint64_t>(got.bytes, sizeof(why)), 0);
      return absl::AbortedError(absl::StrCat(
          "it gave up: ",
          absl::string_view(why,
                            static_cast<size_t>(std::max<ssize_t>(size, 0)))));
    }
    return internal::CheckFrame(got, Frame(op_, transfer.size));
  }

  const TcpOptions options_;
  const uint64_t job_;
  const std::vector<UniqueFd> peers_;  // By rank; the own one is closed.
  const UniqueFd wake_;                // An eventfd: Abort ends a poll.
  SequenceHash sequence_;
  CollectiveBytes sent_;
  // Of the call in progress.
  CollectiveOp op_ = CollectiveOp::kBarrier;
  std::vector<Transfer> sends_, receives_;
  std::vector<pollfd> polled_;

  absl::Mutex mutex_;  // Never held while waiting.
  bool is_inside_call_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

constexpr absl::Duration kHandshakeTimeout = absl::Seconds(5);
constexpr int kConnectTries = 3;

std::string AddressKey(int rank) { return absl::StrCat("tcp/", rank); }

Deadline Earlier(Deadline a, Deadline b) { return std::min(a, b); }

// Connects to rank `r`, again if it was too busy to answer.
absl::StatusOr<UniqueFd> ConnectToRank(int r, const std::string& address,
                                       const Identity& self,
                                       Deadline deadline) {
  absl::Status status;
  for (int i = 0; i < kConnectTries && !internal::IsOver(deadline); ++i) {
    FT_ASSIGN_OR_RETURN(UniqueFd fd, internal::Connect(address, deadline));
    const absl::StatusOr<int> peer =
        internal::Handshake(fd.get(), Side::kConnector, self, deadline);
    if (peer.ok() && *peer == r) return fd;
    if (peer.ok()) {
      return absl::PermissionDeniedError(
          absl::StrCat(address, " should be rank ", r, ", it is ", *peer));
    }
    status = peer.status();
    if (!absl::IsUnavailable(status)) break;
  }
  return status.ok() ? absl::DeadlineExceededError("no time is left") : status;
}

// Waits for the ranks above this one.
absl::Status AcceptRanks(const Listener& listener, const Identity& self,
                         Deadline deadline, std::vector<UniqueFd>& peers) {
  absl::Status refused;
  for (int left = self.size - 1 - self.rank; left > 0;) {
    absl::StatusOr<UniqueFd> fd = internal::Accept(listener, deadline);
    if (!fd.ok()) {
      return Annotate(fd.status(),
                      absl::StrCat("waiting for ", left, " more ranks",
                                   refused.ok() ? "" : "; last refused: ",
                                   absl::string_view(refused.message())));
    }
    // A stranger that says nothing must not use up everybody's time.
    const absl::StatusOr<int> peer = internal::Handshake(
        fd->get(), Side::kAcceptor, self,
        Earlier(deadline, internal::After(kHandshakeTimeout)));
    // A stranger, or a rank of an old epoch: hang up, wait for the right one.
    if (!peer.ok() || *peer <= self.rank || peers[*peer].is_open()) {
      refused = peer.ok() ? absl::AlreadyExistsError(absl::StrCat(
                                "rank ", *peer, " is connected already"))
                          : peer.status();
      continue;
    }
    peers[*peer] = *std::move(fd);
    --left;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> ConnectTcp(
    const TcpOptions& options, RendezvousStore& store) {
  FT_CHECK(options.rank >= 0 && options.rank < options.size);
  const Deadline deadline = internal::After(options.connect_timeout);
  const Identity self{.job_id = options.job_id,
                      .epoch = options.epoch,
                      .rank = options.rank,
                      .size = options.size,
                      .secret = options.secret};
  std::vector<UniqueFd> peers(options.size);
  if (options.size > 1) {
    if (options.secret.size() != kSecretBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the attempt's secret must have ", kSecretBytes, " bytes"));
    }
    FT_ASSIGN_OR_RETURN(const Listener listener,
                        internal::Listen(options.bind_address));
    FT_RETURN_IF_ERROR(store.Set(AddressKey(options.rank), listener.address));
    for (int r = 0; r < options.rank; ++r) {
      FT_ASSIGN_OR_RETURN(
          const std::string address,
          store.Get(AddressKey(r), internal::LeftUntil(deadline)),
          "address of rank ", r);
      FT_ASSIGN_OR_RETURN(peers[r], ConnectToRank(r, address, self, deadline),
                          "rank ", r);
    }
    FT_RETURN_IF_ERROR(AcceptRanks(listener, self, deadline, peers));
  }
  return TcpOver(options, std::move(peers));
}

absl::StatusOr<std::unique_ptr<Collective>> TcpOver(
    const TcpOptions& options, std::vector<UniqueFd> peers) {
  FT_CHECK(peers.size() == static_cast<size_t>(options.size));
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.is_open()) return ErrnoStatus(errno, "eventfd");
  return std::make_unique<TcpCollective>(options, std::move(peers),
                                         std::move(wake));
}

}  // namespace ft
