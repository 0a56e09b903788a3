// SPDX-License-Identifier: Apache-2.0
//
// What a client sees of a running coordinator, timed: durable submits, and
// uploads with their digests. bench/run.py starts the service.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/id.h"
#include "common/status.h"
#include "ctl/client.h"
#include "ctl/submit.h"

namespace ft::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct SubmitOptions {
  GlobalOptions service;
  std::string job_file;
  int clients = 32;
  int count = 4000;
  int64_t spec_bytes = 1024;
};

// The spec as the coordinator stores it, filled up to the size wanted.
absl::StatusOr<v1::JobSpec> SpecOf(Client& client,
                                   const SubmitOptions& options) {
  std::string folder;
  FT_ASSIGN_OR_RETURN(v1::JobSpec spec, ReadJobFile(options.job_file, folder));
  FT_ASSIGN_OR_RETURN(const v1::Job job,
                      Submit(client, std::move(spec), folder));
  v1::JobSpec stored = job.spec();
  // Each job has a name and a digest of its own.
  stored.clear_export_();
  stored.mutable_model()->clear_digest();
  std::string& filler = (*stored.mutable_data()->mutable_variables())["filler"];
  filler = "x";
  const auto size = static_cast<int64_t>(stored.ByteSizeLong());
  if (size < options.spec_bytes) {
    filler.append(static_cast<size_t>(options.spec_bytes - size), 'x');
  }
  return stored;
}

// `count` submits by one client; their seconds.
absl::StatusOr<std::vector<double>> SubmitMany(const SubmitOptions& options,
                                               const v1::JobSpec& spec,
                                               int count) {
  FT_ASSIGN_OR_RETURN(const auto client, Client::Connect(options.service));
  std::vector<double> seconds;
  for (int i = 0; i < count; ++i) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(MakeRequestId());
    const auto begin = Clock::now();
    FT_RETURN_IF_ERROR(client->CreateJob(request).status());
    seconds.push_back(SecondsSince(begin));
  }
  return seconds;
}

absl::StatusOr<nlohmann::json> TimeSubmits(const SubmitOptions& options) {
  FT_ASSIGN_OR_RETURN(const auto client, Client::Connect(options.service));
  FT_ASSIGN_OR_RETURN(const v1::JobSpec spec, SpecOf(*client, options));
  const int each = options.count / options.clients;
  absl::Mutex mutex;
  std::vector<double> all;
  absl::Status status;
  const auto begin = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.clients; ++i) {
      threads.emplace_back([&] {
        const auto seconds = SubmitMany(options, spec, each);
        const absl::MutexLock lock(&mutex);
        status.Update(seconds.status());
        if (seconds.ok()) {
          all.insert(all.end(), seconds->begin(), seconds->end());
        }
      });
    }
  }
  const double wall = SecondsSince(begin);
  FT_RETURN_IF_ERROR(status);
  if (all.empty())
    return absl::InvalidArgumentError("fewer submits than clients");
  std::sort(all.begin(), all.end());
  const auto at = [&](double share) {
    return 1000 * all[static_cast<size_t>(share * (all.size() - 1))];
  };
  return nlohmann::json{
      {"clients", options.clients},
      {"submits", all.size()},
      {"spec_bytes", spec.ByteSizeLong()},
      {"submits_per_s", static_cast<double>(all.size()) / wall},
      {"p50_ms", at(0.5)},
      {"p99_ms", at(0.99)},
      {"max_ms", at(1)}};
}

struct UploadOptions {
  GlobalOptions service;
  std::string dir;
  int64_t mib = 256;
  int tries = 3;
};

// A file of its own content, so that nothing of it is stored yet.
absl::Status WriteRandomFile(const std::string& path, int64_t mib) {
  std::string bytes;
  bytes.reserve(static_cast<size_t>(mib) << 20);
  for (int64_t i = 0; i < mib; ++i) bytes += RandomBytes(1 << 20);
  return WriteFileAtomic(path, bytes);
}

absl::StatusOr<nlohmann::json> TimeUploads(const UploadOptions& options) {
  FT_ASSIGN_OR_RETURN(const auto client, Client::Connect(options.service));
  const std::string path = JoinPath(options.dir, "upload.bin");
  const double megabytes = static_cast<double>(options.mib << 20) * 1e-6;
  std::vector<double> with_digest, without;
  for (int i = 0; i < options.tries; ++i) {
    FT_RETURN_IF_ERROR(WriteRandomFile(path, options.mib));
    const auto begin = Clock::now();
    FT_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path));
    const auto digested = Clock::now();
    FT_RETURN_IF_ERROR(client->artifacts().UploadFile(path, sha256, {}));
    with_digest.push_back(megabytes / SecondsSince(begin));
    without.push_back(megabytes / SecondsSince(digested));
  }
  FT_RETURN_IF_ERROR(RemoveFile(path));
  std::sort(with_digest.begin(), with_digest.end());
  std::sort(without.begin(), without.end());
  return nlohmann::json{{"mb", megabytes},
                        {"tries", options.tries},
                        // The client's SHA-256, the transfer, the server's.
                        {"mb_per_s", with_digest[with_digest.size() / 2]},
                        // The transfer, checked by the server.
                        {"transfer_mb_per_s", without[without.size() / 2]}};
}

int Print(const absl::StatusOr<nlohmann::json>& result) {
  if (!result.ok()) {
    std::fprintf(stderr, "ft-bench-service: %s\n",
                 std::string(result.status().message()).c_str());
    return 1;
  }
  std::printf("%s\n", result->dump().c_str());
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("Times a running coordinator; bench/README.md explains.");
  app.require_subcommand(1);
  int code = 0;
  GlobalOptions service;
  app.add_option("--address", service.address, "The coordinator")->required();
  app.add_option("--token_file", service.token_file, "An admin token")
      ->required();

  SubmitOptions submit;
  CLI::App* command = app.add_subcommand("submit", "Durable submits");
  command->add_option("--job", submit.job_file, "Job file")->required();
  command->add_option("--clients", submit.clients, "At the same time")
      ->check(CLI::Range(1, 1000));
  command->add_option("--count", submit.count, "Submits in all");
  command->callback([&] {
    submit.service = service;
    code = Print(TimeSubmits(submit));
  });

  UploadOptions upload;
  command = app.add_subcommand("upload", "Uploads of new files");
  command->add_option("--dir", upload.dir, "Scratch folder")->required();
  command->add_option("--mib", upload.mib, "Size of a file")
      ->check(CLI::Range(1, 4096));
  command->add_option("--tries", upload.tries)->check(CLI::Range(1, 100));
  command->callback([&] {
    upload.service = service;
    code = Print(TimeUploads(upload));
  });
  CLI11_PARSE(app, argc, argv);
  return code;
}

}  // namespace
}  // namespace ft::bench

int main(int argc, char** argv) { return ft::bench::Main(argc, argv); }
