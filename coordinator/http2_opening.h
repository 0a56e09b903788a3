// SPDX-License-Identifier: Apache-2.0
//
// How a client's HTTP/2 connection begins (RFC 9113, 3.4): the preface, its
// SETTINGS, and the headers of the first call. Read here, before gRPC sees a
// byte, so that only a connection whose first call has a token gets that far.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

// The greatest number of concurrent calls of a connection, and of bytes of the
// headers of one.
inline constexpr uint32_t kMaxConcurrentStreams = 100;
inline constexpr uint32_t kMaxMetadataBytes = 8 << 10;

// Parses what a client sends, without I/O. Not thread-safe.
class Http2Opening {
 public:
  // Takes the bytes that came next. INVALID_ARGUMENT: this is no client of
  // HTTP/2. RESOURCE_EXHAUSTED: it is longer than an opening needs. After an
  // error nothing more may be fed.
  absl::Status Feed(absl::string_view bytes);

  // The headers of the first call are whole; the two below say what they are.
  bool has_call() const { return stream_ != 0; }
  uint32_t stream() const { return stream_; }
  const std::optional<std::string>& authorization() const {
    return authorization_;
  }

  // The client has acknowledged the SETTINGS of ServerOpening: it now keeps
  // the limits in them.
  bool is_acknowledged() const { return is_acknowledged_; }

  // All that came but that acknowledgement, for whoever serves the connection
  // and sends SETTINGS of its own.
  std::string TakeBytes() { return std::move(bytes_); }

 private:
  struct Header {
    size_t length = 0;
    uint8_t type = 0;
    uint8_t flags = 0;
    uint32_t stream = 0;
  };

  absl::Status TakePreface();
  absl::Status TakeFrame(const Header& header, absl::string_view payload);
  absl::Status TakeHeaders(const Header& header, absl::string_view payload);
  absl::Status DecodeBlock();

  std::string bytes_;
  size_t parsed_ = 0;  // So many of bytes_ are whole frames.
  bool has_preface_ = false;
  bool has_settings_ = false;
  bool is_acknowledged_ = false;
  uint32_t block_stream_ = 0;  // Whose header block is not at its end, or 0.
  std::string block_;
  uint32_t stream_ = 0;
  std::optional<std::string> authorization_;
};

// What the server sends first: SETTINGS with the limits above.
std::string ServerOpening();

// The answer UNAUTHENTICATED to the call on `stream`, and GOAWAY.
std::string UnauthenticatedAnswer(uint32_t stream, absl::string_view message);

// Why a connection ends (RFC 9113, 7).
enum class GoAwayReason : uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kEnhanceYourCalm = 11,
};

// GOAWAY: no call was served; a client may try each again.
std::string GoAway(GoAwayReason reason);

}  // namespace ft
