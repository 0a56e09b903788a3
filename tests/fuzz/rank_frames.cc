// SPDX-License-Identifier: Apache-2.0
//
// The link between a rank and its daemon: the stream as the other side may send
// it. However it is cut, the same messages come out.

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "common/file.h"
#include "common/frame.h"
#include "ft/v1/ranks.pb.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

struct Decoded {
  std::vector<std::string> messages;
  bool is_broken = false;
  bool operator==(const Decoded&) const = default;
};

Decoded DecodeInPieces(absl::string_view input, size_t piece) {
  FrameDecoder decoder;
  Decoded decoded;
  while (true) {
    const auto next = decoder.Next();
    if (!next.ok()) {
      decoded.is_broken = true;
      return decoded;
    }
    if (next->has_value()) {
      decoded.messages.push_back(**next);
    } else if (input.empty()) {
      return decoded;
    } else {
      decoder.Append(input.substr(0, piece));
      input.remove_prefix(std::min(piece, input.size()));
    }
  }
}

// The same through a socketpair, as ranks and daemons read it.
Decoded DecodeFromSocket(absl::string_view input) {
  int ends[2];
  FT_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const UniqueFd reader_end(ends[0]);
  UniqueFd writer_end(ends[1]);
  FT_CHECK(WriteAll(writer_end.get(), input).ok());
  writer_end.Close();
  FrameReader reader(reader_end.get());
  Decoded decoded;
  while (true) {
    absl::StatusOr<std::string> message = reader.Read();
    if (message.ok()) {
      decoded.messages.push_back(*std::move(message));
      continue;
    }
    FT_CHECK(absl::IsOutOfRange(message.status()) ||
             absl::IsDataLoss(message.status()) ||
             absl::IsInvalidArgument(message.status()));
    decoded.is_broken = absl::IsInvalidArgument(message.status());
    return decoded;
  }
}

// More may fill the socket's buffer, and nobody reads while we write.
constexpr size_t kMaxOnSocket = 32 << 10;

FT_FUZZ_TARGET(rank_frames) {
  const Decoded whole = DecodeInPieces(input, input.size() + 1);
  FT_CHECK(DecodeInPieces(input, 1 + input.size() / 7) == whole);
  if (input.size() <= 512) FT_CHECK(DecodeInPieces(input, 1) == whole);
  if (input.size() <= kMaxOnSocket) FT_CHECK(DecodeFromSocket(input) == whole);
  for (const std::string& message : whole.messages) {
    v1::FromRank from_rank;
    if (from_rank.ParseFromString(message)) {
      FT_CHECK(from_rank.ParseFromString(from_rank.SerializeAsString()));
    }
    v1::ToRank to_rank;
    if (to_rank.ParseFromString(message)) to_rank.ShortDebugString();
    const std::string frame = EncodeFrame(message);
    FT_CHECK(DecodeInPieces(frame, frame.size()).messages.size() == 1);
  }
}

}  // namespace
}  // namespace ft
