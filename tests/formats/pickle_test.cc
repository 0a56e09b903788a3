// SPDX-License-Identifier: Apache-2.0

#include "formats/pickle.h"

#include <gtest/gtest.h>

#include "formats/safetensors.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(PickleTest, EndingsOfPicklesAreRefusedWithTheWayOut) {
  for (const char* name : {"a/pytorch_model.bin", "x.pt", "x.PTH", "x.ckpt"}) {
    EXPECT_THAT(RefusePickleName(name), Fails(kInvalid, "never unpickled"));
    EXPECT_THAT(RefusePickleName(name), Fails(kInvalid, "safetensors"));
  }
  FT_EXPECT_OK(RefusePickleName("model.safetensors"));
}

TEST(PickleTest, ARenamedPickleIsRefusedByItsFirstBytes) {
  TestDir dir;
  const std::string plain =
      absl::StrCat("\x80\x02", "}q", std::string(64, 'x'));
  const std::string archive = absl::StrCat("PK\x03\x04", std::string(64, '\0'));
  for (const std::string& bytes : {plain, archive}) {
    const std::string path = dir / "model.safetensors";
    WriteBytes(path, bytes);
    EXPECT_THAT(RefusePickle(path), Fails(kInvalid, "never unpickled"));
    EXPECT_THAT(SafetensorsFile::Open(path),
                Fails(kInvalid, "never unpickled"));
  }
}

}  // namespace
}  // namespace ft
