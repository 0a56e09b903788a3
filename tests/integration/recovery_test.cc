// SPDX-License-Identifier: Apache-2.0
//
// How fast a job is on its way again, and from where: local snapshots, ranks
// that stand by, ranks that share memory. Times are those of the events; what
// was measured is printed, and the bounds leave room for a busy machine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "artifact/snapshot_ring.h"
#include "common/file.h"
#include "tests/integration/tiny_chat.h"
#include "tests/integration/undisturbed.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::ExpectSameAdapter;
using testing::LocalCluster;
using testing::ProcessesWith;
using testing::TinyChat;

constexpr int kSteps = testing::kFaultSteps;
// What the contract says, times what a busy machine may need.
constexpr double kSeenWithin = 5 * 0.2;
constexpr double kNextStepWithin = 4 * 5.0;
constexpr double kCancelWithin = 5.0;

double SecondsOf(const google::protobuf::Timestamp& at) {
  return static_cast<double>(at.seconds()) +
         1e-9 * static_cast<double>(at.nanos());
}
double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

void Print(const std::string& what, double value, const std::string& unit) {
  std::printf("[ measured ] %s: %.3f %s\n", what.c_str(), value, unit.c_str());
}

class RecoveryTest : public ::testing::Test {
 protected:
  // Submits the job and waits until it is between two checkpoints.
  static std::string StartAndRun(LocalCluster& cluster) {
    const std::string job = cluster.Submit(TinyChat(2, kSteps)).job_id();
    cluster.WaitFor(job, [](const v1::Job& now) {
      return now.status().checkpoint_step() > 0 &&
             now.status().progress().step() >
                 now.status().checkpoint_step() + 5;
    });
    EXPECT_EQ(cluster.Ranks(job).size(), 2) << "the job is over already";
    return job;
  }
  static double TimeOf(LocalCluster& cluster, const std::string& job,
                       v1::EventKind kind, const std::string& message = "") {
    for (const v1::Event& event : cluster.Events(job)) {
      if (event.kind() == kind && absl::StrContains(event.message(), message)) {
        return SecondsOf(event.at());
      }
    }
    ADD_FAILURE() << "no event " << v1::EventKind_Name(kind) << " " << message;
    return 0;
  }
  static std::string RingOf(LocalCluster& cluster, const std::string& job,
                            int rank) {
    return JoinPath(cluster.SnapshotDir(rank + 1),
                    absl::StrCat(job, "/rank-", rank));
  }
};

// Seen, on its way again, and what was done twice.
TEST_F(RecoveryTest, TheDeathOfARankCostsAtMostAStep) {
  LocalCluster cluster(2, 1.0);  // The timers of production.
  const std::string id = StartAndRun(cluster);
  const double killed = Now();
  ASSERT_EQ(kill(cluster.Ranks(id).at(1), SIGKILL), 0);
  const v1::Job job = cluster.WaitForEnd(id);
  ExpectSameAdapter(cluster, job);
  ASSERT_EQ(job.status().attempts_size(), 2);
  const v1::Attempt& first = job.status().attempts(0);
  const v1::Attempt& second = job.status().attempts(1);
  EXPECT_FALSE(second.source_snapshot_steps().empty());
  const double seen =
      TimeOf(cluster, id, v1::EVENT_KIND_ATTEMPT_ENDED) - killed;
  Print("rank death to event", seen, "s");
  EXPECT_GE(seen, 0);
  EXPECT_LT(seen, kSeenWithin);

  const std::map<int64_t, v1::StepMetrics> steps = cluster.Steps(id);
  EXPECT_EQ(steps.size(), kSteps);
  const double next = SecondsOf(steps.at(first.last_step() + 1).at()) - killed;
  Print("rank death to next new step", next, "s");
  EXPECT_LT(next, kNextStepWithin);
  const int64_t redone = first.last_step() - second.source_step();
  Print("steps taken again", static_cast<double>(redone), "");
  EXPECT_LE(redone, 1);
  // What the first attempt had told was not told again otherwise.
  EXPECT_EQ(steps.at(second.source_step()).attempt_epoch(), first.epoch());
}

TEST_F(RecoveryTest, ManyDeathsInARowAreProgressAllTheSame) {
  LocalCluster cluster;
  const std::string id = StartAndRun(cluster);
  for (int death = 0; death < 4; ++death) {
    const int64_t step =
        cluster
            .WaitFor(id,
                     [&](const v1::Job& job) {
                       return job.status().attempts_size() == death + 1 &&
                              job.status().state() == v1::JOB_STATE_RUNNING &&
                              cluster.Ranks(id).size() == 2;
                     })
            .status()
            .progress()
            .step();
    cluster.WaitFor(id, [&](const v1::Job& job) {
      return job.status().progress().step() > step + 3;
    });
    ASSERT_EQ(kill(cluster.Ranks(id).at(death % 2), SIGKILL), 0);
  }
  const v1::Job job = cluster.WaitForEnd(id);
  ExpectSameAdapter(cluster, job);
  EXPECT_EQ(job.status().attempts_size(), 5);
  for (int i = 1; i < job.status().attempts_size(); ++i) {
    EXPECT_LE(job.status().attempts(i - 1).last_step() -
                  job.status().attempts(i).source_step(),
              1);
  }
}

TEST_F(RecoveryTest, SnapshotsOutliveTheDaemon) {
  LocalCluster cluster;
  const std::string id = StartAndRun(cluster);
  cluster.EndWorker(2, SIGKILL);
  cluster.StartWorker(2);
  const v1::Job job = cluster.WaitForEnd(id);
  ExpectSameAdapter(cluster, job);
  ASSERT_EQ(job.status().attempts_size(), 2);
  EXPECT_FALSE(job.status().attempts(1).source_snapshot_steps().empty());
  EXPECT_LE(job.status().attempts(0).last_step() -
                job.status().attempts(1).source_step(),
            1);
}

TEST_F(RecoveryTest, ARottenSnapshotIsNotUsed) {
  LocalCluster cluster;
  const std::string id = StartAndRun(cluster);
  cluster.EndWorker(2, SIGKILL);  // Its rank dies with it.
  const std::string ring = RingOf(cluster, id, 1);
  ASSERT_TRUE(Exists(ring));
  std::fstream file(ring, std::ios::in | std::ios::out | std::ios::binary);
  const int64_t slot = (FileSize(ring).value() - 2 * 4096) / 2;
  for (int i = 0; i < 2; ++i) {
    file.seekp(2 * 4096 + i * slot + slot / 2);
    file.put('x');
  }
  file.close();
  cluster.StartWorker(2);
  const v1::Job job = cluster.WaitForEnd(id);
  ExpectSameAdapter(cluster, job);
  ASSERT_EQ(job.status().attempts_size(), 2);
  const v1::Attempt& second = job.status().attempts(1);
  EXPECT_TRUE(second.source_snapshot_steps().empty());
  EXPECT_GT(second.source_step(), 0) << "a checkpoint";
}

TEST_F(RecoveryTest, SnapshotsGoWhenTheJobIsOver) {
  LocalCluster cluster;
  const std::string id = StartAndRun(cluster);
  EXPECT_TRUE(Exists(RingOf(cluster, id, 0)));
  cluster.WaitForEnd(id);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  const auto are_left = [&] {
    return Exists(JoinPath(cluster.SnapshotDir(1), id)) ||
           Exists(JoinPath(cluster.SnapshotDir(2), id));
  };
  while (are_left() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_FALSE(are_left());
}

// 30 s of the contract, scaled like the timers.
TEST_F(RecoveryTest, RanksGoOnWhileTheCoordinatorIsAway) {
  // Many heartbeats long, and far below the grace of a worker that is cut off;
  // timers so short that a busy machine breaks them would test the machine.
  constexpr absl::Duration kAway = absl::Seconds(3);
  LocalCluster cluster(2, 0.3);
  const std::string id = StartAndRun(cluster);
  const std::map<int, pid_t> ranks = cluster.Ranks(id);
  const auto step_of_ring = [&] {
    const auto seals = ReadSnapshotSeals(RingOf(cluster, id, 0));
    return seals.ok() && !seals->empty() ? seals->front().step : 0;
  };
  cluster.EndCoordinator(SIGKILL);
  const int64_t before = step_of_ring();
  const absl::Time away = absl::Now();
  const absl::Time deadline = away + absl::Seconds(60);
  while ((step_of_ring() < before + 10 || absl::Now() - away < kAway) &&
         cluster.Ranks(id) == ranks && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  Print("coordinator away", absl::ToDoubleSeconds(absl::Now() - away), "s");
  Print("steps meanwhile", static_cast<double>(step_of_ring() - before), "");
  EXPECT_GE(step_of_ring(), before + 10);
  cluster.StartCoordinator();
  const v1::Job job = cluster.WaitForEnd(id);
  ExpectSameAdapter(cluster, job);
  EXPECT_EQ(job.status().attempts_size(), 1) << "re-adopted";
  // Every step is known.
  EXPECT_EQ(cluster.Steps(id).size(), kSteps);
}

TEST_F(RecoveryTest, ARankThatIgnoresEverythingIsCancelled) {
  LocalCluster cluster(2, 1.0);
  const std::string id = cluster.Submit(TinyChat(2, 20'000)).job_id();
  cluster.WaitFor(id, [](const v1::Job& job) {
    return job.status().progress().step() > 5;
  });
  ASSERT_EQ(kill(cluster.Ranks(id).at(1), SIGSTOP), 0);
  FT_ASSERT_OK(cluster.client().CancelJob(id).status());
  const v1::Job job = cluster.WaitForEnd(id);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(cluster.Ranks(id).empty());
  const double took =
      TimeOf(cluster, id, v1::EVENT_KIND_ATTEMPT_ENDED) -
      TimeOf(cluster, id, v1::EVENT_KIND_STATE_CHANGED, "-> CANCELLING");
  Print("cancel of a stopped rank", took, "s");
  EXPECT_LT(took, kCancelWithin);
}

TEST_F(RecoveryTest, RanksOfOneWorkerShareMemoryAndGiveTheSameBits) {
  LocalCluster cluster(0);
  cluster.StartWorker(1, /*slots=*/2);
  const auto is_ready = [&] {
    const auto list = cluster.client().ListWorkers();
    return list.ok() && list->workers_size() == 1 &&
           list->workers(0).state() == v1::WORKER_STATE_READY;
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!is_ready() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  const std::string id = StartAndRun(cluster);
  for (const auto& [rank, pid] : cluster.Ranks(id)) {
    const std::string maps =
        ReadFile(absl::StrCat("/proc/", pid, "/maps"), 1 << 24).value_or("");
    EXPECT_TRUE(absl::StrContains(maps, "memfd:ft-")) << "rank " << rank;
  }
  // And a death among them is one of all.
  ASSERT_EQ(kill(cluster.Ranks(id).at(0), SIGKILL), 0);
  const v1::Job job = cluster.WaitForEnd(id);
  ExpectSameAdapter(cluster, job);
  EXPECT_EQ(job.status().attempts_size(), 2);
}

TEST_F(RecoveryTest, RanksThatStandByAreUsedAndReplaced) {
  LocalCluster cluster(2, 1.0);
  const auto standing_by = [&] {
    std::vector<pid_t> pids;
    for (const pid_t pid : ProcessesWith("--standby")) {
      const auto ours = ProcessesWith(cluster.dir().path());
      if (std::count(ours.begin(), ours.end(), pid) > 0) pids.push_back(pid);
    }
    return pids;
  };
  const auto await_two = [&] {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (standing_by().size() < 2 && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  };
  await_two();
  const std::vector<pid_t> before = standing_by();
  ASSERT_EQ(before.size(), 2u);
  const std::string id = cluster.Submit(TinyChat(2, 400)).job_id();
  cluster.WaitFor(id, [](const v1::Job& job) {
    return job.status().progress().step() > 5;
  });
  for (const auto& [rank, pid] : cluster.Ranks(id)) {
    EXPECT_EQ(std::count(before.begin(), before.end(), pid), 1)
        << "rank " << rank << " was started cold";
  }
  double started = 0;
  int lines = 0;
  v1::TailLogsRequest request;
  request.set_job_id(id);
  const v1::Job job = cluster.WaitForEnd(id);
  FT_EXPECT_OK(cluster.client().TailLogs(request, [&](const v1::LogLine& line) {
    if (!absl::StrContains(line.text(), "rank started")) return;
    ++lines;
    started = std::max(started, SecondsOf(line.at()));
  }));
  EXPECT_EQ(lines, 2);
  Print("submit to 2 warm ranks started",
        started - SecondsOf(job.status().created()), "s");
  // Two others stand by now.
  await_two();
  EXPECT_EQ(standing_by().size(), 2u);
}

}  // namespace
}  // namespace ft
