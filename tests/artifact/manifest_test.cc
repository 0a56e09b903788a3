// SPDX-License-Identifier: Apache-2.0
//
// Manifests are blobs that anybody may upload: what is refused, and by which
// words.

#include "artifact/manifest.h"

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::Fails;

class ManifestTest : public ::testing::Test {
 protected:
  ManifestTest() { AddFile("weights", 7); }
  void AddFile(const std::string& path, int64_t bytes) {
    v1::FileEntry& file = *manifest_.add_files();
    file.set_path(path);
    file.set_bytes(bytes);
    file.set_sha256(std::string(64, 'a'));
  }
  absl::Status Parse() {
    return ParseManifest(manifest_.SerializeAsString()).status();
  }
  v1::Manifest manifest_;
};

TEST_F(ManifestTest, BytesAreTheSameInWhateverOrderFilesWereAdded) {
  AddFile("config.json", 3);
  v1::Manifest other = manifest_;
  other.mutable_files()->SwapElements(0, 1);
  EXPECT_EQ(SerializeManifest(manifest_), SerializeManifest(other));
  FT_EXPECT_OK(Parse());
  EXPECT_EQ(BytesOf(manifest_), 10);
}

TEST_F(ManifestTest, AFileOutsideTheFolderIsRefused) {
  for (const char* path : {"../x", "/etc/passwd", "a/../b", "a//b", ""}) {
    manifest_.mutable_files(0)->set_path(path);
    EXPECT_THAT(Parse(),
                Fails(absl::StatusCode::kInvalidArgument, "is no safe path"))
        << path;
  }
}

TEST_F(ManifestTest, SizesAreBoundedTogether) {
  manifest_.mutable_files(0)->set_bytes(kMaxArtifactBytes);
  FT_EXPECT_OK(Parse());
  AddFile("more", 1);
  EXPECT_THAT(Parse(), Fails(absl::StatusCode::kResourceExhausted,
                             "more of 1 bytes the files have more than "
                             "1152921504606846976"));
  manifest_.mutable_files(1)->set_bytes(-1);
  EXPECT_THAT(Parse(), Fails(absl::StatusCode::kInvalidArgument,
                             "more has no digest or a negative size"));
}

TEST_F(ManifestTest, AStepIsNotNegative) {
  manifest_.set_step(-1);
  EXPECT_THAT(Parse(),
              Fails(absl::StatusCode::kInvalidArgument, "step -1 is negative"));
}

TEST_F(ManifestTest, ItsFilesAndItsBytesAreCounted) {
  for (int i = 1; i <= kMaxManifestFiles; ++i) AddFile(absl::StrCat(i), 0);
  EXPECT_THAT(Parse(), Fails(absl::StatusCode::kInvalidArgument,
                             "10001 files; at most 10000"));
  EXPECT_THAT(ParseManifest(std::string(kMaxManifestBytes + 1, ' ')),
              Fails(absl::StatusCode::kResourceExhausted,
                    "4194305 bytes; at most 4194304"));
}

}  // namespace
}  // namespace ft
