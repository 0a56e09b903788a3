// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/soak_report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file.h"
#include "common/status.h"
#include "common/version.h"

namespace ft::testing {
namespace {

using nlohmann::json;

json KillJson(const KillRecord& kill) {
  json value = {{"number", kill.number},
                {"at_seconds", absl::ToDoubleSeconds(kill.at)},
                {"victim", VictimName(kill.victim)}};
  if (!kill.failpoint.empty()) value["failpoint"] = kill.failpoint;
  if (!kill.who.empty()) value["who"] = kill.who;
  return value;
}

std::map<std::string, int> KillsByVictim(
    const std::vector<KillRecord>& history) {
  std::map<std::string, int> kills;
  for (const KillRecord& kill : history) {
    ++kills[VictimName(kill.victim)];
    if (!kill.failpoint.empty()) ++kills["at failpoints"];
  }
  return kills;
}

std::string ListOf(const std::map<std::string, int>& counts) {
  std::string text;
  for (const auto& [name, count] : counts) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", count, " ", name);
  }
  return text;
}

}  // namespace

std::string SoakReport::ReplayCommand() const {
  return absl::StrCat("make soak KILLS=", kills_wanted, " SEED=", seed);
}

std::string SoakReport::Json() const {
  json value = {{"revision", std::string(Revision())},
                {"kills_wanted", kills_wanted},
                {"seed", seed},
                {"replay", ReplayCommand()},
                {"passed", passed()},
                {"seconds", absl::ToDoubleSeconds(took)},
                {"violations", violations},
                {"kills", KillsByVictim(history)},
                {"jobs_submitted", submitted},
                {"submitted_twice", submitted_twice},
                {"jobs_by_state", outcomes},
                {"attempts", attempts},
                {"attempts_by_cause", causes},
                {"events", events},
                {"events_told", told_events},
                {"steps", steps_stored},
                {"steps_taken_again", steps_taken_again},
                {"blobs", blobs},
                {"daemon_lives", lives}};
  for (const auto& [name, counts] : points) {
    value["failpoints"][name] = {{"passed", counts.first},
                                 {"killed", counts.second}};
  }
  for (const auto& [name, growth] : memory) {
    value["memory"][name] = {
        {"watched_seconds", absl::ToDoubleSeconds(growth.watched)},
        {"first_bytes", growth.first_bytes},
        {"last_bytes", growth.last_bytes},
        {"growth", growth.ratio()}};
  }
  for (const KillRecord& kill : history) {
    value["history"].push_back(KillJson(kill));
  }
  return value.dump(1) + "\n";
}

std::string SoakReport::Markdown() const {
  std::string text = absl::StrFormat(
      "# Kill soak: %d kills, seed %d: %s\n\n"
      "`%s` at revision %s, %.0f s.\n\n",
      history.size(), seed, passed() ? "passed" : "FAILED", ReplayCommand(),
      std::string(Revision()), absl::ToDoubleSeconds(took));
  for (const std::string& violation : violations) {
    absl::StrAppend(&text, "- **", violation, "**\n");
  }
  if (!violations.empty()) text += "\n";
  int64_t reached = 0, killed = 0;
  for (const auto& [name, counts] : points) {
    reached += counts.first > 0;
    killed += counts.second > 0;
  }
  absl::StrAppendFormat(&text,
                        "| | |\n|---|---|\n"
                        "| kills | %s |\n"
                        "| failpoints | %d; %d passed, %d killed at |\n"
                        "| jobs | %d (%s), %d asked for twice |\n"
                        "| attempts | %d (%s) |\n"
                        "| events | %d stored, %d told to watchers |\n"
                        "| steps | %d stored, %d taken again |\n"
                        "| daemons started | %s |\n\n",
                        ListOf(KillsByVictim(history)), points.size(), reached,
                        killed, submitted, ListOf(outcomes), submitted_twice,
                        attempts, ListOf(causes), events, told_events,
                        steps_stored, steps_taken_again, ListOf(lives));
  text +=
      "Memory in the second half of each daemon's last life:\n\n"
      "| daemon | watched | from | to | growth |\n|---|---|---|---|---|\n";
  for (const auto& [name, growth] : memory) {
    absl::StrAppendFormat(&text,
                          "| %s | %.0f s | %.1f MiB | %.1f MiB | %.1f %% |\n",
                          name, absl::ToDoubleSeconds(growth.watched),
                          static_cast<double>(growth.first_bytes) / 1048576.0,
                          static_cast<double>(growth.last_bytes) / 1048576.0,
                          100 * growth.ratio());
  }
  text += "\n| failpoint | passed | killed |\n|---|---|---|\n";
  for (const auto& [name, counts] : points) {
    absl::StrAppend(&text, "| ", name, " | ", counts.first, " | ",
                    counts.second, " |\n");
  }
  return text;
}

absl::Status WriteReport(const SoakReport& report, const std::string& prefix) {
  FT_RETURN_IF_ERROR(MakeDirs(DirName(prefix)));
  FT_RETURN_IF_ERROR(WriteFileAtomic(prefix + ".json", report.Json()));
  return WriteFileAtomic(prefix + ".md", report.Markdown());
}

}  // namespace ft::testing
