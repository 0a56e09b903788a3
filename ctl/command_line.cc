// SPDX-License-Identifier: Apache-2.0

#include "ctl/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/version.h"
#include "jobspec/suggest.h"

namespace ft {
namespace {

// "" or what is wrong, as CLI11 wants it.
std::string CheckAddress(const std::string& text) {
  return std::string(ParseLoopbackAddress(text).status().message());
}

// "; did you mean ..." for a word that no verb or option has.
std::string DidYouMean(const CLI::App& app) {
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  if (rest.empty()) return "";
  std::vector<std::string> words;
  const std::string& given = rest[0];
  const std::string prefix = absl::StartsWith(given, "--") ? "--" : "";
  const auto add_options = [&](const CLI::App& of) {
    for (const CLI::Option* option : of.get_options()) {
      for (const std::string& name : option->get_lnames()) {
        words.push_back(prefix + name);
      }
    }
  };
  const CLI::App* verb = &app;
  while (!verb->get_subcommands().empty()) verb = verb->get_subcommands()[0];
  if (!prefix.empty()) {
    add_options(app);
    add_options(*verb);
  } else {
    for (const CLI::App* sub : verb->get_subcommands({})) {
      words.push_back(sub->get_name());
    }
  }
  const std::string nearest = Nearest(given, words);
  return nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?");
}

// What stands after the first paragraph of a verb's description is its
// examples: shown by its own help, left out of the overview.
void MoveExamples(CLI::App& app) {
  for (CLI::App* verb : app.get_subcommands({})) {
    const std::string text = verb->get_description();
    const size_t end = text.find("\n\n");
    if (end != std::string::npos) {
      verb->description(text.substr(0, end));
      verb->footer(absl::StrCat("Examples:\n", text.substr(end + 2)));
    }
    MoveExamples(*verb);
  }
}

}  // namespace

std::unique_ptr<CLI::App> MakeCommandLine(GlobalOptions& options, int& code) {
  auto app = std::make_unique<CLI::App>(
      "Fine-tune language models on your cluster.\n\n"
      "  ftctl up --workers 2             a service on this machine\n"
      "  ftctl submit job.yaml --watch    queue a job and follow its loss\n"
      "  ftctl fetch JOB out/             download the adapter\n"
      "  ftctl chat --job JOB \"Hi\"        try it",
      "ftctl");
  app->require_subcommand(1);
  app->option_defaults()->always_capture_default();
  app->fallthrough();
  app->set_version_flag(
      "--version", absl::StrCat("ftctl ", Version(), " (", Revision(), ")"));
  app->footer(
      "Exit codes: 0 ok  1 error  2 usage  3 invalid job  4 not found  5 "
      "denied\n  6 conflict  7 unavailable  8 timeout  9 does not fit  10 job "
      "failed\n  11 cancelled  12 held");
  app->add_option("--address", options.address,
                  "HOST:PORT of a coordinator; default: that of ftctl up")
      ->envname("FTCTL_ADDRESS")
      ->check(CLI::Validator(&CheckAddress, ""));
  app->add_option("--token_file", options.token_file,
                  "File with the token; default: that of ftctl up")
      ->envname("FTCTL_TOKEN_FILE");
  app->add_option("-o,--output", options.output, "table, json, yaml or name")
      ->check(CLI::IsMember({"table", "json", "yaml", "name"}));
  app->add_flag("--no-headers", options.no_headers, "Tables without a header");
  AddJobCommands(*app, options, code);
  AddResultCommands(*app, options, code);
  AddLocalCommands(*app, options, code);
  MoveExamples(*app);
  return app;
}

int RunCommandLine(int argc, const char* const* argv) {
  GlobalOptions options;
  int code = 0;
  const std::unique_ptr<CLI::App> app = MakeCommandLine(options, code);
  if (argc < 2) {
    std::fputs(app->help().c_str(), stderr);
    return 2;
  }
  try {
    app->parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    app->exit(asked);
    return 0;
  } catch (const CLI::ParseError& error) {
    const std::vector<std::string> rest = app->remaining(/*recurse=*/true);
    const bool is_unknown_verb =
        app->get_subcommands().empty() && !rest.empty();
    std::fprintf(stderr, "%s%s\nRun with --help for more information.\n",
                 is_unknown_verb
                     ? absl::StrCat("ftctl has no ", rest[0]).c_str()
                     : error.what(),
                 DidYouMean(*app).c_str());
    return 2;
  }
  return code;
}

}  // namespace ft
