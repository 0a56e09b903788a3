// SPDX-License-Identifier: Apache-2.0
//
// Every kept input through its target, without libFuzzer: what was found once
// stays fixed in every build. A finding ends the test's process or runs into
// ctest's time limit.

#include <gtest/gtest.h>

#include <ostream>

#include "common/file.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft::fuzz {

void PrintTo(const TargetInfo& target, std::ostream* out) {
  *out << target.name;
}

namespace {

class CorpusTest : public ::testing::TestWithParam<TargetInfo> {};

TEST_P(CorpusTest, EveryKeptInputComesBack) {
  const std::string folder = JoinPath(
      JoinPath(FT_TEST_SOURCE_DIR, "tests/fuzz/corpus"), GetParam().name);
  const std::vector<std::string> names = ListDir(folder).value();
  ASSERT_FALSE(names.empty()) << folder << " holds no seeds";
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const std::string input =
        ReadFile(JoinPath(folder, name), int64_t{1} << 30).value();
    RecordProperty("last", name);
    GetParam().run(input);
  }
}

INSTANTIATE_TEST_SUITE_P(Kept, CorpusTest, ::testing::ValuesIn(Targets()),
                         [](const ::testing::TestParamInfo<TargetInfo>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace ft::fuzz
