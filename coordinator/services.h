// SPDX-License-Identifier: Apache-2.0
//
// The gRPC services. Each translates gRPC to JobBook and decides nothing; their
// classes live in the .cc files, so that nobody else includes grpcpp.

#pragma once

#include <memory>

#include "absl/time/time.h"
#include "coordinator/job_book.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace ft {

// `book`, `tokens` and `metrics` must outlive the services.
std::shared_ptr<grpc::Service> MakeJobService(JobBook& book,
                                              const TokenTable& tokens,
                                              CoordinatorMetrics& metrics);
// `desk` and `pool` must outlive it; the pool is for artifacts alone.
std::shared_ptr<grpc::Service> MakeArtifactService(JobBook& book,
                                                   const TokenTable& tokens,
                                                   BlobDesk& desk,
                                                   TaskPool& pool,
                                                   CoordinatorMetrics& metrics);
std::shared_ptr<grpc::Service> MakeWorkerService(JobBook& book);
std::shared_ptr<grpc::Service> MakeAdminService(JobBook& book,
                                                const TokenTable& tokens,
                                                CoordinatorMetrics& metrics,
                                                int64_t incarnation,
                                                absl::Time started);

}  // namespace ft
