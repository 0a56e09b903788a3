// SPDX-License-Identifier: Apache-2.0

#include "common/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

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

namespace {

// The next message of `decoder`, which `receive` feeds: it is read(2) but for
// what else it takes.
template <typename Receive>
absl::StatusOr<std::string> ReadFrame(FrameDecoder& decoder,
                                      const Receive& receive) {
  while (true) {
    FT_ASSIGN_OR_RETURN(std::optional<std::string> message, decoder.Next());
    if (message.has_value()) return *std::move(message);
    char buffer[1 << 16];
    const ssize_t got = receive(buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read a frame");
    if (got == 0) {
      return decoder.is_inside_message()
                 ? absl::DataLossError("the stream ended inside a message")
                 : absl::OutOfRangeError("the stream ended");
    }
    decoder.Append({buffer, static_cast<size_t>(got)});
  }
}

// Writes what `send_some` takes at a time; it is send(2) but for what else it
// sends.
template <typename SendSome>
absl::Status WriteFrame(absl::string_view message, const SendSome& send_some) {
  if (message.size() > kMaxFrameBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "frame: ", message.size(), " bytes are more than ", kMaxFrameBytes));
  }
  const std::string frame = EncodeFrame(message);
  absl::string_view left = frame;
  while (!left.empty()) {
    const ssize_t put = send_some(left);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoStatus(errno, "write a frame");
    left.remove_prefix(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

// Room for the one descriptor of a message.
union OneDescriptor {
  cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
};

}  // namespace

absl::StatusOr<std::string> FrameReader::Read() {
  return ReadFrame(decoder_, [this](char* buffer, size_t size) {
    return read(fd_, buffer, size);
  });
}

absl::StatusOr<std::string> FrameAndFdReader::Read() {
  return ReadFrame(decoder_, [this](char* buffer, size_t size) {
    iovec part{buffer, size};
    OneDescriptor control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof(control);
    const ssize_t got = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
    for (cmsghdr* item = got < 0 ? nullptr : CMSG_FIRSTHDR(&message);
         item != nullptr; item = CMSG_NXTHDR(&message, item)) {
      if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS ||
          item->cmsg_len != CMSG_LEN(sizeof(int))) {
        continue;
      }
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(item), sizeof(descriptor));
      descriptors_.emplace_back(descriptor);
    }
    return got;
  });
}

UniqueFd FrameAndFdReader::TakeDescriptor() {
  if (descriptors_.empty()) return UniqueFd();
  UniqueFd oldest = std::move(descriptors_.front());
  descriptors_.pop_front();
  return oldest;
}

absl::Status FrameWriter::Write(absl::string_view message) {
  return WriteFrame(message, [this](absl::string_view left) {
    // MSG_NOSIGNAL: a dead reader is an error here, not a SIGPIPE.
    return send(fd_, left.data(), left.size(), MSG_NOSIGNAL);
  });
}

absl::Status FrameWriter::WriteWithFd(absl::string_view message,
                                      int descriptor) {
  bool is_sent = false;  // It travels with the first byte.
  return WriteFrame(message, [&](absl::string_view left) {
    iovec part{const_cast<char*>(left.data()), left.size()};
    OneDescriptor control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!is_sent) {
      control.header.cmsg_level = SOL_SOCKET;
      control.header.cmsg_type = SCM_RIGHTS;
      control.header.cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(int));
      header.msg_control = &control;
      header.msg_controllen = sizeof(control);
    }
    const ssize_t put = sendmsg(fd_, &header, MSG_NOSIGNAL);
    is_sent |= put > 0;
    return put;
  });
}

}  // namespace ft
