// SPDX-License-Identifier: Apache-2.0
//
// HTTP/2 by hand (RFC 9113), for clients that no library would be: frames in
// any order and of any size over a plain socket.

#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "common/file.h"

namespace ft::testing {

inline constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum class FrameType : uint8_t {
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kContinuation = 9,
};

inline constexpr uint8_t kAck = 1;         // Of SETTINGS.
inline constexpr uint8_t kEndHeaders = 4;  // Of HEADERS and CONTINUATION.

inline std::string Frame(FrameType type, uint8_t flags, uint32_t stream,
                         absl::string_view payload) {
  std::string frame;
  for (const int shift : {16, 8, 0}) {
    frame.push_back(static_cast<char>(payload.size() >> shift));
  }
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  for (const int shift : {24, 16, 8, 0}) {
    frame.push_back(static_cast<char>(stream >> shift));
  }
  frame.append(payload.data(), payload.size());
  return frame;
}

// A number in 7 bits of HPACK (RFC 7541, 5.1).
inline std::string HpackLength(size_t value) {
  if (value < 127) return std::string(1, static_cast<char>(value));
  std::string bytes(1, 127);
  for (value -= 127; value >= 128; value /= 128) {
    bytes.push_back(static_cast<char>(value % 128 + 128));
  }
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

// A header as a literal that is not indexed.
inline std::string Header(absl::string_view name, absl::string_view value) {
  std::string bytes(1, '\0');
  bytes += HpackLength(name.size());
  bytes.append(name.data(), name.size());
  bytes += HpackLength(value.size());
  bytes.append(value.data(), value.size());
  return bytes;
}

// The headers of a call.
inline std::string CallHeaders(absl::string_view path,
                               absl::string_view token) {
  return Header(":method", "POST") + Header(":scheme", "http") +
         Header(":path", path) + Header(":authority", "localhost") +
         Header("te", "trailers") + Header("content-type", "application/grpc") +
         Header("authorization", token);
}

// A connection; calls fail quietly when the server has closed it.
class RawClient {
 public:
  explicit RawClient(const std::string& address) {
    const size_t colon = address.rfind(':');
    int port = 0;
    if (!absl::SimpleAtoi(address.substr(colon + 1), &port)) return;
    fd_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval patience{.tv_sec = 1, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    is_open_ =
        connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
  }

  bool is_open() const { return is_open_; }

  // False: the server takes no more.
  bool Send(absl::string_view bytes) {
    while (is_open_ && !bytes.empty()) {
      const ssize_t put =
          send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      is_open_ = put > 0;
      if (is_open_) bytes.remove_prefix(static_cast<size_t>(put));
    }
    Drain();
    return is_open_;
  }
  bool Begin() {
    return Send(std::string(kPreface) + Frame(FrameType::kSettings, 0, 0, ""));
  }

  // All that the server has sent, once it closes; nullopt: it has not within
  // `seconds`.
  std::optional<std::string> ReadToEnd(int seconds) {
    const timeval patience{.tv_sec = seconds, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    const ssize_t got = Receive(/*flags=*/0);
    if (got == 0 || errno == ECONNRESET) return received_;
    return std::nullopt;
  }
  bool IsClosedWithin(int seconds) { return ReadToEnd(seconds).has_value(); }

 private:
  // A flood is answered by a flood: the end of it tells nothing.
  static constexpr size_t kMostKept = 64 << 10;

  // Until there is nothing more. What the last recv returned.
  ssize_t Receive(int flags) {
    char buffer[1 << 14];
    ssize_t got = 0;
    while ((got = recv(fd_.get(), buffer, sizeof(buffer), flags)) > 0) {
      if (received_.size() < kMostKept) {
        received_.append(buffer, static_cast<size_t>(got));
      }
    }
    return got;
  }
  void Drain() {
    if (Receive(MSG_DONTWAIT) == 0) is_open_ = false;
  }

  UniqueFd fd_;
  bool is_open_ = false;
  std::string received_;
};

}  // namespace ft::testing
