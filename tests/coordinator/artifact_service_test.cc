// SPDX-License-Identifier: Apache-2.0
//
// Files over the wire: resumed, verified, fenced, named.

#include <thread>
#include <vector>

#include "artifact/manifest.h"
#include "artifact/transfer.h"
#include "tests/coordinator/service_world.h"

namespace ft {
namespace {

using testing::HandWorker;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::kRows;
using testing::ServiceTest;

// --- Artifacts ---------------------------------------------------------------

// What a client does with a file; `cut` bytes before it breaks off.
class Upload {
 public:
  Upload(v1::ArtifactService::Stub& stub, const std::string& bytes)
      : stub_(stub), bytes_(bytes) {}

  v1::BeginUploadResponse Begin(grpc::ClientContext* context,
                                const std::string& job_id = "",
                                uint64_t epoch = 0) {
    v1::BeginUploadRequest request;
    request.set_sha256(Sha256Hex(bytes_));
    request.set_bytes(static_cast<int64_t>(bytes_.size()));
    request.set_job_id(job_id);
    request.set_epoch(epoch);
    v1::BeginUploadResponse begun;
    status_ = stub_.BeginUpload(context, request, &begun);
    return begun;
  }
  // Sends [from, to) in pieces; the last acknowledged offset.
  int64_t Send(grpc::ClientContext* context, const std::string& id, size_t from,
               size_t to) {
    auto stream = stub_.Write(context);
    for (size_t at = from; at < to; at += kPiece) {
      v1::WriteRequest request;
      request.set_upload_id(id);
      request.set_offset(static_cast<int64_t>(at));
      request.set_data(bytes_.substr(at, std::min(kPiece, to - at)));
      request.set_crc32c(Crc32c(request.data()));
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    v1::WriteResponse response;
    while (stream->Read(&response)) {
    }
    status_ = stream->Finish();
    return response.offset();
  }
  absl::Status End(grpc::ClientContext* context, const std::string& id) {
    v1::FinishUploadRequest request;
    request.set_upload_id(id);
    v1::FinishUploadResponse response;
    return FromGrpcStatus(stub_.FinishUpload(context, request, &response));
  }
  absl::Status status() const { return FromGrpcStatus(status_); }

 private:
  static constexpr size_t kPiece = 100'000;
  v1::ArtifactService::Stub& stub_;
  const std::string bytes_;
  grpc::Status status_;
};

std::string Bytes(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 >> 7);
  return bytes;
}

TEST_F(ServiceTest, AnUploadGoesOnWhereItBrokeOffEvenOverARestart) {
  const std::string bytes = Bytes(3'000'000);
  Upload upload(*uploads_, bytes);
  std::string id = upload.Begin(Admin().get()).upload_id();
  EXPECT_EQ(upload.Send(Admin().get(), id, 0, 1'234'567), 1'234'567);
  EXPECT_THAT(upload.End(Admin().get(), id),
              HasCode(absl::StatusCode::kOutOfRange));
  Stop();
  Start();
  Upload again(*uploads_, bytes);
  const v1::BeginUploadResponse begun = again.Begin(Admin().get());
  EXPECT_EQ(begun.offset(), 1'234'567);
  id = begun.upload_id();
  EXPECT_EQ(again.Send(Admin().get(), id, 1'234'567, bytes.size()), 3'000'000);
  EXPECT_THAT(again.End(Admin().get(), id), IsOk());
  EXPECT_THAT(again.End(Admin().get(), id), IsOk());
  EXPECT_TRUE(again.Begin(Admin().get()).complete());

  v1::ReadRequest read;
  read.set_sha256(Sha256Hex(bytes));
  read.set_offset(1'000);
  auto context = Admin();
  auto stream = uploads_->Read(context.get(), read);
  std::string got;
  v1::ReadResponse piece;
  while (stream->Read(&piece)) {
    EXPECT_EQ(piece.offset(), static_cast<int64_t>(1'000 + got.size()));
    EXPECT_EQ(piece.crc32c(), Crc32c(piece.data()));
    EXPECT_EQ(piece.total_bytes(), 3'000'000);
    got += piece.data();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(got == bytes.substr(1'000));
}

TEST_F(ServiceTest, OurTransferAndOurServerAgree) {
  const std::string bytes = Bytes(20'000'000);
  const std::string sha256 = Sha256Hex(bytes);
  ASSERT_THAT(WriteFileAtomic(dir_ / "weights", bytes), IsOk());
  ArtifactTransfer transfer(MakeChannel(coordinator_->client_address()),
                            coordinator_->admin_token());
  ASSERT_THAT(transfer.UploadFile(dir_ / "weights", sha256, {}), IsOk());
  ASSERT_THAT(transfer.UploadFile(dir_ / "weights", sha256, {}), IsOk());

  v1::Manifest manifest;
  manifest.set_kind(v1::ARTIFACT_KIND_DATASET);
  v1::FileEntry& file = *manifest.add_files();
  file.set_path("weights");
  file.set_sha256(sha256);
  file.set_bytes(static_cast<int64_t>(bytes.size()));
  const std::string serialized = SerializeManifest(manifest);
  ASSERT_THAT(transfer.UploadBytes(serialized, {}), IsOk());
  v1::CommitArtifactRequest commit;
  commit.set_name("weights");
  commit.set_manifest_sha256(Sha256Hex(serialized));
  commit.set_request_id("c-1");
  ASSERT_THAT(transfer.Commit(commit), IsOk());
  EXPECT_EQ(transfer.GetByName("weights").value().bytes(), 20'000'000);

  ASSERT_THAT(transfer.Download(sha256, file.bytes(), dir_ / "fetched"),
              IsOk());
  EXPECT_TRUE(ReadFile(dir_ / "fetched", 1 << 30).value() == bytes);
}

TEST_F(ServiceTest, OneFileOfManyClientsAtOnceIsStoredForEach) {
  const std::string bytes = Bytes(24'000'000);
  ASSERT_THAT(WriteFileAtomic(dir_ / "rows", bytes), IsOk());
  const std::string sha256 = Sha256Hex(bytes);
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      ArtifactTransfer transfer(MakeChannel(coordinator_->client_address()),
                                coordinator_->admin_token());
      EXPECT_THAT(transfer.UploadFile(dir_ / "rows", sha256, {}), IsOk());
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(ServiceTest, TheServersOffsetRules) {
  Upload upload(*uploads_, Bytes(500'000));
  const std::string id = upload.Begin(Admin().get()).upload_id();
  upload.Send(Admin().get(), id, 0, 200'000);
  upload.Send(Admin().get(), id, 100'000, 300'000);
  EXPECT_THAT(upload.status(), HasCode(absl::StatusCode::kOutOfRange));
  EXPECT_EQ(ReasonMetadataOf(upload.status()).at("offset"), "200000");
}

TEST_F(ServiceTest, AWriterIsRefusedWhileTheServerWaitsForMore) {
  const std::string id =
      Upload(*uploads_, Bytes(500'000)).Begin(Admin().get()).upload_id();
  const auto context = Admin();
  const auto stream = uploads_->Write(context.get());
  v1::WriteRequest request;
  request.set_upload_id(id);
  request.set_offset(7);
  ASSERT_TRUE(stream->Write(request));
  v1::WriteResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(stream->Finish())), "WRONG_OFFSET");
}

TEST_F(ServiceTest, AWriterHearsHowFarItGotBeforeItSendsMore) {
  constexpr int64_t kMiB = 1 << 20;
  const std::string bytes = Bytes(32 * kMiB);
  const auto context = Admin();
  const auto stream = uploads_->Write(context.get());
  v1::WriteRequest request;
  request.set_upload_id(
      Upload(*uploads_, bytes).Begin(Admin().get()).upload_id());
  for (int64_t at = 0; at < 16 * kMiB; at += kMiB) {
    request.set_offset(at);
    request.set_data(bytes.substr(static_cast<size_t>(at), kMiB));
    request.set_crc32c(Crc32c(request.data()));
    ASSERT_TRUE(stream->Write(request));
  }
  v1::WriteResponse response;
  while (response.offset() <= 8 * kMiB) {
    ASSERT_TRUE(stream->Read(&response));
  }
  stream->WritesDone();
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(response.offset(), 16 * kMiB);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ServiceTest, WrongBytesAreNeverStored) {
  const std::string good = Bytes(1'000);
  std::string bad = good;
  bad[500] ^= 1;
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex(good));
  begin.set_bytes(1'000);
  v1::BeginUploadResponse begun;
  ASSERT_TRUE(uploads_->BeginUpload(Admin().get(), begin, &begun).ok());
  Upload upload(*uploads_, bad);
  EXPECT_EQ(upload.Send(Admin().get(), begun.upload_id(), 0, 1'000), 1'000);
  const absl::Status refused = upload.End(Admin().get(), begun.upload_id());
  EXPECT_THAT(refused, HasCode(absl::StatusCode::kDataLoss));
  v1::FindMissingRequest find;
  find.add_sha256(Sha256Hex(good));
  find.add_sha256(Sha256Hex(bad));
  v1::FindMissingResponse missing;
  ASSERT_TRUE(uploads_->FindMissing(Admin().get(), find, &missing).ok());
  EXPECT_EQ(missing.sha256_size(), 2);
}

TEST_F(ServiceTest, AWorkerUploadsForACurrentEpochOnly) {
  Upload upload(*worker_uploads_, "weights");
  upload.Begin(Worker().get());
  EXPECT_THAT(upload.status(), HasCode(absl::StatusCode::kAborted));
  upload.Begin(Worker().get(), "job-000000000000", 7);
  EXPECT_EQ(ReasonOf(upload.status()), "STALE_EPOCH");

  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  const std::string job_id = Create(Spec(), "r-1").value().job_id();
  const uint64_t epoch = worker.Next(&v1::ConnectResponse::has_start_attempt)
                             .start_attempt()
                             .epoch();
  const std::string id =
      upload.Begin(Worker().get(), job_id, epoch).upload_id();
  EXPECT_THAT(upload.status(), IsOk());
  worker.Update(job_id, epoch, [](auto& update) {
    update.mutable_ended()->set_cause(v1::ATTEMPT_CAUSE_INVALID_ARGUMENT);
  });
  WatchToTheEnd(job_id);
  upload.Send(Worker().get(), id, 0, 7);
  EXPECT_EQ(ReasonOf(upload.status()), "STALE_EPOCH");
}

TEST_F(ServiceTest, AWorkerHasNoMoreRightsOnTheConnectionOfAClient) {
  Upload upload(*uploads_, "rows");
  upload.Begin(Admin().get());
  EXPECT_THAT(upload.status(), IsOk());
  upload.Begin(Worker().get());
  EXPECT_THAT(upload.status(), HasCode(absl::StatusCode::kAborted));
}

TEST_F(ServiceTest, ADataSetIsNamedOnceAndOnlyWithAllItsBlobs) {
  v1::Manifest manifest;
  manifest.set_kind(v1::ARTIFACT_KIND_DATASET);
  v1::FileEntry& file = *manifest.add_files();
  file.set_path("train.json");
  file.set_sha256(Sha256Hex("not stored"));
  v1::CommitArtifactRequest commit;
  commit.set_name("identity");
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_request_id("c-1");
  v1::Artifact artifact;
  const auto missing = FromGrpcStatus(
      uploads_->CommitArtifact(Admin().get(), commit, &artifact));
  EXPECT_THAT(missing, HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(missing), "MISSING_BLOBS");

  file.set_sha256(StoreBlob(kRows));
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_request_id("c-2");
  ASSERT_TRUE(uploads_->CommitArtifact(Admin().get(), commit, &artifact).ok());
  v1::GetArtifactRequest get;
  get.set_name("identity");
  ASSERT_TRUE(uploads_->GetArtifact(Admin().get(), get, &artifact).ok());
  EXPECT_EQ(artifact.manifest().files(0).path(), "train.json");

  file.set_path("other.json");
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_request_id("c-3");
  EXPECT_EQ(
      uploads_->CommitArtifact(Admin().get(), commit, &artifact).error_code(),
      grpc::StatusCode::ALREADY_EXISTS);
}

}  // namespace
}  // namespace ft
