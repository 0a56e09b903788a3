// SPDX-License-Identifier: Apache-2.0
//
// Optimizer steps of the engine itself, timed: the trainer, the loader and the
// sharded optimizer as train/assemble.cc puts them together, over a case file
// instead of a job. One process is one figure; it ends with one line of JSON.

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "bench/step_case.h"
#include "collective/thread_collective.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/hf_directory.h"
#include "kernels/isa.h"
#include "train/determinism.h"
#include "train/sft.h"
#include "train/torch_guard.h"
#include "train/trainer.h"

namespace ft::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// User and system, all threads.
double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) +
         1e-9 * static_cast<double>(time.tv_nsec);
}

int64_t PageFaults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

double PeakResidentMiB() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Since the kernel started this process.
double ProcessAge() {
  const absl::StatusOr<std::string> stat = ReadFile("/proc/self/stat", 4096);
  FT_CHECK(stat.ok());
  // The name of the program may hold spaces; it ends with the last bracket.
  const std::vector<std::string> fields =
      absl::StrSplit(stat->substr(stat->rfind(')') + 2), ' ');
  int64_t ticks = 0;
  FT_CHECK(fields.size() > 19 && absl::SimpleAtoi(fields[19], &ticks));
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) +
         1e-9 * static_cast<double>(now.tv_nsec) -
         static_cast<double>(ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

struct StepOptions {
  std::string model, cases;
  int number = 1;
  int threads = 1;
  int64_t warm = 3, steps = 10;
};

// What both sides hold equal.
constexpr double kLearningRate = 2e-4;
// The peer clips only where it runs under the library's own trainer.
double MaxGradNorm(int number) { return number == 3 ? 1 : 0; }

// The engine over one case.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Make(
      const StepOptions& options) {
    auto bench = std::make_unique<Bench>();
    FT_ASSIGN_OR_RETURN(bench->case_, ReadCase(options.cases, options.number));
    FT_ASSIGN_OR_RETURN(HfDirectory files, OpenHfDirectory(options.model));
    FT_ASSIGN_OR_RETURN(bench->model_, Transformer::Load(std::move(files)));
    FT_RETURN_IF_ERROR(
        bench->model_->LoadAdapter(JoinPath(options.cases, "adapter")));
    bench->Assemble(options);
    return bench;
  }

  Trainer& trainer() { return *trainer_; }

 private:
  void Assemble(const StepOptions& options) {
    sharded_ =
        std::make_unique<ShardedModel>(*model_, ShardingOptions{}, *ranks_[0]);
    loader_ = std::make_unique<Loader>(
        case_.rows, LoaderOptions{.sequences = case_.sequences,
                                  .micro = case_.sequences,
                                  .shuffle = false});
    trainer_ = std::make_unique<Trainer>(
        TrainerConfig{.max_grad_norm = MaxGradNorm(options.number),
                      .schedule = {.kind = ScheduleKind::kConstant,
                                   .peak = kLearningRate}},
        *sharded_, objective_, *loader_, *ranks_[0]);
  }

  StepCase case_;
  std::unique_ptr<Transformer> model_;
  std::vector<std::unique_ptr<Collective>> ranks_ = MakeThreadCollectives(1);
  std::unique_ptr<ShardedModel> sharded_;
  const Sft objective_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Trainer> trainer_;
};

// What is added up over the timed steps.
struct Totals {
  double wall = 0, cpu = 0;
  double data = 0, forward_backward = 0, reduce = 0, update = 0;
  int64_t tokens = 0, targets = 0, faults = 0;
};

absl::StatusOr<nlohmann::json> RunSteps(const StepOptions& options) {
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Bench> bench, Bench::Make(options));
  nlohmann::json losses = nlohmann::json::array(), per_step = losses;
  double first_step = 0;
  Totals totals;
  for (int64_t step = 0; step < options.warm + options.steps; ++step) {
    const auto begin = Clock::now();
    const double cpu = CpuSeconds();
    const int64_t faults = PageFaults();
    FT_ASSIGN_OR_RETURN(const StepReport report,
                        bench->trainer().Step({}, /*sealed_step=*/0));
    if (step == 0) first_step = ProcessAge();
    losses.push_back(report.loss);
    if (step < options.warm) continue;
    const double cpu_seconds = CpuSeconds() - cpu;
    per_step.push_back(1000 * cpu_seconds / static_cast<double>(report.tokens));
    totals.wall += SecondsSince(begin);
    totals.cpu += cpu_seconds;
    totals.faults += PageFaults() - faults;
    totals.tokens += report.tokens;
    totals.targets += report.targets;
    totals.data += report.data_seconds;
    totals.forward_backward += report.forward_backward_seconds;
    totals.reduce += report.reduce_seconds;
    totals.update += report.update_seconds;
  }
  const auto tokens = static_cast<double>(totals.tokens);
  return nlohmann::json{
      {"side", "ft"},
      {"case", options.number},
      {"threads", options.threads},
      {"isa", IsaName(KernelIsa())},
      {"warm_steps", options.warm},
      {"timed_steps", options.steps},
      {"tokens", totals.tokens},
      {"supervised_share", static_cast<double>(totals.targets) / tokens},
      {"cpu_s_per_1k_tokens", 1000 * totals.cpu / tokens},
      {"cpu_s_per_1k_tokens_of_steps", per_step},
      {"tokens_per_s", tokens / totals.wall},
      {"peak_rss_mib", PeakResidentMiB()},
      {"first_step_s", first_step},
      {"page_faults_per_step", totals.faults / options.steps},
      {"phases_s",
       {{"data", totals.data},
        {"forward_backward", totals.forward_backward},
        {"reduce", totals.reduce},
        {"update", totals.update}}},
      {"losses", losses}};
}

// GFLOP/s of fp32 C = A B, all of size n: the best of `tries`.
nlohmann::json MeasureGemm(int threads) {
  constexpr int64_t n = 1024;
  constexpr int kTries = 20;
  const at::Tensor a = at::rand({n, n}), b = at::rand({n, n});
  double best = 1e30;
  for (int i = 0; i < kTries; ++i) {
    const auto begin = Clock::now();
    at::mm(a, b);
    best = std::min(best, SecondsSince(begin));
  }
  return {{"threads", threads},
          {"isa", IsaName(KernelIsa())},
          {"sgemm_gflops", 2.0 * n * n * n / best * 1e-9}};
}

void Bind(int threads) {
  v1::Determinism determinism;
  determinism.set_threads(threads);
  BindDeterminism(determinism);
}

int Print(const absl::StatusOr<nlohmann::json>& result) {
  if (!result.ok()) {
    std::fprintf(stderr, "ft-bench-step: %s\n",
                 std::string(result.status().message()).c_str());
    return 1;
  }
  std::printf("%s\n", result->dump().c_str());
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("Times optimizer steps; bench/README.md explains.");
  app.require_subcommand(1);
  StepOptions options;
  std::string data, out;
  int code = 0;

  CLI::App* command = app.add_subcommand("prepare", "Write the case files");
  command->add_option("--model", options.model, "Model directory")->required();
  command->add_option("--data", data, "The folder bench/data")->required();
  command->add_option("--out", out, "Folder of the case files")->required();
  command->callback([&] {
    const absl::Status status =
        GuardTorch([&] { return PrepareCases(options.model, data, out); });
    code = status.ok() ? 0 : Print(status);
  });

  command = app.add_subcommand("run", "Train a case and time its steps");
  command->add_option("--model", options.model, "Model directory")->required();
  command->add_option("--cases", options.cases, "What prepare wrote")
      ->required();
  command->add_option("--case", options.number)->check(CLI::Range(1, kCases));
  command->add_option("--threads", options.threads)->check(CLI::Range(1, 1024));
  command->add_option("--warm", options.warm, "Steps before the timed ones")
      ->check(CLI::Range(0, 1000));
  command->add_option("--steps", options.steps, "Timed steps")
      ->check(CLI::Range(1, 1000));
  command->callback([&] {
    Bind(options.threads);
    code = Print(GuardTorch([&] { return RunSteps(options); }));
  });

  command = app.add_subcommand("sgemm", "GFLOP/s of the BLAS");
  command->add_option("--threads", options.threads)->check(CLI::Range(1, 1024));
  command->callback([&] {
    Bind(options.threads);
    code = Print(MeasureGemm(options.threads));
  });
  CLI11_PARSE(app, argc, argv);
  return code;
}

}  // namespace
}  // namespace ft::bench

int main(int argc, char** argv) { return ft::bench::Main(argc, argv); }
