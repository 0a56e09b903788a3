// SPDX-License-Identifier: Apache-2.0
//
// kill_soak --kills N --seed S: many small jobs, and somebody who kills ranks,
// daemons and the coordinator all the time. Passes when nothing is lost,
// nothing is done twice and every result has the bits of its undisturbed run.
// See tests/chaos/README.md.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/status.h"
#include "ctl/output.h"
#include "ctl/submit.h"
#include "jobspec/from_yaml.h"
#include "tests/chaos/killer.h"
#include "tests/chaos/soak_clients.h"
#include "tests/chaos/soak_cluster.h"
#include "tests/chaos/soak_monitor.h"
#include "tests/chaos/soak_report.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kCalmTimeout = absl::Minutes(3);
constexpr absl::Duration kRestTimeout = absl::Seconds(30);
constexpr double kMostGrowth = 0.05;
// Half of a life that is looked at. A daemon's heap fills up over its first
// jobs; whether it goes on to grow shows after that.
constexpr absl::Duration kLeastWatched = absl::Seconds(120);
// From so many kills on each failpoint must have killed.
constexpr int kKillsForEachPoint = 300;

struct Options {
  int kills = 40;
  uint64_t seed = 1;
  double mean_gap_seconds = 2;
  int live_jobs = 3;
  std::string program_dir = FT_TEST_BINARY_DIR "/bin";
  std::string report;
  bool keep = false;
};

// With four lanes the bits depend on the method alone.
struct Method {
  const char* name;
  const char* lines;  // Of the job file.
};

constexpr Method kMethods[] = {
    {"lora", "adaptation: {lora: {rank: 4, dropout: 0.05}}"},
    {"full", "adaptation: full"},
    {"freeze in 8 bits",
     "adaptation: {freeze: {last_blocks: 1}}\noptimizer: adamw_8bit"}};

struct Shape {
  int ranks;
  int zero_stage;
  size_t method;  // Of kMethods.
};

constexpr Shape kShapes[] = {{1, 1, 0}, {2, 0, 0}, {4, 3, 0}, {2, 3, 1},
                             {4, 2, 1}, {4, 1, 2}, {2, 3, 2}};

std::string JobFile(const Shape& shape) {
  return absl::StrCat(R"(
schema: ft.v1
name: soak
model: {base: tiny-chat}
data:
  train: [{path: counting.jsonl, format: openai}]
  validation: {share: 0.2}
  cutoff_len: 256
stage: sft
)",
                      kMethods[shape.method].lines, R"(
schedule: {steps: 24, learning_rate: 0.005, warmup_steps: 2}
batch: {sequences: 16, micro: 1}
determinism: {lanes: 4}
parallelism: {zero_stage: )",
                      shape.zero_stage, R"(}
resources: {ranks: )",
                      shape.ranks, R"(}
checkpointing: {every: {steps: 4}}
evaluation: {every: {steps: 10}}
retry: {max_without_progress: 1000}
)");
}

absl::StatusOr<std::map<std::string, std::string>> ResultOf(
    Client& client, const v1::Job& job) {
  FT_ASSIGN_OR_RETURN(
      const v1::Manifest manifest,
      client.artifacts().ReadManifest(job.status().artifact_manifest_sha256()));
  std::map<std::string, std::string> files;
  for (const v1::FileEntry& file : manifest.files()) {
    files[file.path()] = file.sha256();
  }
  return files;
}

// One run of each shape that nobody disturbs.
absl::StatusOr<std::vector<JobVariant>> RunUndisturbed(SoakCluster& cluster) {
  const std::unique_ptr<Client> client = cluster.NewClient();
  std::vector<JobVariant> variants;
  for (const Shape& shape : kShapes) {
    FT_ASSIGN_OR_RETURN(const v1::JobSpec spec,
                        ParseJobFile(JobFile(shape), "soak.yaml"));
    FT_ASSIGN_OR_RETURN(const v1::Job job,
                        Submit(*client, spec, FT_TEST_SOURCE_DIR "/examples"));
    JobVariant& variant = variants.emplace_back();
    variant.name = absl::StrCat(kMethods[shape.method].name, ", ", shape.ranks,
                                " ranks, stage ", shape.zero_stage);
    // As it was sent, with its data's digests; what the coordinator filled in
    // must not stand in the way of another job.
    variant.spec = job.spec();
    variant.spec.clear_export_();
    variant.spec.mutable_model()->clear_digest();
    variant.job_id = job.job_id();
  }
  const absl::Time deadline = absl::Now() + kCalmTimeout;
  for (JobVariant& variant : variants) {
    while (true) {
      FT_ASSIGN_OR_RETURN(const v1::Job job, client->GetJob(variant.job_id));
      if (job.status().state() == v1::JOB_STATE_SUCCEEDED) {
        FT_ASSIGN_OR_RETURN(variant.result, ResultOf(*client, job));
        break;
      }
      if (IsTerminal(job.status().state()) || absl::Now() > deadline) {
        return absl::InternalError(
            absl::StrCat("the undisturbed run of ", variant.name, " is ",
                         job.status().ShortDebugString()));
      }
      absl::SleepFor(absl::Milliseconds(50));
    }
  }
  for (size_t i = 1; i < variants.size(); ++i) {
    if (kShapes[i].method == kShapes[i - 1].method &&
        variants[i].result != variants[i - 1].result) {
      return absl::InternalError(absl::StrCat(
          variants[i].name, " has other bits than ", variants[i - 1].name));
    }
  }
  return variants;
}

// Nothing moves any more: no rank, every worker READY, workspaces gone.
void AwaitRest(SoakCluster& cluster) {
  const std::unique_ptr<Client> client = cluster.NewClient();
  const absl::Time deadline = absl::Now() + kRestTimeout;
  while (absl::Now() < deadline) {
    bool at_rest = cluster.Ranks().empty() && cluster.AllReady(*client);
    for (const std::string& name : cluster.worker_names()) {
      const auto jobs =
          ListDir(JoinPath(JoinPath(cluster.dir(), name), "jobs"));
      if (!jobs.ok()) at_rest = false;
      for (const std::string& job : jobs.value_or(std::vector<std::string>())) {
        at_rest &=
            ListDir(JoinPath(cluster.dir(), absl::StrCat(name, "/jobs/", job)))
                .value_or(std::vector<std::string>{""})
                .empty();
      }
    }
    if (at_rest) return;
    absl::SleepFor(absl::Milliseconds(50));
  }
}

void Append(std::vector<std::string>& to,
            const std::vector<std::string>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void JudgePoints(const FailpointFile& table, int kills, SoakReport& report) {
  for (int i = 0; i < kFailpoints; ++i) {
    const auto point = static_cast<Failpoint>(i);
    const std::string name(FailpointName(point));
    report.points[name] = {table.passed(point), table.killed(point)};
    if (table.passed(point) == 0) {
      report.violations.push_back(
          absl::StrCat("failpoint ", name, " was never passed"));
    } else if (kills >= kKillsForEachPoint && table.killed(point) == 0) {
      report.violations.push_back(
          absl::StrCat("failpoint ", name, " killed nobody"));
    }
  }
}

void JudgeMemory(SoakReport& report) {
  for (const auto& [name, growth] : report.memory) {
    if (growth.watched >= kLeastWatched && growth.ratio() >= kMostGrowth) {
      report.violations.push_back(absl::StrFormat(
          "I7: the memory of %s grew by %.1f %% in %.0f s", name,
          100 * growth.ratio(), absl::ToDoubleSeconds(growth.watched)));
    }
  }
}

void CountStore(const std::string& coordinator_dir, SoakReport& report) {
  const absl::StatusOr<StoreView> store = ReadStore(coordinator_dir);
  if (!store.ok()) return;  // CheckInvariants says so.
  report.events = static_cast<int64_t>(store->all_events.size());
  report.attempts = static_cast<int>(store->attempts.size());
  for (const auto& [epoch, row] : store->attempts) {
    ++report.causes[v1::AttemptCause_Name(row.attempt.cause())
                        .substr(sizeof("ATTEMPT_CAUSE_") - 1)];
  }
  for (const auto& [job_id, reports] : store->reports) {
    std::set<int64_t> steps;
    for (const v1::ReportRequest& said : reports) {
      for (const v1::StepMetrics& point : said.metrics()) {
        if (point.has_eval_loss()) continue;
        steps.insert(point.step()).second ? ++report.steps_stored
                                          : ++report.steps_taken_again;
      }
    }
  }
  report.blobs = static_cast<int>(ListBlobs(coordinator_dir).size());
}

absl::StatusOr<SoakReport> Soak(const Options& options,
                                const std::string& dir) {
  const absl::Time began = absl::Now();
  SoakReport report{.kills_wanted = options.kills, .seed = options.seed};
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<SoakCluster> cluster,
                      SoakCluster::Start({.dir = dir,
                                          .program_dir = options.program_dir,
                                          .model_dir = FT_TEST_SOURCE_DIR
                                          "/tests/golden/models/tiny_chat"}));
  FT_ASSIGN_OR_RETURN(const std::vector<JobVariant> variants,
                      RunUndisturbed(*cluster));
  std::printf("undisturbed runs are done after %.0f s\n",
              absl::ToDoubleSeconds(absl::Now() - began));
  std::fflush(stdout);

  SoakMonitor monitor(*cluster);
  SoakClients clients(*cluster, variants,
                      {.seed = options.seed, .live_jobs = options.live_jobs});
  Killer killer(
      *cluster,
      MakeKillPlan({.kills = options.kills,
                    .seed = options.seed,
                    .mean_gap = absl::Seconds(options.mean_gap_seconds)}),
      [&](const KillRecord& kill) {
        std::printf("%6.1f s  kill %d: %s %s%s  (%zu of %d jobs ended)\n",
                    absl::ToDoubleSeconds(kill.at), kill.number,
                    VictimName(kill.victim).c_str(), kill.failpoint.c_str(),
                    kill.who.c_str(), clients.Ended().size(),
                    clients.submitted());
        std::fflush(stdout);
      });
  clients.Run();
  killer.Run();
  clients.Stop(kCalmTimeout);
  AwaitRest(*cluster);

  report.history = killer.history();
  report.memory = monitor.Growth();
  report.submitted = clients.submitted();
  report.submitted_twice = clients.asked_twice();
  for (const auto& [job_id, job] : clients.Ended()) {
    ++report.outcomes[StateText(job.status().state())];
  }
  Evidence evidence = cluster->NewEvidence();
  evidence.clients = clients.Memory();
  for (const JobVariant& variant : variants) {
    evidence.clients.jobs["undisturbed " + variant.name] = variant.job_id;
  }
  evidence.at_rest = true;
  for (const auto& [job_id, events] : evidence.clients.events) {
    report.told_events += static_cast<int64_t>(events.size());
  }
  Append(report.violations, clients.complaints());
  Append(report.violations, monitor.complaints());
  Append(report.violations, cluster->supervisor().strange_ends());
  Append(report.violations, CheckInvariants(evidence));
  JudgePoints(cluster->failpoints(), options.kills, report);
  JudgeMemory(report);
  CountStore(evidence.coordinator_dir, report);
  for (const std::string& name : cluster->worker_names()) {
    report.lives[name] = cluster->supervisor().lives(name);
  }
  report.lives["coordinator"] = cluster->supervisor().lives("coordinator");
  report.took = absl::Now() - began;
  return report;
}

int Main(const Options& options) {
  absl::StatusOr<TempDir> dir = TempDir::Create();
  absl::StatusOr<SoakReport> report =
      dir.ok() ? Soak(options, dir->path()) : dir.status();
  if (!report.ok()) {
    std::fprintf(stderr, "the soak could not run: %s\n",
                 report.status().ToString().c_str());
    return 2;
  }
  if (!options.report.empty()) {
    const absl::Status written = WriteReport(*report, options.report);
    if (!written.ok()) {
      std::fprintf(stderr, "%s\n", written.ToString().c_str());
      return 2;
    }
  }
  std::printf("%s\n", report->Markdown().c_str());
  if (options.keep || !report->passed()) {
    const std::string kept = absl::StrCat(dir->path(), "-kept");
    if (std::rename(dir->path().c_str(), kept.c_str()) == 0) {
      std::printf("store, logs and blobs are in %s\n", kept.c_str());
    }
  }
  if (report->passed()) return 0;
  std::printf("%zu violations; again: %s\n", report->violations.size(),
              report->ReplayCommand().c_str());
  return 1;
}

}  // namespace
}  // namespace ft::testing

int main(int argc, char** argv) {
  ft::testing::Options options;
  CLI::App app(
      "Kills ranks, workers and the coordinator under load, and checks what "
      "is left.");
  app.add_option("--kills", options.kills, "How many")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of kills and clients")
      ->capture_default_str();
  app.add_option("--mean_gap", options.mean_gap_seconds,
                 "Seconds between kills")
      ->check(CLI::Range(0.01, 600.0))
      ->capture_default_str();
  app.add_option("--live_jobs", options.live_jobs, "Jobs at once")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--program_dir", options.program_dir, "Of the daemons")
      ->capture_default_str();
  app.add_option("--report", options.report,
                 "Where to write, without .json and .md");
  app.add_flag("--keep", options.keep, "Keep the folder also if it passes");
  CLI11_PARSE(app, argc, argv);
  return ft::testing::Main(options);
}
