// SPDX-License-Identifier: Apache-2.0
//
// A damaged checkpoint is always found and named; the newest come first and old
// ones go.

#include "train/checkpoint.h"

#include "absl/strings/ascii.h"
#include "common/digest.h"
#include "tests/testing/status_matchers.h"
#include "tests/train/tiny_job.h"

namespace ft {
namespace {

using testing::Fails;

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    const testing::TinyRun run = testing::RunTiny(
        testing::TinySpec(2), dir_ / "a", {.world = 2, .yield_at = 1});
    FT_CHECK(run.outcomes[0].status.ok());
    files_ = run.links[0]->checkpoints[0];
  }
  std::string PathOf(const std::string& name) const {
    return JoinPath(files_.dir(), name);
  }
  // What a fresh rank says to the checkpoint.
  absl::Status Load() {
    v1::JobSpec spec = testing::TinySpec(2);
    const testing::TinyRun run =
        testing::RunTiny(spec, dir_ / "a", {.world = 1, .resume = true});
    for (const v1::Event& event : run.links[0]->events) {
      if (event.kind() == v1::EVENT_KIND_WARNING) {
        return absl::DataLossError(event.message());
      }
    }
    return absl::OkStatus();
  }

  testing::TestDir dir_;
  v1::CheckpointFiles files_;
};

TEST_F(CheckpointTest, RankZeroNamesEveryFileWithSizeAndDigest) {
  EXPECT_EQ(files_.all_size(), 3);
  for (const v1::LocalFile& file : files_.all()) {
    EXPECT_EQ(FileSize(PathOf(file.path())).value(), file.bytes());
    EXPECT_EQ(Sha256OfFile(PathOf(file.path())).value(), file.sha256());
  }
}

TEST_F(CheckpointTest, EachDamageIsNamed) {
  const std::string shard = "shard-00001-of-00002.safetensors";
  const std::string bytes = ReadFile(PathOf(shard), 1 << 24).value();
  const auto code = absl::StatusCode::kDataLoss;

  FT_ASSERT_OK(WriteFileAtomic(PathOf(shard), bytes.substr(0, 1000)));
  EXPECT_THAT(Load(), Fails(code, "has 1000 bytes"));
  std::string flipped = bytes;
  flipped[bytes.size() - 3] ^= 0x40;
  FT_ASSERT_OK(WriteFileAtomic(PathOf(shard), flipped));
  EXPECT_THAT(Load(), Fails(code, "sha256"));
  FT_ASSERT_OK(RemoveFile(PathOf(shard)));
  EXPECT_THAT(Load(), Fails(code, "is missing"));
  FT_ASSERT_OK(WriteFileAtomic(PathOf(shard), bytes));

  const std::string json = ReadFile(PathOf(kCheckpointFile), 1 << 20).value();
  for (size_t cut = 0; cut < json.size(); cut += 211) {
    FT_ASSERT_OK(WriteFileAtomic(PathOf(kCheckpointFile), json.substr(0, cut)));
    EXPECT_EQ(ReadCheckpointInfo(files_.dir()).status().code(), code) << cut;
  }
  for (size_t at = json.find("format_version"); at < json.size(); at += 83) {
    std::string changed = json;
    changed[at] ^= 1;
    // Between tokens a changed byte may still be white space.
    if (absl::ascii_isspace(static_cast<unsigned char>(json[at]))) continue;
    FT_ASSERT_OK(WriteFileAtomic(PathOf(kCheckpointFile), changed));
    EXPECT_EQ(ReadCheckpointInfo(files_.dir()).status().code(), code) << at;
  }
  FT_ASSERT_OK(WriteFileAtomic(PathOf(kCheckpointFile), json));
  FT_EXPECT_OK(Load());
}

TEST_F(CheckpointTest, TheNewestComeFirstAndOldOnesGo) {
  testing::TestDir dir;
  for (const char* name : {"step-000002", "step-000010", "step-1000000"}) {
    FT_ASSERT_OK(MakeDirs(dir / name));
    FT_ASSERT_OK(WriteFileAtomic(JoinPath(dir / name, kCheckpointFile), "{}"));
  }
  FT_ASSERT_OK(MakeDirs(dir / "step-000011"));  // Not whole.
  const std::vector<std::string> all = ListCheckpoints(dir.path());
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(BaseName(all[0]), "step-1000000");
  EXPECT_EQ(BaseName(all[2]), "step-000002");
  // Step 11 is of an attempt that died; the run goes on after step 10.
  FT_ASSERT_OK(RemoveOldCheckpoints(dir.path(), /*newest_step=*/10, 2));
  EXPECT_FALSE(Exists(dir / "step-000011"));
  EXPECT_EQ(ListCheckpoints(dir.path()).size(), 3u);
  FT_ASSERT_OK(RemoveOldCheckpoints(dir.path(), /*newest_step=*/10, 1));
  EXPECT_EQ(ListCheckpoints(dir.path()).size(), 2u);
}

TEST_F(CheckpointTest, AWorkspaceWithoutRankZeroIsCleanedToo) {
  testing::TestDir dir;
  for (const char* name : {"step-000002", "step-000004", "step-000006"}) {
    FT_ASSERT_OK(MakeDirs(dir / name));
  }
  FT_ASSERT_OK(MakeDirs(dir / "step-notes"));
  FT_ASSERT_OK(RemoveOldCheckpoints(dir.path(), /*newest_step=*/6, 2));
  EXPECT_EQ(
      ListDir(dir.path()).value(),
      (std::vector<std::string>{"step-000004", "step-000006", "step-notes"}));
}

TEST_F(CheckpointTest, TensorsOfAnotherShapeAreNamed) {
  v1::JobSpec spec = testing::TinySpec(2);
  spec.mutable_adaptation()->mutable_lora()->set_rank(2);
  const testing::TinyRun run =
      testing::RunTiny(spec, dir_ / "a", {.world = 1, .resume = true});
  EXPECT_THAT(run.outcomes[0].status,
              Fails(absl::StatusCode::kFailedPrecondition, "lora_A"));
}

}  // namespace
}  // namespace ft
