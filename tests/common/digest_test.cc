// SPDX-License-Identifier: Apache-2.0

#include "common/digest.h"

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

TEST(DigestTest, Sha256EqualsThePublishedVectors) {
  EXPECT_EQ(Sha256Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(DigestTest, PiecesGiveTheDigestOfTheWholeAndFinishBeginsAnew) {
  Sha256 sha;
  sha.Update("a");
  sha.Update("bc");
  EXPECT_EQ(sha.FinishHex(), Sha256Hex("abc"));
  sha.Update("abc");
  EXPECT_EQ(sha.FinishHex(), Sha256Hex("abc"));
}

TEST(DigestTest, AFileHasTheDigestOfItsBytes) {
  testing::TestDir dir;
  const std::string bytes(3'000'000, 'x');
  FT_ASSERT_OK(WriteFileAtomic(dir / "f", bytes));
  EXPECT_EQ(Sha256OfFile(dir / "f").value(), Sha256Hex(bytes));
  EXPECT_EQ(Sha256OfFile(dir / "none").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(DigestTest, Crc32cEqualsThePublishedVectors) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c("6789", Crc32c("12345")), Crc32c("123456789"));
}

TEST(DigestTest, HmacEqualsRfc4231) {
  EXPECT_EQ(Sha256Hex(HmacSha256("Jefe", "what do ya want for nothing?")),
            Sha256Hex(std::string(
                "\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75"
                "\xc7\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec\x58\xb9\x64\xec"
                "\x38\x43",
                32)));
}

TEST(DigestTest, OnlyLowerCaseHexOfTheRightLengthIsADigest) {
  EXPECT_TRUE(IsSha256Hex(Sha256Hex("")));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'A')));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a')));
}

TEST(DigestTest, RandomBytesDiffer) {
  EXPECT_NE(RandomHex(16), RandomHex(16));
  EXPECT_TRUE(EqualInConstantTime("abc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abc", "abd"));
  EXPECT_FALSE(EqualInConstantTime("abc", "ab"));
}

}  // namespace
}  // namespace ft
