// SPDX-License-Identifier: Apache-2.0
//
// ftctl: the user's command line.

#include <CLI/CLI.hpp>

#include "ctl/command.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Fine-tune language models on your cluster.\n\n"
      "  ftctl up --workers 2             a service on this machine\n"
      "  ftctl submit job.yaml --watch    queue a job and follow its loss\n"
      "  ftctl fetch JOB out/             download the adapter\n"
      "  ftctl chat --job JOB \"Hi\"        try it");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 ok  1 error  2 usage  3 invalid job  4 not found  5 "
      "denied\n  6 conflict  7 unavailable  8 timeout  10 job failed  11 "
      "cancelled");
  ft::GlobalOptions options;
  app.add_option("--address", options.address,
                 "HOST:PORT of a coordinator ($FTCTL_ADDRESS)");
  app.add_option("--token_file", options.token_file,
                 "File with the token ($FTCTL_TOKEN_FILE)");
  app.add_option("-o,--output", options.output, "table, json, yaml or name")
      ->check(CLI::IsMember({"table", "json", "yaml", "name"}));
  app.add_flag("--no-headers", options.no_headers, "Tables without a header");
  int code = 0;
  ft::AddJobCommands(app, options, code);
  ft::AddResultCommands(app, options, code);
  ft::AddLocalCommands(app, options, code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return code;
}
