// SPDX-License-Identifier: Apache-2.0
//
// From where an attempt goes on: the newest local snapshot that all its ranks
// hold, else the newest durable checkpoint.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/placement.h"
#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Shard {
  uint64_t epoch = 0;
  int64_t step = 0;
  int rank = 0;
};

class SnapshotsTest : public ::testing::Test {
 protected:
  SnapshotsTest() {
    world_.Attach("w1");
    world_.Attach("w2");
  }
  // A gang of two, rank 0 on w1 and rank 1 on w2.
  std::string Running() {
    const std::string job = world_.Submit(world_.Spec(2)).value();
    world_.StepTo(job, 9);
    EXPECT_EQ(world_.State(job), v1::JOB_STATE_RUNNING);
    return job;
  }
  void End(const std::string& worker, const std::string& job,
           v1::AttemptCause cause, const std::vector<Shard>& shards,
           absl::StatusCode code = absl::StatusCode::kOk) {
    auto message = world_.Update(job, world_.Epoch(job));
    v1::AttemptEnded& ended =
        *message.mutable_attempt_update()->mutable_ended();
    ended.set_cause(cause);
    ended.set_status_code(static_cast<int>(code));
    if (cause == v1::ATTEMPT_CAUSE_RANK_SIGNAL) ended.set_signal(9);
    for (const Shard& shard : shards) {
      Fill(job, shard, *ended.add_snapshots());
    }
    world_.Say(worker, std::move(message));
  }
  static void Fill(const std::string& job, const Shard& shard,
                   v1::SnapshotShard& out) {
    out.set_job_id(job);
    out.set_epoch(shard.epoch);
    out.set_step(shard.step);
    out.set_rank(shard.rank);
  }
  // Rank 0 is killed; both workers say what they hold.
  void KillRank0(const std::string& job, const std::vector<Shard>& w1,
                 const std::vector<Shard>& w2) {
    End("w1", job, v1::ATTEMPT_CAUSE_RANK_SIGNAL, w1);
    End("w2", job, v1::ATTEMPT_CAUSE_STOPPED, w2);
  }
  // The jobs that the answer to a heartbeat keeps.
  std::vector<std::string> Kept(const std::string& worker,
                                const std::string& job) {
    world_.Take(worker, &v1::ConnectResponse::has_heartbeat_reply);
    v1::ConnectRequest beat;
    beat.mutable_heartbeat()->set_seq(1);
    Fill(job, {}, *beat.mutable_heartbeat()->add_snapshots());
    world_.Say(worker, std::move(beat));
    const auto& reply =
        world_.InboxOf(worker).messages.back().heartbeat_reply();
    return {reply.kept_snapshot_jobs().begin(),
            reply.kept_snapshot_jobs().end()};
  }
  std::vector<int64_t> Sources(const std::string& job) {
    const auto steps = world_.LastAttempt(job).source_snapshot_steps();
    return {steps.begin(), steps.end()};
  }

  testing::CoreWorld world_;
};

TEST_F(SnapshotsTest, TheNewestStepThatAllHoldIsTheSource) {
  const std::string job = Running();
  FT_ASSERT_OK(world_.Checkpoint(job, 3).status());
  const uint64_t epoch = world_.Epoch(job);
  KillRank0(job, {{epoch, 9, 0}, {epoch, 8, 0}},
            {{epoch, 8, 1}, {epoch, 7, 1}});
  EXPECT_EQ(world_.State(job), v1::JOB_STATE_STARTING);
  EXPECT_THAT(Sources(job), ElementsAre(8));
  EXPECT_EQ(world_.LastAttempt(job).source_step(), 8);
  EXPECT_EQ(world_.LastAttempt(job).source_manifest_sha256(), "");
  const auto& order = world_.InboxOf("w2").messages.back().start_attempt();
  EXPECT_THAT(order.source_snapshot_steps(), ElementsAre(8));
  EXPECT_EQ(order.source_manifest_sha256(), "");
}

// It died with its worker before anybody else knew of it; nobody would take the
// step again.
TEST_F(SnapshotsTest, AStepWhosePointIsNotStoredIsNoSource) {
  const std::string job = Running();
  const uint64_t epoch = world_.Epoch(job);
  KillRank0(job, {{epoch, 10, 0}, {epoch, 9, 0}},
            {{epoch, 10, 1}, {epoch, 9, 1}});
  EXPECT_THAT(Sources(job), ElementsAre(9));
}

TEST_F(SnapshotsTest, BothCommonStepsAreCandidatesTheNewerFirst) {
  const std::string job = Running();
  const uint64_t epoch = world_.Epoch(job);
  KillRank0(job, {{epoch, 9, 0}, {epoch, 8, 0}},
            {{epoch, 9, 1}, {epoch, 8, 1}});
  EXPECT_THAT(Sources(job), ElementsAre(9, 8));
}

TEST_F(SnapshotsTest, WithoutACommonStepItIsTheCheckpoint) {
  const std::string job = Running();
  FT_ASSERT_OK(world_.Checkpoint(job, 3).status());
  const uint64_t epoch = world_.Epoch(job);
  // Other steps, another attempt's, another rank's.
  KillRank0(job, {{epoch, 9, 0}, {epoch, 8, 0}},
            {{epoch, 7, 1}, {epoch - 1, 8, 1}, {epoch, 9, 0}});
  EXPECT_THAT(Sources(job), IsEmpty());
  EXPECT_EQ(world_.LastAttempt(job).source_step(), 3);
  EXPECT_NE(world_.LastAttempt(job).source_manifest_sha256(), "");
}

TEST_F(SnapshotsTest, AnOlderSnapshotThanTheCheckpointIsNoSource) {
  const std::string job = Running();
  FT_ASSERT_OK(world_.Checkpoint(job, 9).status());
  const uint64_t epoch = world_.Epoch(job);
  KillRank0(job, {{epoch, 9, 0}, {epoch, 8, 0}}, {{epoch, 8, 1}});
  EXPECT_THAT(Sources(job), IsEmpty());
  EXPECT_EQ(world_.LastAttempt(job).source_step(), 9);
}

TEST_F(SnapshotsTest, RottenSnapshotsLeadToTheNewestCheckpoint) {
  const std::string job = Running();
  FT_ASSERT_OK(world_.Checkpoint(job, 2, "two").status());
  FT_ASSERT_OK(world_.Checkpoint(job, 3, "three").status());
  const uint64_t epoch = world_.Epoch(job);
  KillRank0(job, {{epoch, 9, 0}}, {{epoch, 9, 1}});
  ASSERT_THAT(Sources(job), ElementsAre(9));
  const auto rot = absl::StatusCode::kDataLoss;
  End("w1", job, v1::ATTEMPT_CAUSE_RANK_EXIT, {{epoch, 9, 0}}, rot);
  End("w2", job, v1::ATTEMPT_CAUSE_RANK_EXIT, {{epoch, 9, 1}}, rot);
  EXPECT_EQ(world_.State(job), v1::JOB_STATE_STARTING);
  EXPECT_THAT(Sources(job), IsEmpty());
  EXPECT_EQ(world_.LastAttempt(job).source_step(), 3) << "not the one before";
}

TEST_F(SnapshotsTest, ASnapshotIsProgress) {
  const std::string job = Running();
  for (int64_t step = 1; step <= 5; ++step) {
    const uint64_t epoch = world_.Epoch(job);
    KillRank0(job, {{epoch, step, 0}}, {{epoch, step, 1}});
    ASSERT_EQ(world_.State(job), v1::JOB_STATE_STARTING) << step;
    EXPECT_EQ(world_.Job(job).status().attempts_without_progress(), 0);
    world_.Ready("w1", job, 0);
    world_.Ready("w2", job, 1);
  }
  // The same step again and again is none.
  const uint64_t epoch = world_.Epoch(job);
  KillRank0(job, {{epoch, 5, 0}}, {{epoch, 5, 1}});
  EXPECT_EQ(world_.Job(job).status().attempts_without_progress(), 1);
}

TEST_F(SnapshotsTest, ADaemonThatWasKilledBringsWhatItLeft) {
  const std::string job = Running();
  const uint64_t epoch = world_.Epoch(job);
  world_.Break("w2");
  WorkerCommand command{.session = 1000, .message = {}};
  v1::Attach& attach = *command.message.mutable_attach();
  attach.set_worker_id("w2");
  attach.set_instance_id("i2");
  attach.mutable_inventory()->set_isa_class("avx2");
  attach.mutable_inventory()->add_slots();
  attach.add_models()->set_name("tiny");
  attach.mutable_models(0)->set_digest("d1");
  Fill(job, {epoch, 6, 1}, *attach.add_snapshots());
  world_.Run({.what = std::move(command)});
  End("w1", job, v1::ATTEMPT_CAUSE_STOPPED, {{epoch, 6, 0}});
  world_.Schedule();
  EXPECT_EQ(world_.State(job), v1::JOB_STATE_STARTING);
  EXPECT_THAT(Sources(job), ElementsAre(6));
}

TEST_F(SnapshotsTest, AWorkerKeepsThemUntilTheJobHasLeft) {
  const std::string job = Running();
  world_.Attach("w3");
  EXPECT_THAT(Kept("w1", job), ElementsAre(job));
  EXPECT_THAT(Kept("w3", job), IsEmpty()) << "it never was there";
  EXPECT_THAT(Kept("w1", "job-unknown"), IsEmpty());
  FT_ASSERT_OK(world_.Cancel(job).status);
  End("w1", job, v1::ATTEMPT_CAUSE_STOPPED, {});
  End("w2", job, v1::ATTEMPT_CAUSE_STOPPED, {});
  EXPECT_THAT(Kept("w1", job), IsEmpty());
}

TEST_F(SnapshotsTest, ARestartOfTheCoordinatorKeepsThem) {
  const std::string job = Running();
  world_.Restart();
  world_.Attach("w1");
  EXPECT_THAT(Kept("w1", job), ElementsAre(job));
}

v1::Placement PlacementOf(const std::vector<std::string>& workers) {
  v1::Placement placement;
  std::map<std::string, int> slots;
  for (size_t i = 0; i < workers.size(); ++i) {
    v1::RankPlacement& rank = *placement.add_ranks();
    rank.set_rank(static_cast<int>(i));
    rank.set_worker_id(workers[i]);
    rank.set_slot(slots[workers[i]]++);
  }
  return placement;
}

std::vector<std::string> WorkersOf(const v1::Placement& placement) {
  std::vector<std::string> workers;
  for (const v1::RankPlacement& rank : placement.ranks()) {
    workers.push_back(rank.worker_id());
  }
  return workers;
}

TEST(KeepRanksTest, RanksStayWhereTheyWereIfTheWorkersAreTheSame) {
  const v1::Placement before = PlacementOf({"b", "a", "a"});
  v1::Placement placement = PlacementOf({"a", "a", "b"});
  placement.mutable_ranks(2)->set_slot(5);
  KeepRanks(before, placement);
  EXPECT_THAT(WorkersOf(placement), ElementsAre("b", "a", "a"));
  EXPECT_EQ(placement.ranks(0).slot(), 5) << "the slot is the new one";
  EXPECT_EQ(placement.ranks(1).rank(), 1);

  placement = PlacementOf({"a", "b", "b"});
  KeepRanks(before, placement);
  EXPECT_THAT(WorkersOf(placement), ElementsAre("a", "b", "b"));
  placement = PlacementOf({"a", "b"});
  KeepRanks(before, placement);
  EXPECT_THAT(WorkersOf(placement), ElementsAre("a", "b"));
}

}  // namespace
}  // namespace ft
