// SPDX-License-Identifier: Apache-2.0
//
// Messages over a byte stream: each is its length as a varint (protobuf's
// base-128), then its bytes. What the rank and its daemon speak.

#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/file.h"

namespace ft {

inline constexpr size_t kMaxFrameBytes = 4 << 20;

// The frame of one message. REQUIRES: message.size() <= kMaxFrameBytes
std::string EncodeFrame(absl::string_view message);

// Takes a stream apart, however it is cut. Not thread-safe.
class FrameDecoder {
 public:
  void Append(absl::string_view bytes) {
    buffer_.append(bytes.data(), bytes.size());
  }

  // The next whole message, or nothing yet.
  // INVALID_ARGUMENT: a length over kMaxFrameBytes or no varint; the stream is
  // of no more use.
  absl::StatusOr<std::optional<std::string>> Next();

  // Whether a message has begun and not ended.
  bool is_inside_message() const { return begin_ < buffer_.size(); }

 private:
  std::string buffer_;
  size_t begin_ = 0;
};

// Blocking ends over a descriptor that the caller owns. One thread each.
class FrameReader {
 public:
  explicit FrameReader(int fd) : fd_(fd) {}

  // OUT_OF_RANGE: the stream ended between messages. DATA_LOSS: inside one.
  absl::StatusOr<std::string> Read();

 private:
  const int fd_;
  FrameDecoder decoder_;
};

// Over a socket whose other end may send descriptors along.
class FrameAndFdReader {
 public:
  explicit FrameAndFdReader(int fd) : fd_(fd) {}

  // As FrameReader::Read. A descriptor that came with a message is there when
  // the message is.
  absl::StatusOr<std::string> Read();

  // The oldest descriptor that came; closed if none did.
  UniqueFd TakeDescriptor();

 private:
  const int fd_;
  FrameDecoder decoder_;
  std::deque<UniqueFd> descriptors_;
};

class FrameWriter {
 public:
  explicit FrameWriter(int fd) : fd_(fd) {}

  // INVALID_ARGUMENT: the message is too large; nothing was written.
  absl::Status Write(absl::string_view message);

  // Sends a duplicate of `descriptor` along. REQUIRES: a Unix socket
  absl::Status WriteWithFd(absl::string_view message, int descriptor);

 private:
  const int fd_;
};

}  // namespace ft
