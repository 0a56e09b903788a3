// SPDX-License-Identifier: Apache-2.0

#include "ctl/completion.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace ft {
namespace {

std::string OptionsOf(const CLI::App& app) {
  std::string words;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      absl::StrAppend(&words, " --", name);
    }
  }
  return words;
}

std::string VerbsOf(const CLI::App& app) {
  std::string words;
  for (const CLI::App* verb : app.get_subcommands({})) {
    absl::StrAppend(&words, words.empty() ? "" : " ", verb->get_name());
  }
  return words;
}

// Where no word fits, the shell completes file names.
std::string Bash(const CLI::App& app) {
  std::string cases;
  for (const CLI::App* verb : app.get_subcommands({})) {
    const std::string sub = VerbsOf(*verb);
    std::string words = absl::StrCat(sub, OptionsOf(*verb));
    for (const CLI::App* below : verb->get_subcommands({})) {
      words += OptionsOf(*below);
    }
    absl::StrAppend(&cases, "    ", verb->get_name(), ") words='", words,
                    OptionsOf(app), "' ;;\n");
  }
  return absl::StrCat(
      "_ftctl() {\n"
      "  local words current=${COMP_WORDS[COMP_CWORD]}\n"
      "  case ${COMP_WORDS[1]} in\n",
      cases, "    *) words='", VerbsOf(app), OptionsOf(app),
      "' ;;\n"
      "  esac\n"
      "  [ \"$COMP_CWORD\" -gt 1 ] || words='",
      VerbsOf(app), OptionsOf(app),
      "'\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "}\n"
      "complete -o default -F _ftctl ftctl\n");
}

std::string Fish(const CLI::App& app) {
  std::string script;
  for (const CLI::App* verb : app.get_subcommands({})) {
    const std::string description = verb->get_description();
    absl::StrAppend(
        &script, "complete -c ftctl -n __fish_use_subcommand -a ",
        verb->get_name(), " -d '",
        absl::StrReplaceAll(description.substr(0, description.find('\n')),
                            {{"'", "\\'"}}),
        "'\n");
    const std::string seen =
        absl::StrCat("'__fish_seen_subcommand_from ", verb->get_name(), "'");
    if (const std::string sub = VerbsOf(*verb); !sub.empty()) {
      absl::StrAppend(&script, "complete -c ftctl -n ", seen, " -a '", sub,
                      "'\n");
    }
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        absl::StrAppend(&script, "complete -c ftctl -n ", seen, " -l ", name,
                        "\n");
      }
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  if (shell == "fish") return Fish(app);
  if (shell == "zsh") {
    return absl::StrCat("autoload -U +X bashcompinit && bashcompinit\n",
                        Bash(app));
  }
  return Bash(app);
}

}  // namespace ft
