// SPDX-License-Identifier: Apache-2.0
//
// Blobs as the coordinator serves them: the content-addressed folder, and open
// uploads beside it. A blob appears by rename, after its digest was checked and
// its bytes are durable.

#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/digest.h"
#include "common/file.h"
#include "coordinator/blob_desk.h"

namespace ft {

// Thread-safe.
class BlobFiles : public BlobDesk {
 public:
  // Makes both folders where they are missing.
  static absl::StatusOr<std::unique_ptr<BlobFiles>> Open(
      const std::string& blob_dir, const std::string& upload_dir);

  bool Has(const std::string& sha256) override;
  absl::StatusOr<std::string> ReadSmall(const std::string& sha256,
                                        int64_t max_bytes) override;
  absl::StatusOr<Piece> ReadPiece(const std::string& sha256, int64_t offset,
                                  int64_t limit) override;
  absl::StatusOr<v1::BeginUploadResponse> Begin(
      const v1::BeginUploadRequest& request) override;
  absl::StatusOr<int64_t> Write(const v1::WriteRequest& request) override;
  absl::StatusOr<v1::QueryUploadResponse> Query(
      const std::string& upload_id) override;
  absl::StatusOr<v1::FinishUploadResponse> Finish(
      const std::string& upload_id) override;
  absl::StatusOr<Writer> WriterOf(const std::string& upload_id) override;

  struct Swept {
    int blobs = 0;
    int uploads = 0;
  };
  // Removes blobs that are not in `referenced` and were neither written nor
  // asked for since `blobs_before`, and uploads untouched since
  // `uploads_before`.
  absl::StatusOr<Swept> Sweep(const std::set<std::string>& referenced,
                              absl::Time blobs_before,
                              absl::Time uploads_before);

 private:
  // An open upload. Its file is named by its id: digest and epoch, so that an
  // old attempt never writes into the file of a new one.
  struct Upload {
    absl::Mutex mutex;  // Never held while mutex_ is wanted.
    std::string sha256;
    int64_t bytes = 0;
    Writer writer;
    UniqueFd file ABSL_GUARDED_BY(mutex);
    int64_t offset ABSL_GUARDED_BY(mutex) = 0;
    // Up to where the disk was told to begin with its writing.
    int64_t written_back ABSL_GUARDED_BY(mutex) = 0;
    Sha256 digest ABSL_GUARDED_BY(mutex);
    bool is_over ABSL_GUARDED_BY(mutex) = false;
  };

  BlobFiles(std::string blob_dir, std::string upload_dir)
      : blob_dir_(std::move(blob_dir)), upload_dir_(std::move(upload_dir)) {}

  std::string BlobPath(const std::string& sha256) const;
  std::string UploadPath(const std::string& upload_id) const;
  absl::StatusOr<std::shared_ptr<Upload>> FindOrOpen(
      const std::string& upload_id, const v1::BeginUploadRequest& request);
  absl::StatusOr<std::shared_ptr<Upload>> Find(const std::string& upload_id);
  absl::Status Resume(const std::string& path, Upload& upload);
  // Has the disk begin with the newest bytes, so that Finish waits for little,
  // and takes older ones out of the page cache, which others need more. Only
  // Finish's fsync makes durable, and tells errors.
  void WriteBack(Upload& upload) ABSL_EXCLUSIVE_LOCKS_REQUIRED(upload.mutex);
  // Durably renames a whole upload to its blob.
  absl::Status Publish(const std::string& path, const std::string& blob_path);
  absl::StatusOr<int> SweepBlobs(const std::string& folder,
                                 const std::set<std::string>& referenced,
                                 absl::Time before);

  const std::string blob_dir_;
  const std::string upload_dir_;
  // A blob is not asked for while it is removed, nor before it is durable.
  absl::Mutex blob_mutex_;
  absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Upload>> uploads_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
