// SPDX-License-Identifier: Apache-2.0
//
// The real ft-coordinator on a disk that fills up, and on one whose fsync
// fails.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <set>

#include "artifact/transfer.h"
#include "common/digest.h"
#include "common/grpc_status.h"
#include "ft/v1/jobs.grpc.pb.h"
#include "ft/v1/workers.grpc.pb.h"
#include "tests/coordinator/coordinator_program.h"

namespace ft {
namespace {

using testing::CoordinatorProgram;
using testing::HasCode;
using testing::IsOk;
using testing::TestDir;

// A small file system over a folder, where we may mount one.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path)
      : path_(path),
        is_mounted_(mount("tmpfs", path.c_str(), "tmpfs", 0,
                          "size=4m,mode=0700") == 0) {}
  ~SmallDisk() {
    if (is_mounted_) umount(path_.c_str());
  }
  bool is_mounted() const { return is_mounted_; }

 private:
  const std::string path_;
  const bool is_mounted_;
};

class DiskFaultTest : public ::testing::Test {
 protected:
  DiskFaultTest() { EXPECT_THAT(MakeDirs(dir_ / "data", 0700), IsOk()); }

  // Below the data folder the faults of tests/testing/fault_preload.cc.
  CoordinatorProgram::Options Faulty(int sync = 0) {
    return {.timer_scale = "0.5",
            .environment = {"LD_PRELOAD=" FT_TEST_BINARY_DIR
                            "/tests/libft_fault_preload.so",
                            "FT_FAULTS_DIR=" + dir_ / "data",
                            absl::StrCat("FT_FAULTS_SYNC=", sync),
                            // A sanitizer wants to be loaded first.
                            "ASAN_OPTIONS=verify_asan_link_order=0"}};
  }
  void SetFull(bool is_full) {
    if (is_full) {
      ASSERT_THAT(WriteFileAtomic(dir_ / "full", ""), IsOk());
    } else {
      ASSERT_THAT(RemoveFile(dir_ / "full"), IsOk());
    }
  }

  absl::StatusOr<std::string> Submit(CoordinatorProgram& program,
                                     const std::string& request_id) {
    grpc::ClientContext context;
    Prepare(context, program.AdminToken(), absl::Seconds(5));
    v1::Job job;
    const absl::Status status = FromGrpcStatus(
        v1::JobService::NewStub(MakeChannel(program.ClientAddress()))
            ->CreateJob(&context, testing::SmallJob(request_id), &job));
    if (!status.ok()) return status;
    return job.job_id();
  }
  absl::Status StoreRows(CoordinatorProgram& program) {
    return ArtifactTransfer(MakeChannel(program.ClientAddress()),
                            program.AdminToken())
        .UploadBytes("[]", {});
  }
  bool IsThere(CoordinatorProgram& program, const std::string& job_id) {
    grpc::ClientContext context;
    Prepare(context, program.AdminToken(), absl::Seconds(5));
    v1::GetJobRequest get;
    get.set_job_id(job_id);
    v1::Job job;
    return v1::JobService::NewStub(MakeChannel(program.ClientAddress()))
        ->GetJob(&context, get, &job)
        .ok();
  }

  TestDir dir_;
};

TEST_F(DiskFaultTest, AFullDiskRefusesMutationsAndGoesOnByItself) {
  CoordinatorProgram program(dir_, Faulty());
  ASSERT_THAT(StoreRows(program), IsOk());
  const std::string before = Submit(program, "r-1").value();

  const auto stub =
      v1::WorkerService::NewStub(MakeChannel(program.WorkerAddress()));
  grpc::ClientContext context;
  Prepare(context, program.WorkerToken(), absl::Seconds(60));
  const auto stream = stub->Connect(&context);
  v1::ConnectRequest attach;
  attach.mutable_attach()->set_worker_id("w-1");
  attach.mutable_attach()->set_instance_id("i-1");
  attach.mutable_attach()->mutable_inventory()->add_slots();
  v1::ModelInfo& model = *attach.mutable_attach()->add_models();
  model.set_name("tiny");
  model.set_digest("d1");
  ASSERT_TRUE(stream->Write(attach));
  v1::ConnectResponse answer;
  // Not before it is stored that the worker is there.
  do {
    ASSERT_TRUE(stream->Read(&answer)) << program.Log();
  } while (!answer.has_attached());
  // Of silence, after which a worker is taken for lost.
  const absl::Duration lease =
      4 * absl::Milliseconds(answer.attached().heartbeat_ms());

  SetFull(true);
  for (int i = 0; i < 20; ++i) {
    const auto refused = Submit(program, absl::StrCat("full-", i));
    EXPECT_THAT(refused, HasCode(absl::StatusCode::kResourceExhausted));
    EXPECT_EQ(ReasonOf(refused.status()), "STORE_FULL");
    const absl::Time asked = absl::Now();
    v1::ConnectRequest beat;
    beat.mutable_heartbeat()->set_seq(i + 1);
    ASSERT_TRUE(stream->Write(beat));
    do {
      ASSERT_TRUE(stream->Read(&answer)) << program.Log();
    } while (answer.heartbeat_reply().seq() != i + 1);
    EXPECT_LT(absl::Now() - asked, lease);
  }
  const absl::Status upload =
      ArtifactTransfer(MakeChannel(program.ClientAddress()),
                       program.AdminToken())
          .UploadBytes(std::string(10'000, 'x'), {});
  EXPECT_EQ(ReasonOf(upload), "STORE_FULL");

  SetFull(false);
  const auto after = Submit(program, "r-2");
  ASSERT_THAT(after, IsOk());
  EXPECT_TRUE(IsThere(program, before));
  program.End(SIGKILL);
  CoordinatorProgram again(dir_);
  EXPECT_TRUE(IsThere(again, before));
  EXPECT_TRUE(IsThere(again, *after));
  context.TryCancel();
  stream->Finish().IgnoreError();
}

// Elsewhere than in the test above it is the file system that says no.
TEST_F(DiskFaultTest, ASmallFileSystemFillsUpAndGoesOnByItself) {
  const std::string data = dir_ / "data";
  const SmallDisk disk(data);
  CoordinatorProgram program(
      dir_, disk.is_mounted() ? CoordinatorProgram::Options() : Faulty());
  ASSERT_THAT(StoreRows(program), IsOk());
  const std::string before = Submit(program, "r-1").value();
  if (disk.is_mounted()) {
    const UniqueFd fill(
        open((data + "/fill").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    while (WriteAll(fill.get(), std::string(4096, 'f')).ok()) {
    }
  } else {
    SetFull(true);
  }
  absl::StatusOr<std::string> refused = "";
  // SQLite may have room in its log for a while.
  for (int i = 0; refused.ok() && i < 2000; ++i) {
    refused = Submit(program, absl::StrCat("full-", i));
  }
  EXPECT_EQ(ReasonOf(refused.status()), "STORE_FULL") << program.Log();
  if (disk.is_mounted()) {
    ASSERT_THAT(RemoveFile(data + "/fill"), IsOk());
  } else {
    SetFull(false);
  }
  EXPECT_THAT(Submit(program, "r-2"), IsOk());
  EXPECT_TRUE(IsThere(program, before));
  program.End(SIGTERM);
}

TEST_F(DiskFaultTest, AFailedFsyncEndsTheDaemonAndARestartRecovers) {
  std::set<std::string> told;
  int deaths = 0;
  for (int sync = 1; sync <= 40; ++sync) {
    CoordinatorProgram program(dir_, Faulty(sync));
    bool lives = program.Listens();
    lives = lives && StoreRows(program).ok();
    for (int i = 0; lives && i < 10; ++i) {
      const auto job = Submit(program, absl::StrCat("r-", sync, "-", i));
      lives = job.ok();
      if (lives) told.insert(*job);
    }
    if (!lives) {
      ++deaths;
      // It ends by itself: End(0) would wait forever otherwise.
      if (program.pid() > 0) {
        EXPECT_EQ(WEXITSTATUS(program.End(0)), 1);
      }
    }
  }
  EXPECT_GT(deaths, 10);
  EXPECT_GT(told.size(), 10u);
  CoordinatorProgram sound(dir_);
  for (const std::string& job_id : told) {
    EXPECT_TRUE(IsThere(sound, job_id)) << job_id;
  }
}

}  // namespace
}  // namespace ft
