// SPDX-License-Identifier: Apache-2.0

#include "coordinator/service_util.h"
#include "coordinator/services.h"
#include "ft/v1/jobs.grpc.pb.h"

namespace ft {
namespace {

using google::protobuf::Empty;
using Context = grpc::CallbackServerContext;

// Translates gRPC to JobBook and nothing else: no decision is taken here.
class JobServiceImpl final : public v1::JobService::CallbackService {
 public:
  JobServiceImpl(JobBook& book, const TokenTable& tokens,
                 CoordinatorMetrics& metrics)
      : book_(book), tokens_(tokens), metrics_(metrics) {}

  grpc::ServerUnaryReactor* CreateJob(Context* context,
                                      const v1::CreateJobRequest* request,
                                      v1::Job* job) override {
    return Unary(context, job, "CreateJob", metrics_, [&](auto done) {
      book_.CreateJob(CallerOf(*context, tokens_), *request, std::move(done));
    });
  }

  grpc::ServerUnaryReactor* GetJob(Context* context,
                                   const v1::GetJobRequest* request,
                                   v1::Job* job) override {
    return Unary(context, job, "GetJob", metrics_,
                 [&](auto done) { book_.GetJob(*request, std::move(done)); });
  }

  grpc::ServerUnaryReactor* ListJobs(Context* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return Unary(context, response, "ListJobs", metrics_,
                 [&](auto done) { book_.ListJobs(*request, std::move(done)); });
  }

  grpc::ServerUnaryReactor* CancelJob(Context* context,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* job) override {
    return Unary(context, job, "CancelJob", metrics_, [&](auto done) {
      book_.CancelJob(CallerOf(*context, tokens_), *request, std::move(done));
    });
  }

  grpc::ServerUnaryReactor* ResumeJob(Context* context,
                                      const v1::ResumeJobRequest* request,
                                      v1::Job* job) override {
    return Unary(context, job, "ResumeJob", metrics_, [&](auto done) {
      book_.ResumeJob(CallerOf(*context, tokens_), *request, std::move(done));
    });
  }

  grpc::ServerUnaryReactor* DeleteJob(Context* context,
                                      const v1::DeleteJobRequest* request,
                                      Empty* response) override {
    return Unary(context, response, "DeleteJob", metrics_, [&](auto done) {
      book_.DeleteJob(CallerOf(*context, tokens_), *request,
                      [done](const absl::Status& status) {
                        status.ok() ? done(Empty()) : done(status);
                      });
    });
  }

  grpc::ServerUnaryReactor* ListEvents(
      Context* context, const v1::ListEventsRequest* request,
      v1::ListEventsResponse* response) override {
    return Unary(context, response, "ListEvents", metrics_, [&](auto done) {
      book_.ListEvents(*request, std::move(done));
    });
  }

  grpc::ServerUnaryReactor* ListMetrics(
      Context* context, const v1::ListMetricsRequest* request,
      v1::ListMetricsResponse* response) override {
    return Unary(context, response, "ListMetrics", metrics_, [&](auto done) {
      book_.ListMetrics(*request, std::move(done));
    });
  }

  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      Context*, const v1::WatchJobRequest* request) override {
    using Stream = PulledStream<v1::WatchJobResponse>;
    auto* stream = new Stream(book_.pool());
    std::shared_ptr<JobWatch> watch =
        book_.WatchJob(*request, [stream] { stream->Wake(); });
    stream->Start([watch]() -> absl::StatusOr<Stream::Batch> {
      absl::StatusOr<JobWatch::Batch> news = watch->Pull();
      if (!news.ok()) return news.status();
      return Stream::Batch{std::move(news->messages), news->more,
                           news->finished};
    });
    return stream;
  }

  grpc::ServerWriteReactor<v1::TailLogsResponse>* TailLogs(
      Context*, const v1::TailLogsRequest* request) override {
    using Stream = PulledStream<v1::TailLogsResponse>;
    auto* stream = new Stream(book_.pool());
    std::shared_ptr<LogTail> tail =
        book_.TailLogs(*request, [stream] { stream->Wake(); });
    stream->Start([tail]() -> absl::StatusOr<Stream::Batch> {
      absl::StatusOr<LogTail::Batch> news = tail->Pull();
      if (!news.ok()) return news.status();
      Stream::Batch batch{{}, news->more, news->finished};
      if (!news->lines.lines().empty()) {
        batch.messages.push_back(std::move(news->lines));
      }
      return batch;
    });
    return stream;
  }

 private:
  JobBook& book_;
  const TokenTable& tokens_;
  CoordinatorMetrics& metrics_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeJobService(JobBook& book,
                                              const TokenTable& tokens,
                                              CoordinatorMetrics& metrics) {
  return std::make_shared<JobServiceImpl>(book, tokens, metrics);
}

}  // namespace ft
