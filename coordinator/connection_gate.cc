// SPDX-License-Identifier: Apache-2.0

#include "coordinator/connection_gate.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/status.h"
#include "coordinator/http2_opening.h"

namespace ft {
namespace {

constexpr int kBacklog = 1024;
// Between two looks at those that wait.
constexpr int kAcceptsAtOnce = 64;
constexpr size_t kReadBytes = 16 << 10;
// What a refused client may go on to send while it reads why.
constexpr size_t kMaxDiscardedBytes = 1 << 20;
// Without a file descriptor left and nobody to end.
constexpr absl::Duration kPauseOfAccept = absl::Milliseconds(10);
// How long what was sent may stay unacknowledged before the connection is
// taken for dead; keepalive finds one that has nothing to send.
constexpr unsigned kUserTimeoutMs = 15'000;

// The ids of what is not a waiting connection.
constexpr uint64_t kListenerId = 0;
constexpr uint64_t kStopId = 1;

absl::StatusOr<UniqueFd> Listen(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  if (host == "localhost") hints.ai_family = AF_INET;
  addrinfo* found = nullptr;
  if (const int error =
          getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
      error != 0) {
    return absl::UnavailableError(
        absl::StrCat(host, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> address(found,
                                                               freeaddrinfo);
  UniqueFd fd(socket(address->ai_family,
                     SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) return ErrnoStatus(errno, "socket");
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd.get(), address->ai_addr, address->ai_addrlen) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  return fd;
}

absl::StatusOr<int> PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoStatus(errno, "getsockname");
  }
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                   : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

absl::Status Watch(int epoll, int fd, uint64_t id) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl");
  }
  return absl::OkStatus();
}

// What is sent here is shorter than any socket's buffer; a client that has
// filled it does not read, and misses an explanation only.
void Send(int fd, absl::string_view bytes) {
  (void)send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

struct ConnectionGate::Waiting {
  UniqueFd fd;
  absl::Duration until;
  Http2Opening opening;
  bool is_admitted = false;  // It only has to acknowledge our SETTINGS.
  bool is_refused = false;
  size_t discarded = 0;
};

absl::StatusOr<std::unique_ptr<ConnectionGate>> ConnectionGate::Open(
    ConnectionGateOptions options) {
  FT_ASSIGN_OR_RETURN(UniqueFd listener, Listen(options.host, options.port));
  FT_ASSIGN_OR_RETURN(const int port, PortOf(listener.get()));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.is_open()) return ErrnoStatus(errno, "epoll_create1");
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.is_open()) return ErrnoStatus(errno, "eventfd");
  FT_RETURN_IF_ERROR(Watch(epoll.get(), listener.get(), kListenerId));
  FT_RETURN_IF_ERROR(Watch(epoll.get(), stop.get(), kStopId));
  return std::unique_ptr<ConnectionGate>(
      new ConnectionGate(std::move(options), std::move(listener), port,
                         std::move(epoll), std::move(stop)));
}

ConnectionGate::ConnectionGate(ConnectionGateOptions options, UniqueFd listener,
                               int port, UniqueFd epoll, UniqueFd stop)
    : options_(std::move(options)),
      listener_(std::move(listener)),
      port_(port),
      epoll_(std::move(epoll)),
      stop_(std::move(stop)),
      last_id_(kStopId),
      thread_([this] { Run(); }) {}

ConnectionGate::~ConnectionGate() {
  FT_CHECK(eventfd_write(stop_.get(), 1) == 0);
  thread_.join();
}

void ConnectionGate::Run() {
  std::array<epoll_event, 64> events;
  while (true) {
    int timeout_ms = -1;
    if (!waiting_.empty()) {
      const absl::Duration left =
          waiting_.begin()->second.until - clock_.Monotonic();
      timeout_ms = static_cast<int>(
          1 + std::max<int64_t>(0, absl::ToInt64Milliseconds(left)));
    }
    const int count =
        epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
    FT_CHECK(count >= 0 || errno == EINTR);
    bool has_new = false;
    for (int i = 0; i < count; ++i) {
      const uint64_t id = events[static_cast<size_t>(i)].data.u64;
      if (id == kStopId) return;
      if (id == kListenerId) {
        has_new = true;
      } else {
        Read(id);
      }
    }
    // New ones last: those that wait are nearer to being let in.
    if (has_new) Accept();
    EndLate();
  }
}

void ConnectionGate::Accept() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr,
                        SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.is_open()) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      const bool is_short = errno == EMFILE || errno == ENFILE ||
                            errno == ENOBUFS || errno == ENOMEM;
      if (is_short && !EndOldest()) absl::SleepFor(kPauseOfAccept);
      return;
    }
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs,
               sizeof(kUserTimeoutMs));
    if (waiting_.size() >= options_.max_waiting) EndOldest();
    const uint64_t id = ++last_id_;
    if (!Watch(epoll_.get(), fd.get(), id).ok()) continue;
    // A client waits for it before it makes a call.
    Send(fd.get(), ServerOpening());
    Waiting& waiting = waiting_[id];
    waiting.fd = std::move(fd);
    waiting.until = clock_.Monotonic() + options_.patience;
  }
}

void ConnectionGate::Read(uint64_t id) {
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) return;  // Ended since it was told ready.
  Waiting& waiting = found->second;
  std::array<char, kReadBytes> buffer;
  const ssize_t got = recv(waiting.fd.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    waiting_.erase(found);
    return;
  }
  if (waiting.is_refused) {
    waiting.discarded += static_cast<size_t>(got);
    if (waiting.discarded > kMaxDiscardedBytes) waiting_.erase(found);
    return;
  }
  if (const absl::Status fed =
          waiting.opening.Feed({buffer.data(), static_cast<size_t>(got)});
      !fed.ok()) {
    options_.on_ended("malformed");
    Send(waiting.fd.get(),
         GoAway(absl::IsResourceExhausted(fed) ? GoAwayReason::kEnhanceYourCalm
                                               : GoAwayReason::kProtocolError));
    waiting_.erase(found);
    return;
  }
  if (!waiting.is_admitted && waiting.opening.has_call()) {
    if (const absl::Status checked =
            options_.check(waiting.opening.authorization());
        !checked.ok()) {
      Refuse(waiting, checked);
      return;
    }
    waiting.is_admitted = true;
  }
  // An acknowledgement that came later would answer SETTINGS that gRPC has not
  // sent.
  if (waiting.is_admitted && waiting.opening.is_acknowledged()) {
    UniqueFd fd = std::move(waiting.fd);
    std::string bytes = waiting.opening.TakeBytes();
    waiting_.erase(found);
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
    options_.admit(std::move(fd), std::move(bytes));
  }
}

void ConnectionGate::Refuse(Waiting& waiting, const absl::Status& why) {
  Send(waiting.fd.get(),
       UnauthenticatedAnswer(waiting.opening.stream(), why.message()));
  // Closed at once, with bytes unread, the answer could be lost.
  shutdown(waiting.fd.get(), SHUT_WR);
  waiting.is_refused = true;
  waiting.opening = Http2Opening();
}

void ConnectionGate::EndLate() {
  const absl::Duration now = clock_.Monotonic();
  while (!waiting_.empty() && waiting_.begin()->second.until <= now) {
    EndOldest();
  }
}

bool ConnectionGate::EndOldest() {
  if (waiting_.empty()) return false;
  Waiting& oldest = waiting_.begin()->second;
  if (!oldest.is_refused) {
    options_.on_ended("no_call");
    Send(oldest.fd.get(), GoAway(GoAwayReason::kNoError));
  }
  waiting_.erase(waiting_.begin());
  return true;
}

}  // namespace ft
