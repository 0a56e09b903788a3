// SPDX-License-Identifier: Apache-2.0

#include "coordinator/http2_opening.h"

#include <nghttp2/nghttp2.h>

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace ft {
namespace {

constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kHeaderBytes = 9;
// SETTINGS_MAX_FRAME_SIZE of a server that does not speak of it.
constexpr size_t kMaxFrameBytes = 16 << 10;
// Compressed headers; kMaxMetadataBytes are counted when they are unpacked.
constexpr size_t kMaxBlockBytes = 16 << 10;
// Before the call: the preface and frames of a few bytes. After it may stand
// data up to the initial window of 64 KiB, before the acknowledgement.
constexpr size_t kMaxBytesBeforeCall = 32 << 10;
constexpr size_t kMaxBytes = 128 << 10;

enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kReset = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};

constexpr uint8_t kFlagAck = 1;
constexpr uint8_t kFlagEndStream = 1;
constexpr uint8_t kFlagEndHeaders = 4;
constexpr uint8_t kFlagPadded = 8;
constexpr uint8_t kFlagPriority = 0x20;

uint8_t Byte(absl::string_view bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]);
}

uint32_t BigEndian(absl::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

void AppendBigEndian(uint32_t value, int bytes, std::string* out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

std::string Frame(FrameType type, uint8_t flags, uint32_t stream,
                  absl::string_view payload) {
  std::string frame;
  AppendBigEndian(static_cast<uint32_t>(payload.size()), 3, &frame);
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  AppendBigEndian(stream, 4, &frame);
  absl::StrAppend(&frame, payload);
  return frame;
}

std::string GoAwayFrame(uint32_t last_stream, GoAwayReason reason) {
  std::string payload;
  AppendBigEndian(last_stream, 4, &payload);
  AppendBigEndian(static_cast<uint32_t>(reason), 4, &payload);
  return Frame(kGoAway, 0, 0, payload);
}

// Whether such a frame may stand before the first call.
bool MayOpen(uint8_t type) {
  return type == kSettings || type == kPing || type == kWindowUpdate ||
         type == kPriority || type > kContinuation;
}

// A header as a literal with a new name that is not indexed (RFC 7541, 6.2.2);
// both are shorter than 127 bytes.
void AppendHeader(absl::string_view name, absl::string_view value,
                  std::string* out) {
  FT_CHECK(name.size() < 127 && value.size() < 127);
  out->push_back('\0');
  out->push_back(static_cast<char>(name.size()));
  absl::StrAppend(out, name);
  out->push_back(static_cast<char>(value.size()));
  absl::StrAppend(out, value);
}

struct FreeInflater {
  void operator()(nghttp2_hd_inflater* inflater) const {
    nghttp2_hd_inflate_del(inflater);
  }
};

}  // namespace

absl::Status Http2Opening::Feed(absl::string_view bytes) {
  absl::StrAppend(&bytes_, bytes);
  if (absl::Status preface = TakePreface(); !preface.ok() || !has_preface_) {
    return preface;
  }
  while (bytes_.size() - parsed_ >= kHeaderBytes) {
    const absl::string_view rest = absl::string_view(bytes_).substr(parsed_);
    const Header header{
        .length = BigEndian(rest.substr(0, 3)),
        .type = Byte(rest, 3),
        .flags = Byte(rest, 4),
        .stream = BigEndian(rest.substr(5, 4)) & 0x7fffffff,
    };
    if (header.length > kMaxFrameBytes) {
      return absl::InvalidArgumentError("a frame is longer than 16 KiB");
    }
    if (rest.size() < kHeaderBytes + header.length) break;
    const bool was_acknowledged = is_acknowledged_;
    if (absl::Status taken =
            TakeFrame(header, rest.substr(kHeaderBytes, header.length));
        !taken.ok()) {
      return taken;
    }
    if (is_acknowledged_ && !was_acknowledged) {
      bytes_.erase(parsed_, kHeaderBytes);
    } else {
      parsed_ += kHeaderBytes + header.length;
    }
  }
  if (bytes_.size() > (has_call() ? kMaxBytes : kMaxBytesBeforeCall)) {
    return absl::ResourceExhaustedError(
        has_call() ? "no SETTINGS were acknowledged" : "no call came");
  }
  return absl::OkStatus();
}

absl::Status Http2Opening::TakePreface() {
  if (has_preface_) return absl::OkStatus();
  const absl::string_view begin =
      absl::string_view(bytes_).substr(0, kPreface.size());
  if (!absl::StartsWith(kPreface, begin)) {
    return absl::InvalidArgumentError("this is not HTTP/2");
  }
  if (begin.size() == kPreface.size()) {
    has_preface_ = true;
    parsed_ = kPreface.size();
  }
  return absl::OkStatus();
}

absl::Status Http2Opening::TakeFrame(const Header& header,
                                     absl::string_view payload) {
  const bool is_ack = header.type == kSettings && (header.flags & kFlagAck);
  if (!has_settings_ && (header.type != kSettings || is_ack)) {
    return absl::InvalidArgumentError("SETTINGS do not come first");
  }
  if (block_stream_ != 0 && header.type != kContinuation) {
    return absl::InvalidArgumentError("a header block is interrupted");
  }
  if (header.type == kSettings) {
    if (header.stream != 0 || (is_ack && header.length != 0)) {
      return absl::InvalidArgumentError("malformed SETTINGS");
    }
    has_settings_ = true;
    is_acknowledged_ = is_acknowledged_ || is_ack;
    return absl::OkStatus();
  }
  // What follows the first call is for whoever serves the connection.
  if (has_call() || MayOpen(header.type)) return absl::OkStatus();
  if (header.type == kHeaders || header.type == kContinuation) {
    return TakeHeaders(header, payload);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a frame of type ", header.type, " before any call"));
}

absl::Status Http2Opening::TakeHeaders(const Header& header,
                                       absl::string_view payload) {
  const bool begins = header.type == kHeaders;
  if (begins ? header.stream % 2 == 0
             : block_stream_ == 0 || header.stream != block_stream_) {
    return absl::InvalidArgumentError("headers on a wrong stream");
  }
  if (begins && (header.flags & kFlagPadded)) {
    if (payload.empty() || Byte(payload, 0) >= payload.size()) {
      return absl::InvalidArgumentError("malformed padding");
    }
    payload = payload.substr(1, payload.size() - 1 - Byte(payload, 0));
  }
  if (begins && (header.flags & kFlagPriority)) {
    if (payload.size() < 5) {
      return absl::InvalidArgumentError("malformed priority");
    }
    payload.remove_prefix(5);
  }
  if (block_.size() + payload.size() > kMaxBlockBytes) {
    return absl::ResourceExhaustedError("headers over 16 KiB");
  }
  absl::StrAppend(&block_, payload);
  block_stream_ = header.stream;
  if (!(header.flags & kFlagEndHeaders)) return absl::OkStatus();
  if (absl::Status decoded = DecodeBlock(); !decoded.ok()) return decoded;
  stream_ = block_stream_;
  block_stream_ = 0;
  block_.clear();
  return absl::OkStatus();
}

absl::Status Http2Opening::DecodeBlock() {
  nghttp2_hd_inflater* made = nullptr;
  FT_CHECK(nghttp2_hd_inflate_new(&made) == 0);
  const std::unique_ptr<nghttp2_hd_inflater, FreeInflater> inflater(made);
  const auto* next = reinterpret_cast<const uint8_t*>(block_.data());
  size_t left = block_.size();
  // A byte may stand for a header of 4 KiB that was sent before.
  size_t unpacked = 0;
  while (true) {
    nghttp2_nv pair{};
    int flags = 0;
    const ssize_t read = nghttp2_hd_inflate_hd2(inflater.get(), &pair, &flags,
                                                next, left, /*in_final=*/1);
    if (read < 0) return absl::InvalidArgumentError("malformed headers");
    next += read;
    left -= static_cast<size_t>(read);
    if (flags & NGHTTP2_HD_INFLATE_EMIT) {
      const absl::string_view name(reinterpret_cast<char*>(pair.name),
                                   pair.namelen);
      const absl::string_view value(reinterpret_cast<char*>(pair.value),
                                    pair.valuelen);
      unpacked += name.size() + value.size();
      if (unpacked > 4 * kMaxBlockBytes) {
        return absl::ResourceExhaustedError("headers over 64 KiB");
      }
      if (name == "authorization" && !authorization_.has_value()) {
        authorization_.emplace(value);
      }
    }
    if (flags & NGHTTP2_HD_INFLATE_FINAL) return absl::OkStatus();
    if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && left == 0) {
      return absl::InvalidArgumentError("malformed headers");
    }
  }
}

std::string ServerOpening() {
  std::string payload;
  for (const auto& [setting, value] :
       {std::pair<uint32_t, uint32_t>(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      kMaxConcurrentStreams),
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kMaxMetadataBytes}}) {
    AppendBigEndian(setting, 2, &payload);
    AppendBigEndian(value, 4, &payload);
  }
  return Frame(kSettings, 0, 0, payload);
}

std::string UnauthenticatedAnswer(uint32_t stream, absl::string_view message) {
  std::string block;
  AppendHeader(":status", "200", &block);
  AppendHeader("content-type", "application/grpc", &block);
  AppendHeader("grpc-status", "16", &block);
  AppendHeader("grpc-message", message, &block);
  return absl::StrCat(
      Frame(kHeaders, kFlagEndHeaders | kFlagEndStream, stream, block),
      GoAwayFrame(stream, GoAwayReason::kNoError));
}

std::string GoAway(GoAwayReason reason) { return GoAwayFrame(0, reason); }

}  // namespace ft
