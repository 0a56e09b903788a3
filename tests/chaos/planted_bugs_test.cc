// SPDX-License-Identifier: Apache-2.0
//
// The invariants are worth something only if they are seen to break: each bug
// that plant_bugs.py plants into a copy of the programs is caught by the check
// that is named for it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/id.h"
#include "tests/integration/tiny_chat.h"
#include "tests/testing/failpoint_file.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kSteps = 200;  // A checkpoint each 20.

class PlantedBugsTest : public ::testing::Test {
 protected:
  ~PlantedBugsTest() override {
    cluster_.reset();
    for (const char* name : {"FT_PLANTED_BUG", "LD_PRELOAD", "FT_SYNC_AUDIT"}) {
      unsetenv(name);
    }
  }

  // Starts the programs that have bugs, one of them awake; "" wakes none.
  void Plant(const std::string& bug) {
    setenv("FT_PLANTED_BUG", bug.c_str(), 1);
    cluster_ = std::make_unique<LocalCluster>(
        LocalClusterOptions{.program_dir = FT_PLANTED_DIR,
                            .failpoints = table_.path(),
                            .expects_invariants = false});
  }
  LocalCluster& cluster() { return *cluster_; }

  std::string Submit(int ranks = 1) {
    const std::string id = cluster().Submit(TinyChat(ranks, kSteps)).job_id();
    clients_.jobs[absl::StrCat("request-", id)] = id;
    return id;
  }
  void AwaitCheckpoint(const std::string& id) {
    cluster().WaitFor(id, [](const v1::Job& job) {
      return job.status().checkpoint_step() > 0;
    });
  }
  void KillRank(const std::string& id) {
    const std::map<int, pid_t> ranks = cluster().Ranks(id);
    ASSERT_FALSE(ranks.empty()) << "the job is over already";
    ASSERT_EQ(kill(ranks.begin()->second, SIGKILL), 0);
  }
  // A job whose first rank is killed after a checkpoint.
  std::string RunOverAKill() {
    const std::string id = Submit();
    AwaitCheckpoint(id);
    KillRank(id);
    cluster().WaitForEnd(id);
    return id;
  }
  std::string RunUndisturbed() {
    const std::string id = Submit();
    cluster().WaitForEnd(id);
    return id;
  }
  void ExpectCaught(const std::string& sentence) {
    EXPECT_THAT(cluster().CheckInvariants(clients_),
                Contains(HasSubstr(sentence)));
  }

  const TestDir dir_;
  FailpointFile table_{dir_ / "failpoints"};
  ClientMemory clients_;
  std::unique_ptr<LocalCluster> cluster_;
};

TEST_F(PlantedBugsTest, NothingIsFoundWhileAllSleep) {
  setenv("LD_PRELOAD", FT_SYNC_AUDIT_LIBRARY, 1);
  setenv("FT_SYNC_AUDIT", (dir_ / "audit").c_str(), 1);
  Plant("");
  const std::string undisturbed = RunUndisturbed();
  const std::string disturbed = RunOverAKill();
  clients_.results[disturbed] =
      cluster().Result(cluster().client().GetJob(undisturbed).value());
  clients_.events[disturbed] = cluster().Events(disturbed);
  clients_.knows_all_jobs = true;
  EXPECT_THAT(cluster().CheckInvariants(clients_), IsEmpty());
}

TEST_F(PlantedBugsTest, AReplyBeforeItsCommit) {
  Plant("reply_before_commit");
  // One that has ended, so that nothing but the next is committed.
  const std::string first = Submit();
  FT_ASSERT_OK(cluster().client().CancelJob(first).status());
  v1::CreateJobRequest request;
  *request.mutable_spec() = cluster().WaitForEnd(first).spec();
  request.mutable_spec()->clear_export_();
  request.mutable_spec()->mutable_model()->clear_digest();
  request.set_request_id("told");
  table_.Arm(Failpoint::kCommitWritten);
  const absl::StatusOr<v1::Job> job = cluster().client().CreateJob(request);
  FT_ASSERT_OK(job.status());
  clients_.jobs["told"] = job->job_id();
  cluster().EndCoordinator(SIGKILL);
  ExpectCaught("I1: a client was told");
}

TEST_F(PlantedBugsTest, AFileThatIsRenamedBeforeItIsSynced) {
  setenv("LD_PRELOAD", FT_SYNC_AUDIT_LIBRARY, 1);
  setenv("FT_SYNC_AUDIT", (dir_ / "audit").c_str(), 1);
  Plant("missing_fsync");
  RunUndisturbed();
  ExpectCaught("before it was synced");
}

TEST_F(PlantedBugsTest, AnUploadThatIsCommittedWithAHole) {
  Plant("upload_with_a_hole");
  Submit();
  ExpectCaught("I4: blob");
}

TEST_F(PlantedBugsTest, ABlobWithWrongBytes) {
  Plant("blob_with_wrong_bytes");
  Submit();
  ExpectCaught("I4: blob");
}

TEST_F(PlantedBugsTest, AStaleEpochThatIsAccepted) {
  Plant("stale_epoch_accepted");
  const std::string id = Submit();
  AwaitCheckpoint(id);
  const v1::Job before = cluster().client().GetJob(id).value();
  KillRank(id);
  cluster().WaitFor(id, [](const v1::Job& job) {
    return job.status().attempts_size() == 2 &&
           job.status().state() == v1::JOB_STATE_RUNNING;
  });
  // The first attempt comes late with a checkpoint it had.
  v1::CommitArtifactRequest commit;
  commit.set_manifest_sha256(before.status().checkpoint_manifest_sha256());
  commit.set_job_id(id);
  commit.set_epoch(before.status().attempts(0).epoch());
  commit.set_request_id(MakeRequestId());
  FT_EXPECT_OK(cluster().client().artifacts().Commit(commit).status());
  ExpectCaught("I3: event");
}

TEST_F(PlantedBugsTest, AnEventNumberThatIsSkipped) {
  Plant("event_number_skipped");
  RunUndisturbed();
  ExpectCaught("is followed by event");
}

TEST_F(PlantedBugsTest, AnEventNumberThatIsUsedAgain) {
  Plant("event_number_reused");
  const std::string id = Submit();
  AwaitCheckpoint(id);
  clients_.events[id] = cluster().Events(id);
  cluster().EndCoordinator(SIGKILL);
  cluster().StartCoordinator();
  cluster().WaitForEnd(id);
  ExpectCaught("was told as");
}

TEST_F(PlantedBugsTest, AJobWhoseRowIsLost) {
  Plant("job_row_lost");
  Submit();
  ExpectCaught("which is not in the store");
  ExpectCaught("it was lost");
}

TEST_F(PlantedBugsTest, AnEpochThatWouldBeGivenOutAgain) {
  Plant("epoch_not_stored");
  RunUndisturbed();
  ExpectCaught("the store would give out");
}

TEST_F(PlantedBugsTest, AnArtifactThatIsPublishedTwice) {
  Plant("published_twice");
  RunUndisturbed();
  ExpectCaught("was published 2 times");
}

TEST_F(PlantedBugsTest, AJobThatEndsTwice) {
  Plant("ended_twice");
  RunUndisturbed();
  ExpectCaught("had ended SUCCEEDED and then became FAILED");
}

TEST_F(PlantedBugsTest, ADurableStepThatGoesBack) {
  Plant("durable_step_goes_back");
  RunOverAKill();
  ExpectCaught("durable was step");
}

TEST_F(PlantedBugsTest, AStepThatIsLost) {
  Plant("step_lost");
  RunUndisturbed();
  ExpectCaught("have no point; the first is step 7");
}

TEST_F(PlantedBugsTest, ASecretInALog) {
  Plant("secret_in_a_log");
  ExpectCaught("I8: worker.token stands in");
}

TEST_F(PlantedBugsTest, AWorkspaceThatIsLeft) {
  Plant("workspace_left");
  RunUndisturbed();
  ExpectCaught("I7: ");
}

TEST_F(PlantedBugsTest, ARankThatOutlivesItsWorker) {
  Plant("orphan_rank");
  const std::string id = Submit(2);
  AwaitCheckpoint(id);
  cluster().EndWorker(1, SIGKILL);
  cluster().EndWorker(2, SIGKILL);
  cluster().StartWorker(1);
  cluster().StartWorker(2);
  cluster().WaitForEnd(id);
  ExpectCaught("is left:");
  // Those that stood by have the bug too.
  for (const pid_t pid : testing::ProcessesWith(cluster().dir().path())) {
    kill(pid, SIGKILL);
  }
}

TEST_F(PlantedBugsTest, ACursorThatIsOffByOne) {
  Plant("cursor_off_by_one");
  const std::string undisturbed = RunUndisturbed();
  const std::string id = RunOverAKill();
  clients_.results[id] =
      cluster().Result(cluster().client().GetJob(undisturbed).value());
  ExpectCaught("that of the undisturbed run");
}

TEST_F(PlantedBugsTest, ARandomStateThatIsRestoredLate) {
  Plant("rng_restored_late");
  const std::string undisturbed = RunUndisturbed();
  const std::string id = RunOverAKill();
  clients_.results[id] =
      cluster().Result(cluster().client().GetJob(undisturbed).value());
  ExpectCaught("that of the undisturbed run");
}

}  // namespace
}  // namespace ft::testing
