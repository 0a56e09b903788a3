// SPDX-License-Identifier: Apache-2.0

#include "common/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "common/check.h"
#include "common/status.h"

namespace ft {

std::string EncodeFrame(absl::string_view message) {
  FT_CHECK(message.size() <= kMaxFrameBytes);
  std::string frame;
  frame.reserve(message.size() + 4);
  size_t length = message.size();
  while (length >= 0x80) {
    frame.push_back(static_cast<char>(0x80 | (length & 0x7F)));
    length >>= 7;
  }
  frame.push_back(static_cast<char>(length));
  frame.append(message.data(), message.size());
  return frame;
}

absl::StatusOr<std::optional<std::string>> FrameDecoder::Next() {
  size_t length = 0;
  size_t at = begin_;
  for (int shift = 0;; shift += 7, ++at) {
    if (shift > 21) {
      return absl::InvalidArgumentError("frame: the length is no varint");
    }
    if (at >= buffer_.size()) return std::nullopt;
    const auto byte = static_cast<uint8_t>(buffer_[at]);
    length |= static_cast<size_t>(byte & 0x7F) << shift;
    if (byte < 0x80) break;
  }
  ++at;
  if (length > kMaxFrameBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "frame: ", length, " bytes are more than ", kMaxFrameBytes));
  }
  if (buffer_.size() - at < length) return std::nullopt;

  std::string message = buffer_.substr(at, length);
  begin_ = at + length;
  if (begin_ == buffer_.size() || begin_ > (1 << 16)) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return message;
}

absl::StatusOr<std::string> FrameReader::Read() {
  while (true) {
    FT_ASSIGN_OR_RETURN(std::optional<std::string> message, decoder_.Next());
    if (message.has_value()) return *std::move(message);
    char buffer[1 << 16];
    const ssize_t got = read(fd_, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read a frame");
    if (got == 0) {
      return decoder_.is_inside_message()
                 ? absl::DataLossError("the stream ended inside a message")
                 : absl::OutOfRangeError("the stream ended");
    }
    decoder_.Append({buffer, static_cast<size_t>(got)});
  }
}

absl::Status FrameWriter::Write(absl::string_view message) {
  if (message.size() > kMaxFrameBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "frame: ", message.size(), " bytes are more than ", kMaxFrameBytes));
  }
  const std::string frame = EncodeFrame(message);
  absl::string_view left = frame;
  while (!left.empty()) {
    // MSG_NOSIGNAL: a dead reader is an error here, not a SIGPIPE.
    const ssize_t put = send(fd_, left.data(), left.size(), MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoStatus(errno, "write a frame");
    left.remove_prefix(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

}  // namespace ft
