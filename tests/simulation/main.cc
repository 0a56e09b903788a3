// SPDX-License-Identifier: Apache-2.0
//
// ft-simulate: many seeds, or one again. The first violation ends it, with its
// seed, what happened last, and how to see it again.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "coordinator/job_state.h"
#include "tests/simulation/simulation.h"

namespace ft::testing {
namespace {

// Of the seed that runs, for a crash of the core itself.
char replay[128];

void OnAbort(int) {
  constexpr char kText[] = "the core crashed; again: ";
  [[maybe_unused]] ssize_t put = write(2, kText, sizeof(kText) - 1);
  put = write(2, replay, strlen(replay));
}

int Report(const SimulationOptions& options, const SimulationReport& report) {
  std::fprintf(stderr, "seed %lu, after %s: %s\n",
               static_cast<unsigned long>(options.seed),
               absl::FormatDuration(report.at).c_str(),
               report.violation.c_str());
  SimulationOptions again = options;
  again.keeps_history = true;
  for (const std::string& line : RunSimulation(again).history) {
    std::fprintf(stderr, "  %s\n", line.c_str());
  }
  std::fprintf(stderr, "again: %s", replay);
  return 1;
}

void PrintSums(const std::map<std::string, int64_t>& sums) {
  for (const auto& [name, count] : sums) {
    std::printf("  %10ld  %s\n", static_cast<long>(count), name.c_str());
  }
}

int Run(const SimulationOptions& first, int64_t seeds) {
  std::signal(SIGABRT, OnAbort);
  const auto start = std::chrono::steady_clock::now();
  std::map<std::string, int64_t> faults, seen, outcomes;
  double minutes = 0;
  int64_t events = 0;
  int64_t fault_count = 0;
  for (int64_t i = 0; i < seeds; ++i) {
    SimulationOptions options = first;
    options.seed = first.seed + static_cast<uint64_t>(i);
    std::snprintf(replay, sizeof(replay),
                  "build/tests/ft-simulate --seed %lu --seeds 1 --minutes %g\n",
                  static_cast<unsigned long>(options.seed),
                  absl::ToDoubleMinutes(options.storm));
    const SimulationReport report = RunSimulation(options);
    if (!report.violation.empty()) return Report(options, report);
    minutes += absl::ToDoubleMinutes(report.at);
    events += report.events;
    for (const auto& [name, count] : report.faults) {
      faults[name] += count;
      fault_count += count;
    }
    for (const auto& [name, count] : report.seen) seen[name] += count;
    for (const auto& [state, count] : report.outcomes) {
      outcomes[std::string(ShortName(state))] += count;
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  const auto count = static_cast<double>(seeds);
  std::printf("%ld seeds from %lu, none violates a rule\n",
              static_cast<long>(seeds), static_cast<unsigned long>(first.seed));
  std::printf(
      "%.1f seeds/s; a seed: %.1f virtual minutes, %.0f faults, %.0f "
      "events\n",
      count / seconds, minutes / count,
      static_cast<double>(fault_count) / count,
      static_cast<double>(events) / count);
  std::printf("faults\n");
  PrintSums(faults);
  std::printf("jobs\n");
  PrintSums(outcomes);
  std::printf("seen\n");
  PrintSums(seen);
  return 0;
}

}  // namespace
}  // namespace ft::testing

int main(int argc, char** argv) {
  ft::testing::SimulationOptions options;
  int64_t seeds = 200;
  double minutes = 10;
  CLI::App app(
      "Runs the core of the coordinator under faults, on virtual "
      "time.\n\n  ft-simulate --seeds 1000\n  ft-simulate --seed 17 "
      "--seeds 1");
  app.add_option("--seed", options.seed, "The first seed");
  app.add_option("--seeds", seeds, "How many")->check(CLI::Range(1, 100000000));
  app.add_option("--minutes", minutes, "Virtual time in which things break")
      ->check(CLI::Range(0.1, 10000.0));
  CLI11_PARSE(app, argc, argv);
  options.storm = absl::Minutes(minutes);
  return ft::testing::Run(options, seeds);
}
