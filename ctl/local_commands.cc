// SPDX-License-Identifier: Apache-2.0
//
// up, down, version, completion: what concerns this machine.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/version.h"
#include "ctl/command.h"
#include "ctl/completion.h"
#include "ctl/output.h"
#include "ctl/paths.h"
#include "ctl/service.h"

namespace ft {
namespace {

void Say(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
}

int PrintVersion(const GlobalOptions& options) {
  const nlohmann::ordered_json version = {
      {"version", std::string(Version())},
      {"revision", std::string(Revision())}};
  if (IsMessageOutput(options)) {
    PrintValue(options, version);
  } else if (options.output == "name") {
    std::printf("%s\n", std::string(Version()).c_str());
  } else {
    std::printf("ftctl %s (%s)\n", std::string(Version()).c_str(),
                std::string(Revision()).c_str());
  }
  return 0;
}

int Up(const GlobalOptions& options, int workers) {
  const absl::StatusOr<RunningService> service = StartService(workers, Say);
  if (!service.ok()) return Fail(service.status());
  const auto running = static_cast<int>(service->workers.size());
  Say(absl::StrCat("ready: a coordinator and ", running, " worker",
                   running == 1 ? "" : "s"));
  if (running > workers) {
    Say("up stops no worker; for fewer: ftctl down, then ftctl up again");
  }
  if (IsMessageOutput(options)) {
    PrintValue(options, {{"client_address", service->client_address},
                         {"http_address", service->http_address},
                         {"token_file", AdminTokenFile()},
                         {"workers", service->workers}});
  }
  return 0;
}

int Down(const GlobalOptions& options, absl::Duration grace) {
  const absl::StatusOr<std::vector<std::string>> stopped =
      StopService(grace, Say);
  if (!stopped.ok()) return Fail(stopped.status());
  if (IsMessageOutput(options)) PrintValue(options, {{"stopped", *stopped}});
  return 0;
}

}  // namespace

void AddLocalCommands(CLI::App& app, GlobalOptions& options, int& code) {
  static int workers = 2;
  CLI::App* command = app.add_subcommand(
      "up",
      "Start a coordinator and workers on this machine, or revive what died\n\n"
      "  ftctl up --workers 2\n"
      "  HOME=/tmp/other ftctl up   another service beside it");
  command->group("Cluster");
  command->add_option("--workers", workers, "Workers of one slot each")
      ->check(CLI::Range(1, 256));
  command->callback([&] { code = Up(options, workers); });

  static int grace = 30;
  command = app.add_subcommand(
      "down",
      "Stop them; jobs go on at the next up\n\n"
      "  ftctl down\n  ftctl down --grace 120   more time to store a step");
  command->group("Cluster");
  command->add_option("--grace", grace, "Seconds before they are killed")
      ->check(CLI::Range(0, 3600));
  command->callback([&] { code = Down(options, absl::Seconds(grace)); });

  command = app.add_subcommand(
      "version", "Which ftctl this is\n\n  ftctl version -o json");
  command->group("Cluster");
  command->callback([&] { code = PrintVersion(options); });

  static std::string shell;
  command = app.add_subcommand(
      "completion",
      "A script that lets a shell complete verbs and options\n\n  source "
      "<(ftctl completion bash)\n  ftctl completion fish > "
      "~/.config/fish/completions/ftctl.fish");
  command->group("Cluster");
  command->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback(
      [&app] { std::fputs(CompletionScript(app, shell).c_str(), stdout); });
}

}  // namespace ft
