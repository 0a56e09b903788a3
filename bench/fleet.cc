// SPDX-License-Identifier: Apache-2.0
//
// Many workers that hold nothing: each attaches over a connection of its own,
// sends heartbeats, and attaches again whenever its stream breaks.
// bench/recovery.py kills the coordinator meanwhile.

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/id.h"
#include "ft/v1/workers.grpc.pb.h"

namespace ft::bench {
namespace {

struct Options {
  std::string address;
  std::string token_file;
  int workers = 200;
  double seconds = 30;
};

// What all of them saw.
class Record {
 public:
  void Attached(int64_t incarnation) {
    const absl::MutexLock lock(&mutex_);
    attached_[incarnation].push_back(absl::Now());
  }
  void Beat(absl::Duration took) {
    const absl::MutexLock lock(&mutex_);
    beats_ms_.push_back(absl::ToDoubleMilliseconds(took));
  }

  nlohmann::json Json() {
    const absl::MutexLock lock(&mutex_);
    nlohmann::json incarnations = nlohmann::json::object();
    for (auto& [incarnation, times] : attached_) {
      std::sort(times.begin(), times.end());
      incarnations[absl::StrCat(incarnation)] = {
          {"attached", times.size()},
          {"first_unix",
           absl::ToDoubleSeconds(times.front() - absl::UnixEpoch())},
          {"last_unix",
           absl::ToDoubleSeconds(times.back() - absl::UnixEpoch())}};
    }
    std::sort(beats_ms_.begin(), beats_ms_.end());
    const auto at = [this](double share) {
      return beats_ms_.empty()
                 ? 0
                 : beats_ms_[static_cast<size_t>(
                       share * static_cast<double>(beats_ms_.size() - 1))];
    };
    return {{"incarnations", incarnations},
            {"heartbeats", beats_ms_.size()},
            {"heartbeat_p50_ms", at(0.5)},
            {"heartbeat_p99_ms", at(0.99)}};
  }

 private:
  absl::Mutex mutex_;
  std::map<int64_t, std::vector<absl::Time>> attached_;
  std::vector<double> beats_ms_;
};

// One stream, until it breaks or the time is over.
void Serve(v1::WorkerService::Stub& stub, const std::string& token,
           const v1::ConnectRequest& attach, absl::Time end, Record& record) {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(absl::ToChronoTime(end));
  context.AddMetadata("authorization", "Bearer " + token);
  const auto stream = stub.Connect(&context);
  v1::ConnectResponse said;
  if (!stream->Write(attach) || !stream->Read(&said)) return;
  record.Attached(said.attached().incarnation());
  const auto pause = absl::Milliseconds(said.attached().heartbeat_ms());
  for (int64_t seq = 1; absl::Now() < end; ++seq) {
    v1::ConnectRequest beat;
    beat.mutable_heartbeat()->set_seq(seq);
    const absl::Time begin = absl::Now();
    if (!stream->Write(beat)) return;
    do {
      if (!stream->Read(&said)) return;
    } while (said.heartbeat_reply().seq() != seq);
    record.Beat(absl::Now() - begin);
    absl::SleepFor(std::min(pause, end - absl::Now()));
  }
}

void Live(const Options& options, const std::string& token, int number,
          absl::Time end, Record& record) {
  grpc::ChannelArguments arguments;
  // As if each were on a machine of its own.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  const auto stub = v1::WorkerService::NewStub(grpc::CreateCustomChannel(
      options.address, grpc::InsecureChannelCredentials(), arguments));
  v1::ConnectRequest request;
  v1::Attach& attach = *request.mutable_attach();
  attach.set_worker_id(absl::StrCat("bench-", number));
  attach.set_instance_id(MakeRequestId());
  attach.mutable_inventory()->set_isa_class("avx2");
  attach.mutable_inventory()->add_slots();
  std::mt19937 random(static_cast<uint32_t>(number));
  while (absl::Now() < end) {
    Serve(*stub, token, request, end, record);
    absl::SleepFor(std::min(
        end - absl::Now(),
        absl::Milliseconds(std::uniform_int_distribution(50, 500)(random))));
  }
}

int Main(int argc, char** argv) {
  CLI::App app("Attaches many workers to a coordinator; see bench/README.md.");
  Options options;
  app.add_option("--address", options.address, "The workers' listener")
      ->required();
  app.add_option("--token_file", options.token_file, "A worker's token")
      ->required();
  app.add_option("--workers", options.workers)->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.seconds)->check(CLI::Range(1.0, 3600.0));
  CLI11_PARSE(app, argc, argv);
  const auto token = ReadFile(options.token_file, 4096);
  if (!token.ok()) {
    std::fprintf(stderr, "ft-bench-fleet: %s\n",
                 std::string(token.status().message()).c_str());
    return 1;
  }
  const std::string word(absl::StripSuffix(*token, "\n"));
  const absl::Time end = absl::Now() + absl::Seconds(options.seconds);
  Record record;
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < options.workers; ++i) {
      workers.emplace_back([&, i] { Live(options, word, i, end, record); });
    }
  }
  std::printf("%s\n", record.Json().dump().c_str());
  return 0;
}

}  // namespace
}  // namespace ft::bench

int main(int argc, char** argv) { return ft::bench::Main(argc, argv); }
