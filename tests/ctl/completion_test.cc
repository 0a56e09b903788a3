// SPDX-License-Identifier: Apache-2.0

#include "ctl/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "ctl/command_line.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;

std::string Script(const std::string& shell) {
  GlobalOptions options;
  int code = 0;
  return CompletionScript(*MakeCommandLine(options, code), shell);
}

// What bash offers after `words`, the last of which is being typed.
std::string Offered(const std::string& words, int last) {
  const testing::TestDir dir;
  EXPECT_THAT(WriteFileAtomic(dir / "script", Script("bash")), testing::IsOk());
  EXPECT_EQ(
      std::system(absl::StrCat("bash -c 'source ", dir / "script",
                               "; COMP_WORDS=(", words, "); COMP_CWORD=", last,
                               "; _ftctl; echo \"${COMPREPLY[*]}\"' >",
                               dir / "out")
                      .c_str()),
      0);
  return ReadFile(dir / "out", 1 << 16).value_or("");
}

TEST(CompletionTest, BashOffersVerbsAndTheOptionsOfTheVerb) {
  EXPECT_EQ(Offered("ftctl su", 1), "submit\n");
  EXPECT_EQ(Offered("ftctl logs --fo", 2), "--follow\n");
  EXPECT_EQ(Offered("ftctl logs --out", 2), "--output\n");
  EXPECT_EQ(Offered("ftctl model im", 2), "import\n");
  EXPECT_EQ(Offered("ftctl get --fo", 2), "\n");
}

TEST(CompletionTest, TheOtherShellsGetEveryVerb) {
  for (const char* shell : {"zsh", "fish"}) {
    for (const char* word : {"submit", "watch", "model", "completion"}) {
      EXPECT_THAT(Script(shell), HasSubstr(word)) << shell;
    }
  }
  EXPECT_THAT(Script("fish"), HasSubstr("-a watch -d 'Follow a job\\'s loss"));
}

}  // namespace
}  // namespace ft
