// SPDX-License-Identifier: Apache-2.0
//
// Transfers and mutations over a network that cuts, flips and loses answers.

#include "artifact/manifest.h"
#include "artifact/transfer.h"
#include "tests/coordinator/service_world.h"
#include "tests/testing/sizes.h"
#include "tests/testing/tcp_proxy.h"

namespace ft {
namespace {

using testing::HandWorker;
using testing::HasCode;
using testing::IsOk;
using testing::ServiceTest;
using testing::TcpProxy;
using Direction = TcpProxy::Direction;

constexpr int64_t kChunk = 1 << 20;
constexpr int64_t kPiece = 8 << 20;

class NetworkTest : public ServiceTest {
 protected:
  // 3 chunks and a bit; other bytes each time.
  std::string Content() {
    std::string bytes(3 * kChunk + 777, static_cast<char>(++contents_));
    for (size_t i = 0; i < bytes.size(); i += 97) {
      bytes[i] = static_cast<char>(i >> 3);
    }
    return bytes;
  }
  ArtifactTransfer Transfer(const std::string& address) {
    return ArtifactTransfer(MakeChannel(address), coordinator_->admin_token());
  }
  // Sends the first `size` bytes in chunks, and breaks off.
  void SendPart(const std::string& bytes, int64_t size) {
    v1::BeginUploadRequest begin;
    begin.set_sha256(Sha256Hex(bytes));
    begin.set_bytes(static_cast<int64_t>(bytes.size()));
    v1::BeginUploadResponse begun;
    ASSERT_TRUE(uploads_->BeginUpload(Admin().get(), begin, &begun).ok());
    const auto context = Admin();
    const auto stream = uploads_->Write(context.get());
    for (int64_t at = 0; at < size; at += kChunk) {
      v1::WriteRequest write;
      write.set_upload_id(begun.upload_id());
      write.set_offset(at);
      write.set_data(
          bytes.substr(static_cast<size_t>(at),
                       static_cast<size_t>(std::min(kChunk, size - at))));
      write.set_crc32c(Crc32c(write.data()));
      if (!stream->Write(write)) break;
    }
    context->TryCancel();
    stream->Finish().IgnoreError();
  }
  bool IsStored(const std::string& sha256) {
    v1::FindMissingRequest find;
    find.add_sha256(sha256);
    v1::FindMissingResponse missing;
    EXPECT_TRUE(uploads_->FindMissing(Admin().get(), find, &missing).ok());
    return missing.sha256().empty();
  }

  int contents_ = 0;
};

TEST_F(NetworkTest, AnUploadCutAtAnyChunkBoundaryResumesAtTheServersOffset) {
  TcpProxy proxy(coordinator_->client_address());
  for (int64_t chunk = 0; chunk <= 3; ++chunk) {
    for (const int64_t beside : {-1, 0, 1}) {
      const int64_t cut = chunk * kChunk + beside;
      if (cut < 0) continue;
      const std::string bytes = Content();
      SendPart(bytes, cut);
      ASSERT_THAT(WriteFileAtomic(dir_ / "file", bytes), IsOk());
      const int64_t before = proxy.passed(Direction::kToServer);
      ArtifactTransfer transfer = Transfer(proxy.address());
      ASSERT_THAT(transfer.UploadFile(dir_ / "file", Sha256Hex(bytes), {}),
                  IsOk());
      const int64_t sent = proxy.passed(Direction::kToServer) - before;
      const auto size = static_cast<int64_t>(bytes.size());
      EXPECT_LE(sent, size - cut + kPiece + kChunk / 8) << cut;
      EXPECT_TRUE(IsStored(Sha256Hex(bytes))) << cut;
    }
  }
}

TEST_F(NetworkTest, AnUploadWhoseConnectionIsCutGoesOnByItself) {
  TcpProxy proxy(coordinator_->client_address());
  for (int64_t chunk = 0; chunk <= 3; ++chunk) {
    for (const int64_t beside : {-1, 0, 1}) {
      const std::string bytes = Content();
      ASSERT_THAT(WriteFileAtomic(dir_ / "file", bytes), IsOk());
      const int64_t before = proxy.passed(Direction::kToServer);
      ArtifactTransfer transfer = Transfer(proxy.address());
      proxy.CutAfter(Direction::kToServer,
                     std::max<int64_t>(0, chunk * kChunk + beside));
      ASSERT_THAT(transfer.UploadFile(dir_ / "file", Sha256Hex(bytes), {}),
                  IsOk());
      const int64_t sent = proxy.passed(Direction::kToServer) - before;
      EXPECT_LE(sent, static_cast<int64_t>(bytes.size()) + kPiece + kChunk / 8);
      EXPECT_TRUE(IsStored(Sha256Hex(bytes)));
    }
  }
}

TEST_F(NetworkTest, ADownloadWhoseConnectionIsCutGoesOnByItself) {
  TcpProxy proxy(coordinator_->client_address());
  const std::string bytes = Content();
  const std::string sha256 = StoreBlob(bytes);
  for (int64_t chunk = 0; chunk <= 3; ++chunk) {
    for (const int64_t beside : {-1, 0, 1}) {
      const std::string path =
          dir_ / absl::StrCat("fetched-", chunk, "-", beside);
      const int64_t before = proxy.passed(Direction::kToClient);
      ArtifactTransfer transfer = Transfer(proxy.address());
      proxy.CutAfter(Direction::kToClient,
                     std::max<int64_t>(0, chunk * kChunk + beside));
      ASSERT_THAT(
          transfer.Download(sha256, static_cast<int64_t>(bytes.size()), path),
          IsOk());
      EXPECT_TRUE(ReadFile(path, 1 << 24).value() == bytes);
      EXPECT_LE(proxy.passed(Direction::kToClient) - before,
                static_cast<int64_t>(bytes.size()) + kPiece);
    }
  }
}

TEST_F(NetworkTest, AFlippedBitIsFoundAndNamed) {
  TcpProxy proxy(coordinator_->client_address());
  // Far from the frames' heads, so inside the data of the second chunk.
  for (const int64_t at : {kChunk + 300'001, kChunk + 500'003}) {
    const std::string bytes = Content();
    ASSERT_THAT(WriteFileAtomic(dir_ / "file", bytes), IsOk());
    ArtifactTransfer transfer = Transfer(proxy.address());
    proxy.FlipAt(Direction::kToServer, at);
    const absl::Status status =
        transfer.UploadFile(dir_ / "file", Sha256Hex(bytes), {});
    EXPECT_THAT(status, testing::Fails(absl::StatusCode::kDataLoss,
                                       absl::StrCat("at ", kChunk)));
    EXPECT_FALSE(IsStored(Sha256Hex(bytes)));
    // The next try sends only what is missing, and all is well.
    EXPECT_THAT(transfer.UploadFile(dir_ / "file", Sha256Hex(bytes), {}),
                IsOk());
  }
  const std::string bytes = Content();
  const std::string sha256 = StoreBlob(bytes);
  ArtifactTransfer transfer = Transfer(proxy.address());
  proxy.FlipAt(Direction::kToClient, kChunk + 300'001);
  ASSERT_THAT(transfer.Download(sha256, static_cast<int64_t>(bytes.size()),
                                dir_ / "fetched"),
              IsOk());
  EXPECT_TRUE(ReadFile(dir_ / "fetched", 1 << 24).value() == bytes);
}

TEST_F(NetworkTest, AStaleEpochIsRefusedByEveryWrite) {
  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  const std::string job_id = Create(Spec(), "r-1").value().job_id();
  const uint64_t epoch = worker.Next(&v1::ConnectResponse::has_start_attempt)
                             .start_attempt()
                             .epoch();
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex("weights"));
  begin.set_bytes(7);
  begin.set_job_id(job_id);
  begin.set_epoch(epoch);
  v1::BeginUploadResponse begun;
  ASSERT_TRUE(worker_uploads_->BeginUpload(Worker().get(), begin, &begun).ok());
  v1::Manifest manifest;
  manifest.set_kind(v1::ARTIFACT_KIND_CHECKPOINT);
  manifest.set_job_id(job_id);
  manifest.set_epoch(epoch);
  manifest.set_step(1);
  v1::FileEntry& file = *manifest.add_files();
  file.set_path("weights");
  file.set_sha256(StoreBlob("other weights"));
  file.set_bytes(13);
  v1::CommitArtifactRequest commit;
  commit.set_job_id(job_id);
  commit.set_epoch(epoch);
  commit.set_manifest_sha256(StoreBlob(SerializeManifest(manifest)));
  commit.set_request_id("c-1");

  v1::CancelJobRequest cancel;
  cancel.set_job_id(job_id);
  cancel.set_request_id("cancel-1");
  v1::Job job;
  ASSERT_TRUE(jobs_->CancelJob(Admin().get(), cancel, &job).ok());
  worker.Update(job_id, epoch, [](auto& update) {
    update.mutable_ended()->set_cause(v1::ATTEMPT_CAUSE_STOPPED);
  });
  WatchToTheEnd(job_id);

  const auto is_stale = [](const grpc::Status& status) {
    return ReasonOf(FromGrpcStatus(status)) == "STALE_EPOCH";
  };
  EXPECT_TRUE(
      is_stale(worker_uploads_->BeginUpload(Worker().get(), begin, &begun)));
  v1::FinishUploadRequest finish;
  finish.set_upload_id(begun.upload_id().empty()
                           ? absl::StrCat(begin.sha256(), "-", epoch)
                           : begun.upload_id());
  v1::FinishUploadResponse finished;
  EXPECT_TRUE(is_stale(
      worker_uploads_->FinishUpload(Worker().get(), finish, &finished)));
  {
    auto writing = Worker();
    auto stream = worker_uploads_->Write(writing.get());
    v1::WriteRequest write;
    write.set_upload_id(finish.upload_id());
    write.set_data("weights");
    write.set_crc32c(Crc32c("weights"));
    stream->Write(write);
    stream->WritesDone();
    v1::WriteResponse answer;
    while (stream->Read(&answer)) {
    }
    EXPECT_TRUE(is_stale(stream->Finish()));
  }
  v1::Artifact artifact;
  EXPECT_TRUE(is_stale(
      worker_uploads_->CommitArtifact(Worker().get(), commit, &artifact)));
  // What the daemon says of it is answered by the order to let go.
  worker.Update(job_id, epoch, [](auto& update) { update.mutable_accepted(); });
  EXPECT_EQ(worker.Next(&v1::ConnectResponse::has_fence).fence().epoch(),
            epoch);
}

// FT_RETRIES asks for more.
int Retries() { return testing::SizeFrom("FT_RETRIES", 100); }

TEST_F(NetworkTest, ALostAnswerIsAskedForAgainAndTheEffectIsOne) {
  TcpProxy proxy(coordinator_->client_address());
  const v1::JobSpec spec = Spec();
  std::set<std::string> ids;
  const int jobs = std::max(1, Retries() / 10);
  for (int i = 0; i < jobs; ++i) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(absl::StrCat("r-", i));
    proxy.DropAnswers(10);
    const int64_t wanted = proxy.dropped_answers() + 10;
    v1::Job job;
    grpc::Status status;
    do {
      const auto stub = v1::JobService::NewStub(MakeChannel(proxy.address()));
      status = stub->CreateJob(Admin().get(), request, &job);
      ASSERT_TRUE(status.ok() ||
                  status.error_code() == grpc::StatusCode::UNAVAILABLE)
          << status.error_message();
    } while (!status.ok());
    EXPECT_EQ(proxy.dropped_answers(), wanted);
    ids.insert(job.job_id());
  }
  EXPECT_EQ(static_cast<int>(ids.size()), jobs);
  v1::ListJobsRequest list;
  list.set_page_size(1000);
  int stored = 0;
  do {
    v1::ListJobsResponse page;
    ASSERT_TRUE(jobs_->ListJobs(Admin().get(), list, &page).ok());
    stored += page.jobs_size();
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty());
  EXPECT_EQ(stored, jobs);
}

TEST_F(NetworkTest, TooManyElementsAreRefusedWithTheirField) {
  v1::JobSpec spec = Spec();
  for (int i = 0; i <= 10'000; ++i) spec.add_secrets("s");
  const auto refused = Create(spec, "r-1");
  EXPECT_THAT(refused, testing::Fails(absl::StatusCode::kInvalidArgument,
                                      "spec.secrets: 10001 elements"));
  EXPECT_EQ(ReasonOf(refused.status()), "LIMIT_EXCEEDED");

  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  worker.Update("job-7q3k0v2m9xwz", 1, [](auto& update) {
    for (int i = 0; i <= 10'000; ++i) {
      update.mutable_ranks_done()->add_ranks(i);
    }
  });
  EXPECT_THAT(worker.End().error_message(),
              ::testing::HasSubstr("10001 elements"));
}

TEST_F(NetworkTest, LargeMetadataAreRefused) {
  auto context = Admin();
  context->AddMetadata("x-big", std::string(100'000, 'v'));
  v1::ListJobsResponse page;
  EXPECT_FALSE(jobs_->ListJobs(context.get(), {}, &page).ok());
  // The connection may be closed for it, also under the next call.
  grpc::Status next;
  do {
    next = jobs_->ListJobs(Admin().get(), {}, &page);
  } while (next.error_code() == grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(next.ok()) << next.error_message();
}

TEST_F(NetworkTest, AMessageOfFourMebibytesIsTheLargest) {
  v1::ListJobsRequest list;
  list.set_name(std::string(5 << 20, 'n'));
  v1::ListJobsResponse page;
  EXPECT_EQ(jobs_->ListJobs(Admin().get(), list, &page).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(NetworkTest, ACompressedMessageIsRefused) {
  auto context = Admin();
  context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
  v1::ListJobsResponse page;
  v1::ListJobsRequest list;
  list.set_name(std::string(100'000, 'n'));
  EXPECT_EQ(jobs_->ListJobs(context.get(), list, &page).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace ft
