// SPDX-License-Identifier: Apache-2.0
//
// What ArtifactService does with blobs, free of gRPC: the content-addressed
// store and its upload sessions, behind words of artifacts.proto.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ft/v1/artifacts.pb.h"

namespace ft {

// Thread-safe; every method may block on the disk.
class BlobDesk {
 public:
  virtual ~BlobDesk() = default;

  // Whether it is stored. A blob that was found stays for a while, whether or
  // not something refers to it yet.
  virtual bool Has(const std::string& sha256) = 0;

  // A small blob, verified. NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED (larger
  // than `max_bytes`).
  virtual absl::StatusOr<std::string> ReadSmall(const std::string& sha256,
                                                int64_t max_bytes) = 0;

  // At most `limit` bytes of a blob from `offset` on; empty at its end.
  struct Piece {
    std::string data;
    int64_t total_bytes = 0;
  };
  // NOT_FOUND, OUT_OF_RANGE (behind the end).
  virtual absl::StatusOr<Piece> ReadPiece(const std::string& sha256,
                                          int64_t offset, int64_t limit) = 0;

  // Contracts of these four: artifacts.proto. Epochs are checked by the caller.
  virtual absl::StatusOr<v1::BeginUploadResponse> Begin(
      const v1::BeginUploadRequest& request) = 0;
  // Returns the offset after the bytes.
  virtual absl::StatusOr<int64_t> Write(const v1::WriteRequest& request) = 0;
  virtual absl::StatusOr<v1::QueryUploadResponse> Query(
      const std::string& upload_id) = 0;
  virtual absl::StatusOr<v1::FinishUploadResponse> Finish(
      const std::string& upload_id) = 0;

  // Which attempt writes an open upload; empty job_id: a client. NOT_FOUND: it
  // is not open.
  struct Writer {
    std::string job_id;
    uint64_t epoch = 0;
  };
  virtual absl::StatusOr<Writer> WriterOf(const std::string& upload_id) = 0;
};

}  // namespace ft
