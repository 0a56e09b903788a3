// SPDX-License-Identifier: Apache-2.0
//
// Files to and from the coordinator: resumed where they broke off, checked by
// digest, known content never sent. For ftctl and for workers.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ft/v1/artifacts.pb.h"

namespace grpc {
class Channel;
class ClientContext;
}  // namespace grpc

namespace ft {

// A channel to a loopback address of the coordinator, with its keepalive.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

// Puts the bearer token and a deadline on a call.
void Prepare(grpc::ClientContext& context, const std::string& token,
             absl::Duration timeout);

// The attempt that writes; empty for clients.
struct WriterIdentity {
  std::string job_id;
  uint64_t epoch = 0;
};

// Called with the bytes that are safely there, and the size.
using TransferProgress = std::function<void(int64_t done, int64_t total)>;

// Thread-safe; calls block. UNAVAILABLE is retried five times with a pause that
// grows; other errors are the coordinator's own (artifacts.proto).
class ArtifactTransfer {
 public:
  // `temp_dir`: where small files lie while they are sent; empty: $TMPDIR. A
  // process that dies leaves them there.
  ArtifactTransfer(std::shared_ptr<grpc::Channel> channel, std::string token,
                   std::string temp_dir = "");
  ~ArtifactTransfer();

  // Those of the digests that are not stored.
  absl::StatusOr<std::vector<std::string>> FindMissing(
      const std::vector<std::string>& sha256);

  // Stores the file as a blob; nothing is sent if it is there already.
  absl::Status UploadFile(const std::string& path, const std::string& sha256,
                          const WriterIdentity& writer,
                          const TransferProgress& progress = nullptr);
  absl::Status UploadBytes(const std::string& bytes,
                           const WriterIdentity& writer);

  absl::StatusOr<v1::Artifact> Commit(const v1::CommitArtifactRequest& request);
  absl::StatusOr<v1::Artifact> GetByName(const std::string& name);
  absl::StatusOr<v1::Manifest> ReadManifest(const std::string& sha256);

  // Fetches a blob to `path`; a part of it beside, <path>.part, is continued,
  // or replaced if it is of something else. DATA_LOSS: the bytes that came have
  // another digest; the part is removed.
  absl::Status Download(const std::string& sha256, int64_t bytes,
                        const std::string& path,
                        const TransferProgress& progress = nullptr);

 private:
  struct Stubs;
  absl::Status UploadOnce(const std::string& path, int64_t bytes,
                          const std::string& sha256,
                          const WriterIdentity& writer,
                          const TransferProgress& progress);
  absl::Status WriteFrom(const std::string& path, int64_t bytes,
                         const std::string& upload_id, int64_t offset,
                         const TransferProgress& progress);
  absl::Status DownloadOnce(const std::string& sha256, int64_t bytes,
                            const std::string& part,
                            const TransferProgress& progress);

  const std::unique_ptr<Stubs> stubs_;
  const std::string token_;
  const std::string temp_dir_;
};

}  // namespace ft
