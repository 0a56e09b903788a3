// SPDX-License-Identifier: Apache-2.0

#include "common/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include "common/file.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::HasCode;

TEST(FrameTest, MessagesComeOutWholeHoweverTheStreamIsCut) {
  const std::vector<std::string> messages = {"", "a", std::string(127, 'b'),
                                             std::string(128, 'c'),
                                             std::string(70000, 'd')};
  std::string stream;
  for (const std::string& message : messages) stream += EncodeFrame(message);
  for (const size_t piece : {1u, 2u, 3u, 1000u, 100000u}) {
    FrameDecoder decoder;
    std::vector<std::string> got;
    for (size_t at = 0; at < stream.size(); at += piece) {
      decoder.Append(absl::string_view(stream).substr(at, piece));
      while (true) {
        FT_ASSERT_OK_AND_ASSIGN(const auto message, decoder.Next());
        if (!message.has_value()) break;
        got.push_back(*message);
      }
    }
    EXPECT_EQ(got, messages) << "pieces of " << piece;
    EXPECT_FALSE(decoder.is_inside_message());
  }
}

TEST(FrameTest, AHugeLengthIsRefusedBeforeAnyMemoryIsTaken) {
  FrameDecoder decoder;
  decoder.Append("\xFF\xFF\xFF\x7F");
  EXPECT_THAT(decoder.Next(), HasCode(absl::StatusCode::kInvalidArgument));
  FrameDecoder endless;
  endless.Append("\xFF\xFF\xFF\xFF\xFF\xFF");
  EXPECT_THAT(endless.Next(), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(FrameTest, TheEndOfTheStreamIsToldApartFromACut) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  FrameWriter writer(writing.get());
  FT_ASSERT_OK(writer.Write("hello"));
  FrameReader reader(reading.get());
  EXPECT_EQ(reader.Read().value(), "hello");
  FT_ASSERT_OK(WriteAll(writing.get(), EncodeFrame("cut").substr(0, 2)));
  writing.Close();
  EXPECT_THAT(reader.Read(), HasCode(absl::StatusCode::kDataLoss));

  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd other_reading(ends[0]);
  UniqueFd(ends[1]).Close();
  FrameReader other(other_reading.get());
  EXPECT_THAT(other.Read(), HasCode(absl::StatusCode::kOutOfRange));
}

TEST(FrameTest, WritingToADeadReaderIsAnErrorNotASignal) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd writing(ends[1]);
  UniqueFd(ends[0]).Close();
  FrameWriter writer(writing.get());
  EXPECT_FALSE(writer.Write("x").ok());
}

TEST(FrameTest, ADescriptorTravelsWithItsMessage) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const UniqueFd a(ends[0]), b(ends[1]);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const UniqueFd out(pipe_ends[0]);
  {
    const UniqueFd in(pipe_ends[1]);
    FrameWriter writer(a.get());
    FT_ASSERT_OK(writer.Write("before"));
    FT_ASSERT_OK(writer.WriteWithFd("with", in.get()));
    FT_ASSERT_OK(writer.Write("after"));
  }
  FrameAndFdReader reader(b.get());
  FT_ASSERT_OK_AND_ASSIGN(const std::string before, reader.Read());
  FT_ASSERT_OK_AND_ASSIGN(const std::string with, reader.Read());
  EXPECT_EQ(with, "with");
  const UniqueFd in = reader.TakeDescriptor();
  ASSERT_TRUE(in.is_open());
  EXPECT_FALSE(reader.TakeDescriptor().is_open());
  FT_ASSERT_OK_AND_ASSIGN(const std::string after, reader.Read());
  EXPECT_EQ(after, "after");
  FT_ASSERT_OK(WriteAll(in.get(), "x"));
  char byte = 0;
  EXPECT_EQ(read(out.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
}

TEST(FrameTest, AReaderWithoutDescriptorsLosesNoMessageOverOne) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const UniqueFd a(ends[0]), b(ends[1]);
  FT_ASSERT_OK(FrameWriter(a.get()).WriteWithFd("with", a.get()));
  FT_ASSERT_OK_AND_ASSIGN(const std::string with, FrameReader(b.get()).Read());
  EXPECT_EQ(with, "with");
}

}  // namespace
}  // namespace ft
