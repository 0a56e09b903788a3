// SPDX-License-Identifier: Apache-2.0

#include "common/version.h"
#include "coordinator/proto_time.h"
#include "coordinator/service_util.h"
#include "coordinator/services.h"
#include "ft/v1/admin.grpc.pb.h"

namespace ft {
namespace {

using Context = grpc::CallbackServerContext;

// Translates gRPC to JobBook and nothing else: no decision is taken here.
class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  AdminServiceImpl(JobBook& book, const TokenTable& tokens,
                   CoordinatorMetrics& metrics, int64_t incarnation,
                   absl::Time started)
      : book_(book), tokens_(tokens), metrics_(metrics) {
    info_.set_version(std::string(Version()));
    info_.set_revision(std::string(Revision()));
    info_.set_incarnation(incarnation);
    *info_.mutable_started() = ToProto(started);
  }

  grpc::ServerUnaryReactor* ListWorkers(
      Context* context, const v1::ListWorkersRequest*,
      v1::ListWorkersResponse* response) override {
    return Unary(context, response, "ListWorkers", metrics_,
                 [&](auto done) { done(book_.ListWorkers()); });
  }

  grpc::ServerUnaryReactor* ReleaseWorker(
      Context* context, const v1::ReleaseWorkerRequest* request,
      v1::WorkerInfo* worker) override {
    return Unary(context, worker, "ReleaseWorker", metrics_, [&](auto done) {
      book_.ReleaseWorker(CallerOf(*context, tokens_), *request,
                          std::move(done));
    });
  }

  grpc::ServerUnaryReactor* ListModels(
      Context* context, const v1::ListModelsRequest*,
      v1::ListModelsResponse* response) override {
    return Unary(context, response, "ListModels", metrics_,
                 [&](auto done) { done(book_.ListModels()); });
  }

  grpc::ServerUnaryReactor* GetServerInfo(
      Context* context, const v1::GetServerInfoRequest*,
      v1::GetServerInfoResponse* response) override {
    return Unary(context, response, "GetServerInfo", metrics_,
                 [&](auto done) { done(info_); });
  }

 private:
  JobBook& book_;
  const TokenTable& tokens_;
  CoordinatorMetrics& metrics_;
  v1::GetServerInfoResponse info_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeAdminService(JobBook& book,
                                                const TokenTable& tokens,
                                                CoordinatorMetrics& metrics,
                                                int64_t incarnation,
                                                absl::Time started) {
  return std::make_shared<AdminServiceImpl>(book, tokens, metrics, incarnation,
                                            started);
}

}  // namespace ft
