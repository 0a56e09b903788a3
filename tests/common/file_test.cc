// SPDX-License-Identifier: Apache-2.0

#include "common/file.h"

#include <fcntl.h>

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::HasCode;

TEST(FileTest, AnAtomicWriteReplacesTheWholeFileAndLeavesNothingElse) {
  testing::TestDir dir;
  FT_ASSERT_OK(WriteFileAtomic(dir / "f", "old and longer"));
  FT_ASSERT_OK(WriteFileAtomic(dir / "f", "new"));
  EXPECT_EQ(ReadFile(dir / "f", 100).value(), "new");
  EXPECT_EQ(ListDir(dir.path()).value(), std::vector<std::string>{"f"});
}

TEST(FileTest, AFailedWriteLeavesTheOldContent) {
  testing::TestDir dir;
  FT_ASSERT_OK(MakeDirs(dir / "f/inside"));
  EXPECT_FALSE(WriteFileAtomic(dir / "f", "x").ok());
  EXPECT_TRUE(IsDirectory(dir / "f/inside"));
  EXPECT_EQ(ListDir(dir.path()).value().size(), 1u);
}

TEST(FileTest, ReadingStopsAtTheLimit) {
  testing::TestDir dir;
  FT_ASSERT_OK(WriteFileAtomic(dir / "f", "12345"));
  EXPECT_THAT(ReadFile(dir / "f", 4),
              HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(ReadFile(dir / "g", 4), HasCode(absl::StatusCode::kNotFound));
}

TEST(FileTest, TheModeIsTheOneAskedFor) {
  testing::TestDir dir;
  FT_ASSERT_OK(WriteFileAtomic(dir / "secret", "x", 0600));
  EXPECT_EQ(FileSize(dir / "secret").value(), 1);
}

TEST(FileTest, PathsThatLeaveTheFolderAreUnsafe) {
  for (const char* path : {"a", "a/b", "a.b/c-d_e", "..a", "a..", "\xC3\xA4"}) {
    EXPECT_TRUE(IsSafeRelativePath(path)) << path;
  }
  for (const char* path : {"", "/a", "..", "../a", "a/../b", "a//b", "./a",
                           "a/", "a\\b", "a\nb", "a/."}) {
    EXPECT_FALSE(IsSafeRelativePath(path)) << path;
  }
  EXPECT_FALSE(IsSafeRelativePath(std::string("a\0b", 3)));
  EXPECT_FALSE(IsSafeRelativePath(std::string(1025, 'a')));
}

TEST(FileTest, PathsArePutTogetherAndTakenApart) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(DirName("/a/b"), "/a");
  EXPECT_EQ(DirName("b"), ".");
  EXPECT_EQ(DirName("/b"), "/");
  EXPECT_EQ(BaseName("/a/b"), "b");
}

TEST(FileTest, FoldersAreMadeAndRemovedWhole) {
  testing::TestDir dir;
  FT_ASSERT_OK(MakeDirs(dir / "a/b/c"));
  FT_ASSERT_OK(MakeDirs(dir / "a/b/c"));
  FT_ASSERT_OK(WriteFileAtomic(dir / "a/f", "x"));
  EXPECT_FALSE(MakeDirs(dir / "a/f/g").ok());
  FT_ASSERT_OK(RemoveTree(dir / "a"));
  EXPECT_FALSE(Exists(dir / "a"));
  FT_EXPECT_OK(RemoveTree(dir / "a"));
}

}  // namespace
}  // namespace ft
