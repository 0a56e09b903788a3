// SPDX-License-Identifier: Apache-2.0
//
// Page tokens as clients send them back. Two coordinators, one over the store
// in memory and one over SQLite, must answer alike, and what a token leads to
// goes on to the end without a repeat. The first byte says which list, the
// second the page size; the rest is the token.

#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/file.h"
#include "coordinator/blob_files.h"
#include "coordinator/job_book.h"
#include "coordinator/memory_job_store.h"
#include "coordinator/metrics.h"
#include "coordinator/spec_checker.h"
#include "coordinator/sqlite_job_store.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

constexpr char kFirstJob[] = "job-000000000001";

Decision SomeContent() {
  Decision decision;
  for (int i = 1; i <= 5; ++i) {
    v1::Job job;
    job.set_job_id(absl::StrCat("job-00000000000", i));
    job.set_submit_seq(i);
    job.mutable_spec()->set_name("hotel-bot");
    job.mutable_status()->set_state(v1::JOB_STATE_SUCCEEDED);
    decision.records.push_back(PutJob{job});
    v1::Artifact artifact;
    artifact.set_name(absl::StrCat("adapter-", i));
    artifact.set_kind(v1::ARTIFACT_KIND_ADAPTER);
    artifact.set_manifest_sha256(std::string(64, static_cast<char>('0' + i)));
    decision.records.push_back(PutArtifact{{.artifact = artifact}});
    v1::Event event;
    event.set_job_id(kFirstJob);
    event.set_job_seq(i);
    decision.records.push_back(AppendEvent{event, "fuzz"});
  }
  return decision;
}

// A coordinator without listeners. Lives as long as the process.
class Books {
 public:
  Books(const std::string& dir, JobStore& store)
      : router_(bus_, metrics_, [](const absl::Status&) { FT_CHECK(false); }),
        records_(JoinPath(dir, "records")),
        blobs_(BlobFiles::Open(JoinPath(dir, "blobs"), JoinPath(dir, "uploads"))
                   .value()),
        pool_(1) {
    FT_CHECK(store.Load().ok());
    const Decision content = SomeContent();
    FT_CHECK(store.Commit(std::span(&content, 1)).ok());
    committer_ = Committer::Start(Timers(), store, clock_, router_).value();
    book_ = std::make_unique<JobBook>(JobBook::Parts{.store = store,
                                                     .committer = *committer_,
                                                     .router = router_,
                                                     .bus = bus_,
                                                     .records = records_,
                                                     .metrics = metrics_,
                                                     .checker = checker_,
                                                     .blobs = *blobs_,
                                                     .pool = pool_});
  }

  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(
      void (JobBook::*method)(Request, JobBook::Done<Response>),
      const Request& request) {
    absl::StatusOr<Response> result;
    absl::Notification done;
    (*book_.*method)(request, [&](absl::StatusOr<Response> response) {
      result = std::move(response);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }

 private:
  RealClock clock_;
  EventBus bus_;
  CoordinatorMetrics metrics_;
  EffectRouter router_;
  RunRecords records_;
  JobSpecChecker checker_;
  std::unique_ptr<BlobFiles> blobs_;
  std::unique_ptr<Committer> committer_;
  std::unique_ptr<JobBook> book_;
  TaskPool pool_;
};

struct Coordinators {
  TempDir dir = TempDir::Create("/dev/shm").value();
  MemoryJobStore memory_store;
  std::unique_ptr<SqliteJobStore> file_store =
      SqliteJobStore::Open(dir.path()).value();
  Books memory{JoinPath(dir.path(), "a"), memory_store};
  Books file{JoinPath(dir.path(), "b"), *file_store};
};

Coordinators& Both() {
  static Coordinators both;
  return both;
}

// Follows the pages from the request's token on.
template <typename Response, typename Request, typename Keys>
void Walk(void (JobBook::*method)(Request, JobBook::Done<Response>),
          Request request, const Keys& keys) {
  std::set<std::string> seen;
  for (int pages = 0;; ++pages) {
    FT_CHECK(pages < 20);
    const absl::StatusOr<Response> a = Both().memory.Call(method, request);
    const absl::StatusOr<Response> b = Both().file.Call(method, request);
    FT_CHECK(a.status().code() == b.status().code());
    if (!a.ok()) {
      FT_CHECK(absl::IsInvalidArgument(a.status()));
      FT_CHECK(pages == 0);  // Our own tokens are good.
      return;
    }
    FT_CHECK(a->SerializeAsString() == b->SerializeAsString());
    for (const std::string& key : keys(*a)) {
      FT_CHECK(seen.insert(key).second);
    }
    if (a->next_page_token().empty()) return;
    request.set_page_token(a->next_page_token());
  }
}

void WalkJobs(int page_size, const std::string& token) {
  v1::ListJobsRequest request;
  request.set_page_size(page_size);
  request.set_page_token(token);
  Walk(&JobBook::ListJobs, request, [](const v1::ListJobsResponse& response) {
    std::vector<std::string> keys;
    for (const v1::Job& job : response.jobs()) keys.push_back(job.job_id());
    return keys;
  });
}

void WalkEvents(int page_size, const std::string& token) {
  v1::ListEventsRequest request;
  request.set_job_id(kFirstJob);
  request.set_page_size(page_size);
  request.set_page_token(token);
  Walk(&JobBook::ListEvents, request,
       [](const v1::ListEventsResponse& response) {
         std::vector<std::string> keys;
         for (const v1::Event& event : response.events()) {
           keys.push_back(absl::StrCat(event.job_seq()));
         }
         return keys;
       });
}

void WalkArtifacts(int page_size, const std::string& token) {
  v1::ListArtifactsRequest request;
  request.set_page_size(page_size);
  request.set_page_token(token);
  Walk(&JobBook::ListArtifacts, request,
       [](const v1::ListArtifactsResponse& response) {
         std::vector<std::string> keys;
         for (const v1::Artifact& artifact : response.artifacts()) {
           keys.push_back(artifact.name());
         }
         return keys;
       });
}

FT_FUZZ_TARGET(page_tokens) {
  if (input.size() < 2) return;
  const int page_size = static_cast<signed char>(input[1]);
  const std::string token(input.substr(2));
  switch (static_cast<unsigned char>(input[0]) % 3) {
    case 0:
      return WalkJobs(page_size, token);
    case 1:
      return WalkEvents(page_size, token);
    default:
      return WalkArtifacts(page_size, token);
  }
}

}  // namespace
}  // namespace ft
