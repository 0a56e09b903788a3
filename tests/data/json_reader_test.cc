// SPDX-License-Identifier: Apache-2.0
//
// Rows of files: arrays and lines, one bad row among good ones, limits.

#include "data/json_reader.h"

#include "common/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class JsonReaderTest : public ::testing::Test {
 protected:
  void Read(const std::string& text) {
    rows_.clear();
    lines_.clear();
    bad_.clear();
    FT_ASSERT_OK(WriteFileAtomic(dir_ / "d.json", text));
    FT_ASSERT_OK(ReadJsonRows(
        dir_ / "d.json", "d.json",
        [this](const RowPlace& place, const Json&) {
          rows_.push_back(place.row);
          lines_.push_back(place.line);
        },
        [this](BadRow bad) { bad_.push_back(bad.ToString()); }));
  }
  testing::TestDir dir_;
  std::vector<int64_t> rows_, lines_;
  std::vector<std::string> bad_;
};

TEST_F(JsonReaderTest, ArraysAndLinesAreToldApart) {
  Read(" [1, {\"a\": \"],[\"},\n[3, [4]] ] \n");
  EXPECT_THAT(rows_, ElementsAre(1, 2, 3));
  EXPECT_THAT(lines_, ElementsAre(1, 1, 2));
  Read("{}\r\n\n{\"a\": 1}\n {\"b\": 1}");
  EXPECT_THAT(rows_, ElementsAre(1, 3, 4));
  EXPECT_THAT(lines_, ElementsAre(1, 3, 4));
  EXPECT_THAT(bad_, IsEmpty());
}

TEST_F(JsonReaderTest, EmptyFilesAndMarksOfEditorsAreNoFaults) {
  for (const char* text : {"", "\n\n", "[]", " [ ] ", "\xEF\xBB\xBF[]"}) {
    Read(text);
    EXPECT_THAT(rows_, IsEmpty()) << text;
    EXPECT_THAT(bad_, IsEmpty()) << text;
  }
  Read("\xEF\xBB\xBF{}\n");
  EXPECT_THAT(rows_, ElementsAre(1));
}

TEST_F(JsonReaderTest, AKeyThatStandsTwiceIsToldWithItsPlace) {
  Read("{\"a\": 1}\n{\"a\": 1, \"a\": 1}\n");
  EXPECT_THAT(rows_, ElementsAre(1));
  EXPECT_THAT(bad_,
              ElementsAre("d.json:2:10: row 2: this key stands twice in its "
                          "object; remove one"));
  Read("[{\"a\": 1},\n {\"b\": 1,\n  \"b\": 2}]");
  EXPECT_THAT(rows_, ElementsAre(1));
  EXPECT_THAT(bad_,
              ElementsAre("d.json:3:3: row 2: this key stands twice in its "
                          "object; remove one"));
}

TEST_F(JsonReaderTest, ABadLineIsToldWithItsPlaceAndOthersAreRead) {
  Read("{}\n{\"a\": }\n{}\n{} {}\n");
  EXPECT_THAT(rows_, ElementsAre(1, 3));
  EXPECT_THAT(bad_, ElementsAre("d.json:2:7: row 2: not valid JSON",
                                "d.json:4:4: row 4: not valid JSON"));
}

TEST_F(JsonReaderTest, ABadRowOfAnArrayIsToldWithItsPlaceAndOthersAreRead) {
  Read("[\n{\"a\": 1},\n  {\"b\"}, 7,\n {\"c\":\n  x}, {}]");
  EXPECT_THAT(rows_, ElementsAre(1, 3, 5));
  EXPECT_THAT(bad_, ElementsAre("d.json:3:7: row 2: not valid JSON",
                                "d.json:5:3: row 4: not valid JSON"));
}

TEST_F(JsonReaderTest, AnArrayEndsWhereItEnds) {
  Read("[1, 2");
  EXPECT_THAT(rows_, ElementsAre(1, 2));
  EXPECT_THAT(bad_, ElementsAre("d.json:1:6: the array is not closed"));
  Read("[1] 2");
  EXPECT_THAT(bad_, ElementsAre("d.json:1:5: text behind the array"));
  Read("[1,, 2,]");
  EXPECT_THAT(rows_, ElementsAre(1, 3));
  EXPECT_THAT(bad_, ElementsAre("d.json:1:4: row 2: a row is missing here",
                                "d.json:1:8: row 4: a row is missing here"));
}

TEST_F(JsonReaderTest, TextMustBeUtf8) {
  Read("{\"a\": \"\xFF\"}\n{}");
  EXPECT_THAT(rows_, ElementsAre(2));
  EXPECT_THAT(bad_, ElementsAre("d.json:1:8: row 1: not valid UTF-8"));
}

TEST_F(JsonReaderTest, NestingIsBounded) {
  const auto nested = [](int depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  Read("1\n" + nested(64) + "\n" + nested(65) + "\n[1], " + nested(100000));
  EXPECT_THAT(rows_, ElementsAre(1, 2));
  ASSERT_EQ(bad_.size(), 2u);
  EXPECT_EQ(bad_[0],
            "d.json:3:1: row 3: the row is nested deeper than 64 levels");
  Read("[" + nested(65) + "," + nested(64) + "]");
  EXPECT_THAT(rows_, ElementsAre(2));
}

TEST_F(JsonReaderTest, TheSizeOfARowIsBounded) {
  const std::string long_text(kMaxRowBytes, 'a');
  Read("\"" + long_text + "\"\n1");
  EXPECT_THAT(rows_, ElementsAre(2));
  EXPECT_THAT(bad_,
              ElementsAre("d.json:1:1: row 1: the row has 16777218 bytes; "
                          "the limit is 16777216"));
  Read("[\"" + long_text + "\", 1]");
  EXPECT_THAT(rows_, ElementsAre(2));
}

TEST_F(JsonReaderTest, AMissingFileIsNotFound) {
  EXPECT_EQ(ReadJsonRows(
                dir_ / "none.json", "none.json",
                [](const RowPlace&, const Json&) {}, [](BadRow) {})
                .code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace ft
