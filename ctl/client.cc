// SPDX-License-Identifier: Apache-2.0

#include "ctl/client.h"

#include <grpcpp/grpcpp.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/address.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/id.h"
#include "common/status.h"
#include "common/token.h"
#include "ctl/paths.h"
#include "ft/v1/admin.grpc.pb.h"
#include "ft/v1/jobs.grpc.pb.h"

namespace ft {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr int kTries = 5;
// A stream goes on after a break: as long as a restart may take.
constexpr int kStreamTries = 60;
constexpr absl::Duration kStreamPause = absl::Seconds(1);

absl::StatusOr<std::string> FindAddress(const GlobalOptions& options) {
  if (!options.address.empty()) return options.address;
  const absl::StatusOr<std::string> text =
      ReadFile(CoordinatorEndpoint(), 1 << 16);
  if (text.ok()) {
    const auto endpoint = nlohmann::json::parse(*text, nullptr, false);
    if (endpoint.is_object() && endpoint.contains("client_address") &&
        endpoint["client_address"].is_string()) {
      return endpoint["client_address"].get<std::string>();
    }
  }
  return absl::UnavailableError("no service is known on this machine");
}

std::string FindTokenFile(const GlobalOptions& options) {
  if (!options.token_file.empty()) return options.token_file;
  return AdminTokenFile();
}

}  // namespace

struct Client::Stubs {
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::AdminService::Stub> admin;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    const GlobalOptions& options) {
  FT_ASSIGN_OR_RETURN(const std::string address, FindAddress(options));
  FT_RETURN_IF_ERROR(ParseLoopbackAddress(address).status());
  const absl::StatusOr<std::string> token =
      ReadTokenFile(FindTokenFile(options));
  if (!token.ok()) {
    // Without it every call would be refused.
    return absl::UnauthenticatedError(token.status().message());
  }
  return std::unique_ptr<Client>(new Client(address, *token));
}

Client::Client(const std::string& address, std::string token)
    : token_(std::move(token)) {
  const auto channel = MakeChannel(address);
  stubs_.reset(new Stubs{v1::JobService::NewStub(channel),
                         v1::AdminService::NewStub(channel)});
  artifacts_ = std::make_unique<ArtifactTransfer>(channel, token_);
}

Client::~Client() = default;

namespace {

// One unary call, again after UNAVAILABLE: every call of ours may be repeated.
template <typename Response, typename Call>
absl::StatusOr<Response> Unary(const std::string& token, const Call& call) {
  for (int tries = 1;; ++tries) {
    grpc::ClientContext context;
    Prepare(context, token, kCallTimeout);
    Response response;
    const absl::Status status = FromGrpcStatus(call(&context, &response));
    if (status.ok()) return response;
    if (!absl::IsUnavailable(status) || tries == kTries) return status;
    absl::SleepFor(absl::Milliseconds(100 << tries));
  }
}

}  // namespace

absl::StatusOr<v1::Job> Client::CreateJob(const v1::CreateJobRequest& request) {
  return Unary<v1::Job>(token_, [&](auto* context, auto* response) {
    return stubs_->jobs->CreateJob(context, request, response);
  });
}

absl::StatusOr<v1::Job> Client::GetJob(const std::string& job_id) {
  v1::GetJobRequest request;
  request.set_job_id(job_id);
  return Unary<v1::Job>(token_, [&](auto* context, auto* response) {
    return stubs_->jobs->GetJob(context, request, response);
  });
}

absl::StatusOr<v1::ListJobsResponse> Client::ListJobs(
    const v1::ListJobsRequest& request) {
  return Unary<v1::ListJobsResponse>(
      token_, [&](auto* context, auto* response) {
        return stubs_->jobs->ListJobs(context, request, response);
      });
}

absl::StatusOr<v1::Job> Client::CancelJob(const std::string& job_id) {
  v1::CancelJobRequest request;
  request.set_job_id(job_id);
  request.set_request_id(MakeRequestId());
  return Unary<v1::Job>(token_, [&](auto* context, auto* response) {
    return stubs_->jobs->CancelJob(context, request, response);
  });
}

absl::StatusOr<v1::Job> Client::ResumeJob(const std::string& job_id) {
  v1::ResumeJobRequest request;
  request.set_job_id(job_id);
  request.set_request_id(MakeRequestId());
  return Unary<v1::Job>(token_, [&](auto* context, auto* response) {
    return stubs_->jobs->ResumeJob(context, request, response);
  });
}

absl::Status Client::DeleteJob(const std::string& job_id) {
  v1::DeleteJobRequest request;
  request.set_job_id(job_id);
  request.set_request_id(MakeRequestId());
  return Unary<google::protobuf::Empty>(token_,
                                        [&](auto* context, auto* response) {
                                          return stubs_->jobs->DeleteJob(
                                              context, request, response);
                                        })
      .status();
}

absl::StatusOr<v1::ListEventsResponse> Client::ListEvents(
    const v1::ListEventsRequest& request) {
  return Unary<v1::ListEventsResponse>(
      token_, [&](auto* context, auto* response) {
        return stubs_->jobs->ListEvents(context, request, response);
      });
}

// Calls `once` until it ends with something other than UNAVAILABLE; it counts
// how many messages came.
absl::Status Client::Streamed(
    const std::function<absl::Status(int64_t& received)>& once) {
  int tries = 0;
  while (true) {
    int64_t received = 0;
    const absl::Status status = once(received);
    if (!absl::IsUnavailable(status)) return status;
    if (received > 0) tries = 0;
    if (++tries > kStreamTries) return status;
    if (tries == 1 && on_break_) on_break_(status);
    absl::SleepFor(kStreamPause);
  }
}

absl::StatusOr<v1::ListMetricsResponse> Client::ListMetrics(
    const std::string& job_id, int64_t after_step) {
  v1::ListMetricsRequest request;
  request.set_job_id(job_id);
  request.set_after_step(after_step);
  v1::ListMetricsResponse all;
  while (true) {
    FT_ASSIGN_OR_RETURN(const v1::ListMetricsResponse page,
                        Unary<v1::ListMetricsResponse>(
                            token_, [&](auto* context, auto* response) {
                              return stubs_->jobs->ListMetrics(context, request,
                                                               response);
                            }));
    all.mutable_points()->MergeFrom(page.points());
    if (!page.more() || page.points().empty()) return all;
    request.set_after_step(page.points().rbegin()->step());
  }
}

absl::Status Client::WatchJob(
    const std::string& job_id,
    const std::function<bool(const v1::WatchJobResponse&)>& on_update) {
  v1::WatchJobRequest request;
  request.set_job_id(job_id);
  return Streamed([&](int64_t& received) {
    grpc::ClientContext context;
    Prepare(context, token_, absl::InfiniteDuration());
    const auto stream = stubs_->jobs->WatchJob(&context, request);
    v1::WatchJobResponse response;
    for (; stream->Read(&response); ++received) {
      if (!response.resume_token().empty()) {
        request.set_resume_token(response.resume_token());
      }
      if (!on_update(response)) {
        context.TryCancel();
        stream->Finish();
        return absl::OkStatus();
      }
    }
    return FromGrpcStatus(stream->Finish());
  });
}

absl::Status Client::TailLogs(
    const v1::TailLogsRequest& request,
    const std::function<void(const v1::LogLine&)>& on_line) {
  v1::TailLogsRequest now = request;
  const absl::Time begin = absl::Now();
  std::string last;  // The newest line that was told.
  return Streamed([&](int64_t& received) {
    grpc::ClientContext context;
    Prepare(context, token_, absl::InfiniteDuration());
    if (request.has_since()) {
      // An age, as it was when the first call was made.
      const absl::Duration since = absl::Seconds(request.since().seconds()) +
                                   absl::Nanoseconds(request.since().nanos()) +
                                   (absl::Now() - begin);
      now.mutable_since()->set_seconds(absl::ToInt64Seconds(since));
      now.mutable_since()->set_nanos(static_cast<int32_t>(
          absl::ToInt64Nanoseconds(since % absl::Seconds(1))));
    }
    // Lines have no number: after a break all are read again, and those up to
    // the last one that was told are left out.
    bool is_new = last.empty();
    const auto stream = stubs_->jobs->TailLogs(&context, now);
    v1::TailLogsResponse response;
    for (; stream->Read(&response); ++received) {
      for (const v1::LogLine& line : response.lines()) {
        const std::string bytes = line.SerializeAsString();
        if (is_new) {
          on_line(line);
          last = bytes;
        } else {
          is_new = bytes == last;
        }
      }
    }
    if (!last.empty()) now.clear_tail_lines();
    return FromGrpcStatus(stream->Finish());
  });
}

absl::StatusOr<v1::ListWorkersResponse> Client::ListWorkers() {
  return Unary<v1::ListWorkersResponse>(
      token_, [&](auto* context, auto* response) {
        return stubs_->admin->ListWorkers(context, {}, response);
      });
}

absl::StatusOr<v1::WorkerInfo> Client::ReleaseWorker(
    const std::string& worker_id) {
  v1::ReleaseWorkerRequest request;
  request.set_worker_id(worker_id);
  request.set_request_id(MakeRequestId());
  return Unary<v1::WorkerInfo>(token_, [&](auto* context, auto* response) {
    return stubs_->admin->ReleaseWorker(context, request, response);
  });
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels() {
  return Unary<v1::ListModelsResponse>(
      token_, [&](auto* context, auto* response) {
        return stubs_->admin->ListModels(context, {}, response);
      });
}

absl::Status Client::Probe(absl::Duration timeout) {
  grpc::ClientContext context;
  Prepare(context, token_, timeout);
  // A process that stands still takes connections, and no more.
  context.set_wait_for_ready(true);
  v1::ListModelsResponse response;
  return FromGrpcStatus(stubs_->admin->ListModels(&context, {}, &response));
}

}  // namespace ft
