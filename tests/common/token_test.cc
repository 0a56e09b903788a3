// SPDX-License-Identifier: Apache-2.0

#include "common/token.h"

#include <sys/stat.h>

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::HasCode;

TEST(TokenTest, ACutOrMistypedTokenIsSeen) {
  std::string token = MakeToken();
  EXPECT_TRUE(IsWellFormedToken(token));
  EXPECT_FALSE(IsWellFormedToken(token.substr(0, token.size() - 1)));
  token[10] = token[10] == 'a' ? 'b' : 'a';
  EXPECT_FALSE(IsWellFormedToken(token));
}

TEST(TokenTest, TheFileIsMadeOnceAndIsForItsOwnerAlone) {
  testing::TestDir dir;
  FT_ASSERT_OK_AND_ASSIGN(const std::string token,
                          ReadOrMakeTokenFile(dir / "tokens/admin.token"));
  EXPECT_EQ(ReadOrMakeTokenFile(dir / "tokens/admin.token").value(), token);
  struct stat info;
  ASSERT_EQ(stat((dir / "tokens/admin.token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(chmod((dir / "tokens/admin.token").c_str(), 0644), 0);
  EXPECT_THAT(ReadTokenFile(dir / "tokens/admin.token"),
              HasCode(absl::StatusCode::kPermissionDenied));
}

}  // namespace
}  // namespace ft
