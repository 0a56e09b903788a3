// SPDX-License-Identifier: Apache-2.0
//
// Limits of every request, and what a worker must say first.

#include "coordinator/request_checks.h"

#include <grpcpp/support/status.h>

#include "common/grpc_status.h"
#include "coordinator/spec_checker.h"
#include "ft/v1/jobs.pb.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::Fails;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::ConnectRequest GoodAttach() {
  v1::ConnectRequest message;
  v1::Attach& attach = *message.mutable_attach();
  attach.set_worker_id("w1");
  attach.set_instance_id("i1");
  attach.mutable_inventory()->add_slots();
  return message;
}

TEST(RequestChecksTest, ARepeatedFieldIsBoundedWhereverItStands) {
  v1::CreateJobRequest request;
  v1::Dataset& dataset = *request.mutable_spec()->mutable_data()->add_train();
  dataset.set_path("x");
  FT_EXPECT_OK(CheckRepeated(request));
  for (int i = 0; i < kMaxRepeated; ++i) {
    request.mutable_spec()->mutable_data()->add_train();
  }
  EXPECT_THAT(
      CheckRepeated(request),
      Fails(kInvalid, "spec.data.train: 10001 elements; at most 10000"));

  v1::ReportRequest report;
  for (int i = 0; i <= kMaxRepeated; ++i) report.add_logs();
  EXPECT_THAT(CheckRepeated(report),
              Fails(kInvalid, "logs: 10001 elements; at most 10000"));
}

TEST(RequestChecksTest, AWorkerSaysFirstWhoItIs) {
  FT_EXPECT_OK(CheckAttach(GoodAttach()));
  v1::ConnectRequest message;
  message.mutable_heartbeat();
  EXPECT_THAT(CheckAttach(message), Fails(kInvalid, "must be Attach"));

  message = GoodAttach();
  message.mutable_attach()->set_worker_id("W 1");
  EXPECT_THAT(CheckAttach(message), Fails(kInvalid, "worker_id: 'W 1'"));

  message = GoodAttach();
  message.mutable_attach()->clear_instance_id();
  EXPECT_THAT(CheckAttach(message), Fails(kInvalid, "instance_id"));

  message = GoodAttach();
  message.mutable_attach()->mutable_inventory()->clear_slots();
  EXPECT_THAT(CheckAttach(message), Fails(kInvalid, "inventory.slots"));

  message = GoodAttach();
  message.mutable_attach()->mutable_inventory()->add_slots();
  EXPECT_THAT(CheckAttach(message),
              Fails(kInvalid, "inventory.slots: index 0"));
}

TEST(RequestChecksTest, AWorkerSaysOnlyOnceWhoItIs) {
  EXPECT_THAT(CheckLater(GoodAttach()),
              Fails(kInvalid, "Attach comes once a stream"));
  v1::ConnectRequest message;
  message.mutable_heartbeat();
  FT_EXPECT_OK(CheckLater(message));
  for (int i = 0; i <= kMaxRepeated; ++i) {
    message.mutable_heartbeat()->add_epochs(1);
  }
  EXPECT_THAT(CheckLater(message),
              Fails(kInvalid, "heartbeat.epochs: 10001 elements"));
}

TEST(RequestChecksTest, NamesOfArtifacts) {
  for (const char* name :
       {"a", "0", "hotel-bot", "job-1-step-000004", "v1.2_x"}) {
    EXPECT_TRUE(IsArtifactName(name)) << name;
  }
  EXPECT_TRUE(IsArtifactName(std::string(128, 'a')));
  EXPECT_FALSE(IsArtifactName(std::string(129, 'a')));
  for (const char* name : {"", "-a", ".a", "A", "a b", "a/b", "a\n", "ä"}) {
    EXPECT_FALSE(IsArtifactName(name)) << name;
  }
}

TEST(RequestChecksTest, AnInvalidSpecIsToldWithinWhatAReplyHolds) {
  v1::JobSpec spec;
  for (int i = 0; i < 900; ++i) spec.mutable_data()->add_train();
  const absl::Status status = JobSpecChecker().CheckAndFix(spec);
  EXPECT_THAT(status, Fails(kInvalid, "data.train[0].path: is missing"));
  EXPECT_THAT(status, Fails(kInvalid, " more"));
  EXPECT_LT(status.message().size(), 1500u);
  EXPECT_LT(FieldErrorsOf(status).size(), 40u);
  EXPECT_LT(ToGrpcStatus(status).error_details().size() * 4 / 3 +
                status.message().size(),
            size_t{8} << 10);
}

}  // namespace
}  // namespace ft
