// SPDX-License-Identifier: Apache-2.0

#include "collective/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/address.h"
#include "common/status.h"

namespace ft::internal {
namespace {

absl::StatusOr<sockaddr_in> AddressOf(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", host, "\" is no IPv4 address"));
  }
  return address;
}

// Waits until `events` are ready.
absl::Status WaitFor(int fd, short events, Deadline deadline) {
  pollfd waiting{.fd = fd, .events = events, .revents = 0};
  FT_ASSIGN_OR_RETURN(const bool is_ready,
                      Poll(std::span(&waiting, 1), deadline));
  if (is_ready) return absl::OkStatus();
  return absl::DeadlineExceededError("the peer did not answer in time");
}

void SetOptions(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const int bytes = 1 << 20;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  // A machine that vanished is noticed also between two steps.
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  const int idle = 10, interval = 5, probes = 3;
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

}  // namespace

Deadline After(absl::Duration timeout) {
  // A year is for ever, and cannot overflow.
  return std::chrono::steady_clock::now() +
         absl::ToChronoMilliseconds(std::min(timeout, absl::Hours(24 * 365)));
}

bool IsOver(Deadline deadline) {
  return std::chrono::steady_clock::now() >= deadline;
}

absl::Duration LeftUntil(Deadline deadline) {
  return absl::FromChrono(deadline - std::chrono::steady_clock::now());
}

absl::StatusOr<bool> Poll(std::span<pollfd> descriptors, Deadline deadline) {
  while (true) {
    // Rounded up, so that the last turn does not spin; cut, so that the sum
    // stays an int.
    const int64_t left = std::clamp<int64_t>(
        absl::ToInt64Milliseconds(LeftUntil(deadline)) + 1, 0, 1 << 30);
    const int ready =
        poll(descriptors.data(), descriptors.size(), static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
    if (IsOver(deadline)) return false;
  }
}

absl::StatusOr<Listener> Listen(const std::string& host) {
  FT_ASSIGN_OR_RETURN(sockaddr_in address, AddressOf(host, 0));
  Listener listener{
      .fd = UniqueFd(
          socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))};
  if (!listener.fd.is_open()) return ErrnoStatus(errno, "socket");
  socklen_t size = sizeof(address);
  if (bind(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), size) !=
          0 ||
      listen(listener.fd.get(), 128) != 0 ||
      getsockname(listener.fd.get(), reinterpret_cast<sockaddr*>(&address),
                  &size) != 0) {
    return ErrnoStatus(errno, absl::StrCat("listen on ", host));
  }
  listener.address = absl::StrCat(host, ":", ntohs(address.sin_port));
  return listener;
}

absl::StatusOr<UniqueFd> Connect(const std::string& address,
                                 Deadline deadline) {
  FT_ASSIGN_OR_RETURN(const HostPort target, ParseAddress(address));
  FT_ASSIGN_OR_RETURN(const sockaddr_in peer,
                      AddressOf(target.host, target.port));
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) return ErrnoStatus(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer),
              sizeof(peer)) != 0 &&
      errno != EINPROGRESS) {
    return absl::UnavailableError(
        absl::StrCat("connect to ", address, ": ", std::strerror(errno)));
  }
  FT_RETURN_IF_ERROR(WaitFor(fd.get(), POLLOUT, deadline), "connect to ",
                     address);
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("connect to ", address, ": ", std::strerror(error)));
  }
  SetOptions(fd.get());
  return fd;
}

absl::StatusOr<UniqueFd> Accept(const Listener& listener, Deadline deadline) {
  while (true) {
    FT_RETURN_IF_ERROR(WaitFor(listener.fd.get(), POLLIN, deadline), "accept");
    UniqueFd fd(accept4(listener.fd.get(), nullptr, nullptr,
                        SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.is_open()) {
      SetOptions(fd.get());
      return fd;
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      return ErrnoStatus(errno, "accept");
    }
  }
}

absl::Status SendAll(int fd, absl::string_view bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      FT_RETURN_IF_ERROR(WaitFor(fd, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return absl::UnavailableError(
          absl::StrCat("send: ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReceiveExactly(int fd, size_t size,
                                           Deadline deadline) {
  std::string bytes(size, '\0');
  for (size_t at = 0; at < size;) {
    const ssize_t got = recv(fd, bytes.data() + at, size - at, 0);
    if (got > 0) {
      at += static_cast<size_t>(got);
    } else if (got == 0) {
      return absl::UnavailableError("the peer closed the connection");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      FT_RETURN_IF_ERROR(WaitFor(fd, POLLIN, deadline));
    } else if (errno != EINTR) {
      return absl::UnavailableError(
          absl::StrCat("receive: ", std::strerror(errno)));
    }
  }
  return bytes;
}

}  // namespace ft::internal
