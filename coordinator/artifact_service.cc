// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/status.h"
#include "coordinator/blob_desk.h"
#include "coordinator/reasons.h"
#include "coordinator/service_util.h"
#include "coordinator/services.h"
#include "ft/v1/artifacts.grpc.pb.h"

namespace ft {
namespace {

using google::protobuf::Empty;
using Context = grpc::CallbackServerContext;

constexpr int kMaxDigests = 10'000;
constexpr int64_t kPieceBytes = 1 << 20;
constexpr int64_t kAckEveryBytes = 8 << 20;
constexpr absl::Duration kAckEvery = absl::Milliseconds(250);

// What every blob call needs.
struct Shop {
  JobBook& book;
  const TokenTable& tokens;
  BlobDesk& desk;
  TaskPool& pool;
  CoordinatorMetrics& metrics;

  // A worker writes for an attempt that still acts; a client for nobody.
  absl::Status CheckWriter(const Principal& who, const std::string& job_id,
                           uint64_t epoch) const {
    if (job_id.empty() && who.role == Role::kAdmin) return absl::OkStatus();
    return book.CheckEpoch(job_id, epoch);
  }
  absl::Status CheckUpload(const Principal& who,
                           const std::string& upload_id) const {
    const absl::StatusOr<BlobDesk::Writer> writer = desk.WriterOf(upload_id);
    // Not open: the desk says whether it is finished or unknown.
    if (absl::IsNotFound(writer.status())) return absl::OkStatus();
    if (!writer.ok()) return writer.status();
    return CheckWriter(who, writer->job_id, writer->epoch);
  }
};

// One upload's bytes: a message is stored on the pool while the next one is
// read. The window of the connection is what holds back a fast writer.
class WriteStream final
    : public grpc::ServerBidiReactor<v1::WriteRequest, v1::WriteResponse> {
 public:
  WriteStream(const Shop& shop, Principal who)
      : shop_(shop), who_(std::move(who)) {
    StartRead(&next_);
  }

  void OnReadDone(bool ok) override {
    has_next_ = ok;
    Join();
  }

  // Where the call is broken, its reads end as well.
  void OnWriteDone(bool) override { Join(); }

  void OnDone() override { delete this; }

 private:
  // Of what goes on at the same time, one has ended: a read, a store, an
  // acknowledgement.
  void Join() {
    if (--unfinished_ > 0) return;
    if (has_next_) {
      request_.Swap(&next_);
      unfinished_ = 2;
      StartRead(&next_);
      shop_.pool.Run([this] { Store(); });
    } else if (written_ > acknowledged_) {
      Acknowledge();  // The last word is how far the writer got.
    } else {
      Finish(grpc::Status::OK);
    }
  }

  void Store() {
    absl::Status status = shop_.CheckUpload(who_, request_.upload_id());
    if (status.ok()) {
      const absl::StatusOr<int64_t> offset = shop_.desk.Write(request_);
      status = offset.status();
      if (offset.ok()) written_ = *offset;
    }
    if (!status.ok()) {
      if (absl::IsDataLoss(status)) shop_.metrics.ArtifactVerifyFailed();
      // The read that goes on ends with the call, and joins nobody.
      Finish(ToGrpcStatus(status));
      return;
    }
    shop_.metrics.ArtifactBytes("in",
                                static_cast<int64_t>(request_.data().size()));
    // Not after the read: the writer may wait for it before it sends more.
    if (written_ - acknowledged_ >= kAckEveryBytes ||
        absl::Now() - acknowledged_at_ >= kAckEvery) {
      Acknowledge();
    }
    Join();
  }

  void Acknowledge() {
    ++unfinished_;
    acknowledged_ = written_;
    acknowledged_at_ = absl::Now();
    response_.set_offset(written_);
    StartWrite(&response_);
  }

  const Shop shop_;
  const Principal who_;
  std::atomic<int> unfinished_ = 1;
  v1::WriteRequest next_;     // Of the read.
  bool has_next_ = false;     // Of the read.
  v1::WriteRequest request_;  // Of the store.
  v1::WriteResponse response_;
  int64_t written_ = 0;
  int64_t acknowledged_ = 0;
  absl::Time acknowledged_at_ = absl::Now();
};

// Translates gRPC to JobBook and BlobDesk and nothing else.
class ArtifactServiceImpl final : public v1::ArtifactService::CallbackService {
 public:
  explicit ArtifactServiceImpl(const Shop& shop) : shop_(shop) {}

  grpc::ServerUnaryReactor* FindMissing(
      Context* context, const v1::FindMissingRequest* request,
      v1::FindMissingResponse* response) override {
    return OnPool(context, response, "FindMissing",
                  [this, request]() -> absl::StatusOr<v1::FindMissingResponse> {
                    if (request->sha256_size() > kMaxDigests) {
                      return TooMany("sha256", request->sha256_size());
                    }
                    v1::FindMissingResponse missing;
                    for (const std::string& sha256 : request->sha256()) {
                      if (!shop_.desk.Has(sha256)) missing.add_sha256(sha256);
                    }
                    return missing;
                  });
  }

  grpc::ServerUnaryReactor* BeginUpload(
      Context* context, const v1::BeginUploadRequest* request,
      v1::BeginUploadResponse* response) override {
    return OnPool(context, response, "BeginUpload",
                  [this, request, who = CallerOf(*context, shop_.tokens)]()
                      -> absl::StatusOr<v1::BeginUploadResponse> {
                    FT_RETURN_IF_ERROR(shop_.CheckWriter(who, request->job_id(),
                                                         request->epoch()));
                    FT_ASSIGN_OR_RETURN(v1::BeginUploadResponse begun,
                                        shop_.desk.Begin(*request));
                    if (begun.offset() > 0 && !begun.complete()) {
                      shop_.metrics.ArtifactResumed();
                    }
                    return begun;
                  });
  }

  grpc::ServerBidiReactor<v1::WriteRequest, v1::WriteResponse>* Write(
      Context* context) override {
    return new WriteStream(shop_, CallerOf(*context, shop_.tokens));
  }

  grpc::ServerUnaryReactor* QueryUpload(
      Context* context, const v1::QueryUploadRequest* request,
      v1::QueryUploadResponse* response) override {
    return OnPool(context, response, "QueryUpload", [this, request] {
      return shop_.desk.Query(request->upload_id());
    });
  }

  grpc::ServerUnaryReactor* FinishUpload(
      Context* context, const v1::FinishUploadRequest* request,
      v1::FinishUploadResponse* response) override {
    return OnPool(
        context, response, "FinishUpload",
        [this, request, who = CallerOf(*context, shop_.tokens)]()
            -> absl::StatusOr<v1::FinishUploadResponse> {
          FT_RETURN_IF_ERROR(shop_.CheckUpload(who, request->upload_id()));
          auto finished = shop_.desk.Finish(request->upload_id());
          if (absl::IsDataLoss(finished.status())) {
            shop_.metrics.ArtifactVerifyFailed();
          }
          return finished;
        });
  }

  grpc::ServerUnaryReactor* CommitArtifact(
      Context* context, const v1::CommitArtifactRequest* request,
      v1::Artifact* artifact) override {
    return Unary(context, artifact, "CommitArtifact", shop_.metrics,
                 [&](auto done) {
                   shop_.book.CommitArtifact(CallerOf(*context, shop_.tokens),
                                             *request, std::move(done));
                 });
  }

  grpc::ServerUnaryReactor* GetArtifact(Context* context,
                                        const v1::GetArtifactRequest* request,
                                        v1::Artifact* artifact) override {
    return Unary(
        context, artifact, "GetArtifact", shop_.metrics,
        [&](auto done) { shop_.book.GetArtifact(*request, std::move(done)); });
  }

  grpc::ServerUnaryReactor* ListArtifacts(
      Context* context, const v1::ListArtifactsRequest* request,
      v1::ListArtifactsResponse* response) override {
    return Unary(context, response, "ListArtifacts", shop_.metrics,
                 [&](auto done) {
                   shop_.book.ListArtifacts(*request, std::move(done));
                 });
  }

  grpc::ServerUnaryReactor* DeleteArtifact(
      Context* context, const v1::DeleteArtifactRequest* request,
      Empty* response) override {
    return Unary(
        context, response, "DeleteArtifact", shop_.metrics, [&](auto done) {
          shop_.book.DeleteArtifact(CallerOf(*context, shop_.tokens), *request,
                                    [done](const absl::Status& status) {
                                      status.ok() ? done(Empty())
                                                  : done(status);
                                    });
        });
  }

  grpc::ServerWriteReactor<v1::ReadResponse>* Read(
      Context*, const v1::ReadRequest* request) override {
    using Stream = PulledStream<v1::ReadResponse>;
    auto* stream = new Stream(shop_.pool);
    stream->Start([this, sha256 = request->sha256(), offset = request->offset(),
                   left = request->limit() > 0 ? request->limit()
                                               : INT64_MAX]() mutable
                      -> absl::StatusOr<Stream::Batch> {
      FT_ASSIGN_OR_RETURN(
          BlobDesk::Piece piece,
          shop_.desk.ReadPiece(sha256, offset, std::min(left, kPieceBytes)));
      const auto bytes = static_cast<int64_t>(piece.data.size());
      Stream::Batch batch;
      v1::ReadResponse& message = batch.messages.emplace_back();
      message.set_offset(offset);
      message.set_crc32c(Crc32c(piece.data));
      message.set_total_bytes(piece.total_bytes);
      message.set_data(std::move(piece.data));
      shop_.metrics.ArtifactBytes("out", bytes);
      offset += bytes;
      left -= bytes;
      batch.finished = bytes == 0 || left <= 0 || offset >= piece.total_bytes;
      batch.more = !batch.finished;
      return batch;
    });
    return stream;
  }

 private:
  static absl::Status TooMany(absl::string_view field, int count) {
    return ReasonError(
        absl::StatusCode::kInvalidArgument, v1::REASON_LIMIT_EXCEEDED,
        absl::StrCat(field, ": ", count, " elements; at most ", kMaxDigests));
  }

  // A unary call whose work blocks on the disk.
  template <typename Response, typename Work>
  grpc::ServerUnaryReactor* OnPool(Context* context, Response* response,
                                   const char* method, Work work) {
    return Unary(context, response, method, shop_.metrics, [&](auto done) {
      shop_.pool.Run([done, work = std::move(work)] { done(work()); });
    });
  }

  const Shop shop_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeArtifactService(
    JobBook& book, const TokenTable& tokens, BlobDesk& desk, TaskPool& pool,
    CoordinatorMetrics& metrics) {
  return std::make_shared<ArtifactServiceImpl>(Shop{.book = book,
                                                    .tokens = tokens,
                                                    .desk = desk,
                                                    .pool = pool,
                                                    .metrics = metrics});
}

}  // namespace ft
