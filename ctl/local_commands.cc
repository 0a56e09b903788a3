// SPDX-License-Identifier: Apache-2.0
//
// up, down, version, completion: what concerns this machine.

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/version.h"
#include "ctl/command.h"
#include "ctl/service.h"

namespace ft {
namespace {

void Say(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
}

constexpr char kVerbs[] =
    "up down check submit list get watch wait events logs cancel delete fetch "
    "chat workers model version completion";

int PrintCompletion(const std::string& shell) {
  if (shell == "bash") {
    std::printf("complete -W '%s' ftctl\n", kVerbs);
  } else if (shell == "zsh") {
    std::printf("#compdef ftctl\ncompadd -- %s\n", kVerbs);
  } else {
    std::printf("complete -c ftctl -f -a '%s'\n", kVerbs);
  }
  return 0;
}

}  // namespace

void AddLocalCommands(CLI::App& app, GlobalOptions&, int& code) {
  static int workers = 2;
  CLI::App* command = app.add_subcommand(
      "up",
      "Start a coordinator and workers on this machine, or revive what died\n\n"
      "  ftctl up --workers 2");
  command->group("Cluster");
  command->add_option("--workers", workers, "Workers of one slot each")
      ->check(CLI::Range(1, 256));
  command->callback([&code] {
    const absl::Status status = StartService(workers, Say);
    if (!status.ok()) {
      code = Fail(status);
      return;
    }
    Say(absl::StrCat("ready: a coordinator and ", workers, " workers"));
  });

  static int grace = 30;
  command = app.add_subcommand("down", "Stop them; jobs go on at the next up");
  command->group("Cluster");
  command->add_option("--grace", grace, "Seconds before they are killed")
      ->check(CLI::Range(0, 3600));
  command->callback([&code] {
    const absl::Status status = StopService(absl::Seconds(grace), Say);
    if (!status.ok()) code = Fail(status);
  });

  command = app.add_subcommand("version", "Which ftctl this is");
  command->group("Cluster");
  command->callback([] {
    std::printf("ftctl %s (%s)\n", std::string(Version()).c_str(),
                std::string(Revision()).c_str());
  });

  static std::string shell;
  command = app.add_subcommand(
      "completion",
      "Words for a shell to complete\n\n  source <(ftctl completion bash)");
  command->group("Cluster");
  command->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback([&code] { code = PrintCompletion(shell); });
}

}  // namespace ft
