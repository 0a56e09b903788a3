// SPDX-License-Identifier: Apache-2.0
//
// Clients that want to bring the coordinator down, on both listeners at once,
// while workers send heartbeats: it stays small, answers in time and takes no
// worker for lost. FT_HOSTILE_SECONDS makes it longer; bench/results/hostile.md
// has figures.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "ft/v1/admin.grpc.pb.h"
#include "ft/v1/workers.grpc.pb.h"
#include "tests/coordinator/coordinator_program.h"
#include "tests/coordinator/raw_client.h"
#include "tests/testing/sizes.h"

namespace ft {
namespace {

using testing::CallHeaders;
using testing::CoordinatorProgram;
using testing::Frame;
using testing::FrameType;
using testing::Header;
using testing::kEndHeaders;
using testing::RawClient;

constexpr int kWorkers = 10;
constexpr absl::Duration kBeat = absl::Milliseconds(100);
constexpr int64_t kMostKilobytes = 256 << 10;
constexpr char kPath[] = "/ft.v1.JobService/ListJobs";
constexpr char kBadToken[] = "Bearer ft_nobody";

absl::Duration Duration() {
  return absl::Seconds(testing::SizeFrom("FT_HOSTILE_SECONDS", 3));
}

// A worker that only sends heartbeats and takes the time of the answers.
class Beating {
 public:
  Beating(const std::string& address, const std::string& token, int number)
      : stub_(v1::WorkerService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {
    context_.AddMetadata("authorization", "Bearer " + token);
    stream_ = stub_->Connect(&context_);
    v1::ConnectRequest message;
    v1::Attach& attach = *message.mutable_attach();
    attach.set_worker_id(absl::StrCat("w-", number));
    attach.set_instance_id("i-1");
    attach.mutable_inventory()->add_slots();
    stream_->Write(message);
    thread_ = std::thread([this] { Beat(); });
  }
  // The times so far. Ends the stream.
  std::vector<absl::Duration> Stop() {
    is_over_ = true;
    thread_.join();
    context_.TryCancel();
    stream_->Finish().IgnoreError();
    return times_;
  }
  bool was_cut() const { return was_cut_; }

 private:
  void Beat() {
    for (int64_t seq = 1; !is_over_; ++seq) {
      v1::ConnectRequest message;
      message.mutable_heartbeat()->set_seq(seq);
      const absl::Time sent = absl::Now();
      bool goes_on = stream_->Write(message);
      v1::ConnectResponse answer;
      do {
        goes_on = goes_on && stream_->Read(&answer);
      } while (goes_on && answer.heartbeat_reply().seq() != seq);
      if (!goes_on) {
        was_cut_ = true;
        return;
      }
      times_.push_back(absl::Now() - sent);
      absl::SleepFor(kBeat);
    }
  }

  grpc::ClientContext context_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>>
      stream_;
  std::atomic<bool> is_over_{false};
  std::atomic<bool> was_cut_{false};
  std::vector<absl::Duration> times_;
  std::thread thread_;
};

int64_t Kilobytes(pid_t pid, absl::string_view field) {
  const std::string status =
      ReadFile(absl::StrCat("/proc/", pid, "/status"), 1 << 16).value();
  for (const absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::StartsWith(line, field)) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kilobytes = 0;
    EXPECT_TRUE(absl::SimpleAtoi(words[1], &kilobytes));
    return kilobytes;
  }
  ADD_FAILURE() << "no " << field;
  return 0;
}

// --- What is done to a listener until `is_over` ------------------------------

using Over = std::function<bool()>;

void RapidReset(const std::string& address, const Over& is_over) {
  const std::string headers = CallHeaders(kPath, kBadToken);
  while (!is_over()) {
    RawClient client(address);
    client.Begin();
    for (uint32_t stream = 1; client.is_open() && !is_over();) {
      std::string burst;
      for (int i = 0; i < 100; ++i, stream += 2) {
        burst += Frame(FrameType::kHeaders, kEndHeaders, stream, headers);
        burst +=
            Frame(FrameType::kReset, 0, stream, std::string("\0\0\0\x8", 4));
      }
      client.Send(burst);
    }
  }
}

void EndlessHeaders(const std::string& address, const Over& is_over) {
  const std::string junk = Header("x-junk", std::string(16'000, 'j'));
  while (!is_over()) {
    RawClient client(address);
    client.Begin();
    client.Send(
        Frame(FrameType::kHeaders, 0, 1, CallHeaders(kPath, kBadToken)));
    while (!is_over() &&
           client.Send(Frame(FrameType::kContinuation, 0, 1, junk))) {
    }
  }
}

void Metadata64MiB(const std::string& address, const Over& is_over) {
  const std::string value = Header("x-big", std::string(16'000, 'v'));
  while (!is_over()) {
    RawClient client(address);
    client.Begin();
    client.Send(
        Frame(FrameType::kHeaders, 0, 1, CallHeaders(kPath, kBadToken)));
    for (int64_t sent = 0; sent < (64 << 20) && client.is_open() && !is_over();
         sent += static_cast<int64_t>(value.size())) {
      client.Send(Frame(FrameType::kContinuation, 0, 1, value));
    }
    client.Send(Frame(FrameType::kContinuation, kEndHeaders, 1, ""));
  }
}

void HalfHandshakes(const std::string& address, const Over& is_over) {
  std::vector<RawClient> clients;
  for (int i = 0; i < 500 && !is_over(); ++i) {
    clients.emplace_back(address);
    clients.back().Send(absl::string_view(testing::kPreface).substr(0, i % 20));
  }
  while (!is_over()) absl::SleepFor(absl::Milliseconds(10));
}

void IdleSockets(const std::string& address, const Over& is_over) {
  std::vector<RawClient> clients;
  for (int i = 0; i < 1500 && !is_over(); ++i) {  // On each listener.
    clients.emplace_back(address);
    if (i % 2 == 0) clients.back().Begin();
  }
  while (!is_over()) absl::SleepFor(absl::Milliseconds(10));
}

// Opens and leaves as fast as it can.
void ConnectFlood(const std::string& address, const Over& is_over) {
  while (!is_over()) RawClient client(address);
}

// A whole call with a token that nobody has, over and over.
void WrongTokens(const std::string& address, const Over& is_over) {
  const std::string call =
      absl::StrCat(testing::kPreface, Frame(FrameType::kSettings, 0, 0, ""),
                   Frame(FrameType::kSettings, testing::kAck, 0, ""),
                   Frame(FrameType::kHeaders, kEndHeaders, 1,
                         CallHeaders(kPath, kBadToken)));
  while (!is_over()) {
    RawClient client(address);
    client.Send(call);
    client.IsClosedWithin(1);
  }
}

void PingFlood(const std::string& address, const Over& is_over) {
  std::string pings;
  for (int i = 0; i < 100; ++i) {
    pings += Frame(FrameType::kPing, 0, 0, "12345678");
    pings += Frame(FrameType::kSettings, 0, 0, "");
  }
  while (!is_over()) {
    RawClient client(address);
    client.Begin();
    while (!is_over() && client.Send(pings)) {
    }
  }
}

void Nonsense(const std::string& address, const Over& is_over) {
  uint32_t state = 1;
  while (!is_over()) {
    RawClient client(address);
    if (state % 2 == 0) client.Begin();
    std::string bytes(4096, '\0');
    for (char& byte : bytes) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<char>(state >> 24);
    }
    client.Send(bytes);
  }
}

struct Attack {
  const char* name;
  void (*run)(const std::string& address, const Over& is_over);
  friend void PrintTo(const Attack& attack, std::ostream* out) {
    *out << attack.name;
  }
};

class HostileTest : public ::testing::TestWithParam<Attack> {};

TEST_P(HostileTest, HeartbeatsGoOnAndMemoryStays) {
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);

  const testing::TestDir dir;
  CoordinatorProgram program(dir);
  const std::string clients = program.ClientAddress();
  const std::string workers = program.WorkerAddress();
  std::vector<std::unique_ptr<Beating>> beating;
  for (int i = 0; i < kWorkers; ++i) {
    beating.push_back(
        std::make_unique<Beating>(workers, program.WorkerToken(), i));
  }
  const int64_t before = Kilobytes(program.pid(), "VmRSS");

  const absl::Time end = absl::Now() + Duration();
  const Over is_over = [end] { return absl::Now() > end; };
  std::vector<std::thread> attackers;
  for (const std::string& address : {clients, workers}) {
    attackers.emplace_back([&] { GetParam().run(address, is_over); });
  }
  for (std::thread& attacker : attackers) attacker.join();

  const auto admin = v1::AdminService::NewStub(
      grpc::CreateChannel(clients, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + program.AdminToken());
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(10));
  v1::ListWorkersResponse list;
  const grpc::Status listed = admin->ListWorkers(&context, {}, &list);
  ASSERT_TRUE(listed.ok()) << listed.error_message();
  EXPECT_EQ(list.workers_size(), kWorkers);
  for (const v1::WorkerInfo& worker : list.workers()) {
    EXPECT_EQ(worker.state(), v1::WORKER_STATE_READY) << worker.worker_id();
  }

  std::vector<absl::Duration> times;
  for (const auto& worker : beating) {
    const std::vector<absl::Duration> more = worker->Stop();
    EXPECT_FALSE(worker->was_cut());
    times.insert(times.end(), more.begin(), more.end());
  }
  ASSERT_GT(times.size(), 50u);
  std::sort(times.begin(), times.end());
  const absl::Duration p99 = times[times.size() * 99 / 100];
  const int64_t most = Kilobytes(program.pid(), "VmHWM");
  std::printf(
      "%-16s rss before %3ld MiB, most %3ld MiB; heartbeats %5zu, p99 "
      "%6.1f ms, most %6.1f ms\n",
      GetParam().name, static_cast<long>(before >> 10),
      static_cast<long>(most >> 10), times.size(),
      absl::ToDoubleMilliseconds(p99),
      absl::ToDoubleMilliseconds(times.back()));
  EXPECT_LT(p99, absl::Seconds(1));
  EXPECT_LE(most, kMostKilobytes);
}

TEST(HandshakeTest, ASocketThatDoesNotFinishItIsClosed) {
  const testing::TestDir dir;
  CoordinatorProgram program(dir);
  RawClient silent(program.WorkerAddress());
  RawClient half(program.ClientAddress());
  half.Send(absl::string_view(testing::kPreface).substr(0, 10));
  EXPECT_TRUE(silent.IsClosedWithin(15));
  EXPECT_TRUE(half.IsClosedWithin(15));
}

INSTANTIATE_TEST_SUITE_P(
    Attacks, HostileTest,
    ::testing::Values(Attack{"RapidReset", RapidReset},
                      Attack{"EndlessHeaders", EndlessHeaders},
                      Attack{"Metadata64MiB", Metadata64MiB},
                      Attack{"HalfHandshakes", HalfHandshakes},
                      Attack{"IdleSockets", IdleSockets},
                      Attack{"ConnectFlood", ConnectFlood},
                      Attack{"WrongTokens", WrongTokens},
                      Attack{"PingFlood", PingFlood},
                      Attack{"Nonsense", Nonsense}),
    [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace ft
