// SPDX-License-Identifier: Apache-2.0

#include "artifact/transfer.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "artifact/manifest.h"
#include "common/backoff.h"
#include "common/digest.h"
#include "common/env.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/id.h"
#include "common/status.h"
#include "ft/v1/artifacts.grpc.pb.h"

namespace ft {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr absl::Duration kCallTimeout = absl::Seconds(30);
constexpr absl::Duration kStreamTimeout = absl::Hours(1);
constexpr int kTries = 5;

// While another sends the same blob: long enough for some of its pieces.
constexpr absl::Duration kPauseForAnother = absl::Milliseconds(100);

// Calls `attempt` until it gives something other than UNAVAILABLE.
template <typename Attempt>
auto Retry(const Attempt& attempt) -> decltype(attempt()) {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(5),
                  static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())));
  for (int tries = 1;; ++tries) {
    auto result = attempt();
    absl::Status status;
    if constexpr (std::is_same_v<decltype(result), absl::Status>) {
      status = result;
    } else {
      status = result.status();
    }
    if (!absl::IsUnavailable(status) || tries == kTries) return result;
    absl::SleepFor(backoff.Next());
  }
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // Despite its name the time that an attempt to connect has at least: several
  // round trips of a slow way.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetMaxReceiveMessageSize(8 << 20);
  // An HTTP proxy of the environment is not for loopback.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

void Prepare(grpc::ClientContext& context, const std::string& token,
             absl::Duration timeout) {
  context.AddMetadata("authorization", absl::StrCat("Bearer ", token));
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

struct ArtifactTransfer::Stubs {
  std::unique_ptr<v1::ArtifactService::Stub> artifacts;
};

ArtifactTransfer::ArtifactTransfer(std::shared_ptr<grpc::Channel> channel,
                                   std::string token, std::string temp_dir)
    : stubs_(new Stubs{v1::ArtifactService::NewStub(std::move(channel))}),
      token_(std::move(token)),
      temp_dir_(std::move(temp_dir)) {}

ArtifactTransfer::~ArtifactTransfer() = default;

absl::StatusOr<std::vector<std::string>> ArtifactTransfer::FindMissing(
    const std::vector<std::string>& sha256) {
  v1::FindMissingRequest request;
  for (const std::string& digest : sha256) request.add_sha256(digest);
  return Retry([&]() -> absl::StatusOr<std::vector<std::string>> {
    grpc::ClientContext context;
    Prepare(context, token_, kCallTimeout);
    v1::FindMissingResponse response;
    FT_RETURN_IF_ERROR(FromGrpcStatus(
        stubs_->artifacts->FindMissing(&context, request, &response)));
    return std::vector<std::string>(response.sha256().begin(),
                                    response.sha256().end());
  });
}

absl::Status ArtifactTransfer::UploadFile(const std::string& path,
                                          const std::string& sha256,
                                          const WriterIdentity& writer,
                                          const TransferProgress& progress) {
  FT_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(path));
  return Retry(
      [&] { return UploadOnce(path, bytes, sha256, writer, progress); });
}

absl::Status ArtifactTransfer::UploadBytes(const std::string& bytes,
                                           const WriterIdentity& writer) {
  FT_ASSIGN_OR_RETURN(const TempDir dir, TempDir::Create(temp_dir_));
  const std::string path = JoinPath(dir.path(), "blob");
  FT_RETURN_IF_ERROR(WriteFileAtomic(path, bytes));
  return UploadFile(path, Sha256Hex(bytes), writer);
}

absl::Status ArtifactTransfer::UploadOnce(const std::string& path,
                                          int64_t bytes,
                                          const std::string& sha256,
                                          const WriterIdentity& writer,
                                          const TransferProgress& progress) {
  v1::BeginUploadRequest begin;
  begin.set_sha256(sha256);
  begin.set_bytes(bytes);
  begin.set_job_id(writer.job_id);
  begin.set_epoch(writer.epoch);
  begin.set_request_id(MakeRequestId());
  v1::BeginUploadResponse upload;
  {
    grpc::ClientContext context;
    Prepare(context, token_, kCallTimeout);
    FT_RETURN_IF_ERROR(FromGrpcStatus(
        stubs_->artifacts->BeginUpload(&context, begin, &upload)));
  }
  if (upload.complete()) {
    if (progress) progress(bytes, bytes);
    return absl::OkStatus();
  }
  // A coordinator that was started anew meanwhile has the bytes, but no longer
  // the upload; or another sends the same file, and gets in between. It is
  // begun again.
  const auto begin_again = [](const absl::Status& status) {
    return absl::IsNotFound(status) || absl::IsOutOfRange(status)
               ? absl::UnavailableError(status.message())
               : status;
  };
  int64_t offset = upload.offset();
  // The server's offset rules: another one than ours is where we go on, as long
  // as it rises, for then somebody else is sending the same bytes.
  for (int64_t corrected = -1;; corrected = offset) {
    const absl::Status status =
        WriteFrom(path, bytes, upload.upload_id(), offset, progress);
    if (status.ok()) break;
    const auto metadata = ReasonMetadataOf(status);
    const auto right = metadata.find("offset");
    if (!absl::IsOutOfRange(status) || right == metadata.end() ||
        !absl::SimpleAtoi(right->second, &offset) || offset <= corrected) {
      return begin_again(status);
    }
    if (corrected >= 0) absl::SleepFor(kPauseForAnother);
  }
  v1::FinishUploadRequest finish;
  finish.set_upload_id(upload.upload_id());
  v1::FinishUploadResponse finished;
  grpc::ClientContext context;
  Prepare(context, token_, absl::Minutes(10));
  return begin_again(FromGrpcStatus(
      stubs_->artifacts->FinishUpload(&context, finish, &finished)));
}

absl::Status ArtifactTransfer::WriteFrom(const std::string& path, int64_t bytes,
                                         const std::string& upload_id,
                                         int64_t offset,
                                         const TransferProgress& progress) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  grpc::ClientContext context;
  Prepare(context, token_, kStreamTimeout);
  const auto stream = stubs_->artifacts->Write(&context);
  // One message for all: its memory is used again.
  v1::WriteRequest request;
  request.set_upload_id(upload_id);
  std::string& data = *request.mutable_data();
  absl::Status read_error;
  while (offset < bytes) {
    data.resize(kChunkBytes);
    const ssize_t got = pread(fd.get(), data.data(), data.size(), offset);
    if (got <= 0) {
      read_error = got < 0 ? ErrnoStatus(errno, absl::StrCat("read ", path))
                           : absl::DataLossError(absl::StrCat(
                                 path, " became shorter while it was sent"));
      break;
    }
    data.resize(static_cast<size_t>(got));
    request.set_offset(offset);
    request.set_crc32c(Crc32c(data));
    if (!stream->Write(request)) break;  // Finish says why.
    offset += got;
    if (progress) progress(offset, bytes);
  }
  if (!read_error.ok()) {
    context.TryCancel();
  } else {
    stream->WritesDone();
  }
  v1::WriteResponse response;
  while (stream->Read(&response)) {
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  return read_error.ok() ? status : read_error;
}

absl::StatusOr<v1::Artifact> ArtifactTransfer::Commit(
    const v1::CommitArtifactRequest& request) {
  return Retry([&]() -> absl::StatusOr<v1::Artifact> {
    grpc::ClientContext context;
    Prepare(context, token_, kCallTimeout);
    v1::Artifact artifact;
    FT_RETURN_IF_ERROR(FromGrpcStatus(
        stubs_->artifacts->CommitArtifact(&context, request, &artifact)));
    return artifact;
  });
}

absl::StatusOr<v1::Artifact> ArtifactTransfer::GetByName(
    const std::string& name) {
  v1::GetArtifactRequest request;
  request.set_name(name);
  return Retry([&]() -> absl::StatusOr<v1::Artifact> {
    grpc::ClientContext context;
    Prepare(context, token_, kCallTimeout);
    v1::Artifact artifact;
    FT_RETURN_IF_ERROR(FromGrpcStatus(
        stubs_->artifacts->GetArtifact(&context, request, &artifact)));
    return artifact;
  });
}

absl::StatusOr<v1::Manifest> ArtifactTransfer::ReadManifest(
    const std::string& sha256) {
  FT_ASSIGN_OR_RETURN(const TempDir dir, TempDir::Create(temp_dir_));
  const std::string path = JoinPath(dir.path(), "manifest");
  FT_RETURN_IF_ERROR(Download(sha256, /*bytes=*/-1, path), "manifest");
  FT_ASSIGN_OR_RETURN(const std::string bytes,
                      ReadFile(path, kMaxManifestBytes));
  return ParseManifest(bytes);
}

absl::Status ArtifactTransfer::Download(const std::string& sha256,
                                        int64_t bytes, const std::string& path,
                                        const TransferProgress& progress) {
  if (!IsSha256Hex(sha256)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", sha256.substr(0, 80), "\" is no digest"));
  }
  const std::string part = path + ".part";
  // What lies there may be the beginning of something else: then once more,
  // from the start.
  bool is_continued = FileSize(part).value_or(0) > 0;
  while (true) {
    FT_RETURN_IF_ERROR(
        Retry([&] { return DownloadOnce(sha256, bytes, part, progress); }));
    FT_ASSIGN_OR_RETURN(const std::string got, Sha256OfFile(part));
    if (got == sha256) break;
    FT_RETURN_IF_ERROR(RemoveFile(part));
    if (!std::exchange(is_continued, false)) {
      return absl::DataLossError(absl::StrCat(path, ": sha256 is ",
                                              got.substr(0, 8), "..., wanted ",
                                              sha256.substr(0, 8), "..."));
    }
  }
  FT_RETURN_IF_ERROR(SyncFile(part));
  return RenameDurably(part, path);
}

absl::Status ArtifactTransfer::DownloadOnce(const std::string& sha256,
                                            int64_t bytes,
                                            const std::string& part,
                                            const TransferProgress& progress) {
  UniqueFd fd(Files().Open(part.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", part));
  int64_t offset = lseek(fd.get(), 0, SEEK_END);
  if (bytes >= 0 && offset > bytes) {  // Of something else.
    offset = 0;
    if (Files().Truncate(fd.get(), 0) != 0)
      return ErrnoStatus(errno, "truncate");
    lseek(fd.get(), 0, SEEK_SET);
  }
  if (bytes >= 0 && offset == bytes) return absl::OkStatus();
  v1::ReadRequest request;
  request.set_sha256(sha256);
  request.set_offset(offset);
  grpc::ClientContext context;
  Prepare(context, token_, kStreamTimeout);
  const auto stream = stubs_->artifacts->Read(&context, request);
  v1::ReadResponse response;
  absl::Status status;
  while (status.ok() && stream->Read(&response)) {
    if (response.offset() != offset ||
        Crc32c(response.data()) != response.crc32c()) {
      status = absl::UnavailableError("a piece came damaged or out of order");
    } else if (bytes >= 0 &&
               offset + static_cast<int64_t>(response.data().size()) > bytes) {
      status = absl::DataLossError("more bytes came than the blob has");
    } else {
      status = WriteAll(fd.get(), response.data());
      offset += static_cast<int64_t>(response.data().size());
      if (progress) progress(offset, response.total_bytes());
    }
  }
  if (!status.ok()) context.TryCancel();
  const absl::Status finished = FromGrpcStatus(stream->Finish());
  return status.ok() ? finished : status;
}

}  // namespace ft
