// SPDX-License-Identifier: Apache-2.0

#include "jobspec/plan_text.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace ft {
namespace {

constexpr double kMiB = 1 << 20;
constexpr double kGiB = 1 << 30;

std::string Amount(double bytes) {
  return bytes >= 0.1 * kGiB ? absl::StrFormat("%.2f GiB", bytes / kGiB)
                             : absl::StrFormat("%.1f MiB", bytes / kMiB);
}

// 65285660672 -> "65,285,660,672".
std::string Grouped(int64_t number) {
  std::string text = absl::StrCat(number);
  for (size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, 1, ',');
  return text;
}

std::string Seconds(double seconds) {
  if (seconds < 120) return absl::StrFormat("%.3g s", seconds);
  if (seconds < 7200) return absl::StrFormat("%.3g min", seconds / 60);
  return absl::StrFormat("%.3g h", seconds / 3600);
}

void AppendTerm(std::string& text, const std::string& name, double bytes,
                const std::string& what) {
  const std::string line =
      absl::StrFormat("  %-14s%12s  %s", name, Amount(bytes), what);
  absl::StrAppend(&text, line.substr(0, line.find_last_not_of(' ') + 1), "\n");
}

void AppendTerms(std::string& text, const std::vector<MemoryTerm>& terms) {
  for (const MemoryTerm& term : terms) {
    AppendTerm(text, term.name, term.bytes, term.what);
  }
}

void AppendVerdict(std::string& text, const JobPlan& plan) {
  absl::StrAppend(&text, plan.job, ": ",
                  !plan.fits.has_value() ? "nothing to compare with"
                  : *plan.fits           ? "fits"
                                         : "does not fit",
                  "\n");
  for (const PlanLimit& limit : plan.limits) {
    absl::StrAppend(
        &text, "  ", limit.what, ": ", Amount(limit.needed), " of ",
        Amount(limit.available),
        limit.fits()
            ? ""
            : absl::StrCat(", ", Amount(limit.needed - limit.available),
                           " too much"),
        "\n");
  }
}

void AppendJob(std::string& text, const JobPlan& plan) {
  const MemoryQuestion& q = plan.question;
  const std::string ranks = absl::StrCat(
      plan.ranks, plan.on_device ? " device" : " CPU rank",
      plan.ranks == 1 ? "" : "s", ", ZeRO stage ", plan.zero_stage);
  const auto add = [&](const char* name, const std::string& what) {
    absl::StrAppend(&text, absl::StrFormat("%-13s", name), what, "\n");
  };
  text += "\n";
  add("model",
      absl::StrCat(plan.family, ", ", Grouped(plan.memory.parameters),
                   " parameters, ", Grouped(plan.memory.trainable), " learn"));
  add("method", plan.method);
  add("ranks", ranks);
  add("micro-batch",
      absl::StrCat(
          q.tokens, " tokens at most: ", plan.micro, " x ", plan.longest,
          q.recomputes_blocks ? "; each block is computed again"
                              : "; the activations of each block are kept"));
  add("loss", absl::StrCat(q.loss_chunk, " rows of logits at once"));
  std::string time =
      absl::StrFormat("%.3g GFLOP a token", plan.gflop_per_token);
  if (plan.step_seconds.has_value()) {
    absl::StrAppend(&time, "; ", Seconds(*plan.step_seconds),
                    " a step at most; the whole job ",
                    plan.total_seconds.has_value()
                        ? Seconds(*plan.total_seconds)
                        : "unknown: schedule.steps is not given");
  } else {
    time += "; time unknown: no --tokens-per-second";
  }
  add("arithmetic", time);
}

void AppendLedger(std::string& text, const JobPlan& plan) {
  const MemoryPlan& memory = plan.memory;
  absl::StrAppend(&text, "\n",
                  plan.on_device ? "device memory of a rank\n"
                                 : "memory of a rank at its peak\n");
  AppendTerms(text, memory.terms);
  AppendTerm(text, "allocator", memory.peak_bytes * (1 - 1 / kAllocatorMargin),
             "what it rounds up, 3 %");
  if (plan.on_device) {
    AppendTerm(text, "context", kDeviceContextBytes, "of the device");
  }
  AppendTerm(text, "all", memory.device_bytes,
             absl::StrCat("the peak: ", memory.peak_at));
  text += "\nhost memory of a rank\n";
  AppendTerms(text, memory.host_terms);
  AppendTerm(text, "all", memory.host_bytes,
             memory.host_shared_bytes > 0
                 ? absl::StrCat(Amount(memory.host_shared_bytes),
                                " of it shared by the ranks of a machine")
                 : "");
  text += "\ndisk\n";
  AppendTerms(text, plan.disk_terms);
  AppendTerm(text, "all", plan.disk_bytes, "");
}

std::string ChangesText(const PlanProposal& proposal) {
  return absl::StrJoin(proposal.changes, ", ",
                       [](std::string* out, const PlanChange& change) {
                         absl::StrAppend(out, change.key, ": ", change.value);
                       });
}

void AppendProposals(std::string& text, const JobPlan& plan) {
  if (plan.fits != false) return;
  text += "\nwhat would make it fit, the cheapest first\n";
  for (const PlanProposal& proposal : plan.proposals) {
    absl::StrAppend(
        &text, "  ", proposal.fits ? "fits    " : "too much",
        absl::StrFormat("%12s", Amount(plan.on_device ? proposal.device_bytes
                                                      : proposal.host_bytes)),
        plan.on_device
            ? absl::StrFormat("  host%12s", Amount(proposal.host_bytes))
            : "",
        "  ", ChangesText(proposal), "\n");
  }
  const std::optional<size_t> index =
      plan.proposal.has_value() ? plan.proposal : plan.nearest;
  if (!index.has_value()) {
    text +=
        "\nnothing is left to change: it needs more memory, fewer tokens "
        "(data.cutoff_len) or a smaller model\n";
    return;
  }
  const PlanProposal& chosen = plan.proposals[*index];
  if (plan.proposal.has_value()) {
    text += "\nproposal: write\n";
  } else {
    absl::StrAppend(
        &text, "\nnothing fits. The nearest needs ",
        Amount(plan.on_device ? chosen.device_bytes : chosen.host_bytes),
        plan.on_device ? " of a device" : " a rank",
        "; fewer tokens (data.cutoff_len) need less. It is\n");
  }
  for (const PlanChange& change : chosen.changes) {
    absl::StrAppend(&text, "  ", change.key, ": ", change.value, "\n");
  }
}

void AppendNotes(std::string& text, const JobPlan& plan) {
  if (!plan.notes.empty()) text += "\nnotes\n";
  for (const std::string& note : plan.notes) {
    absl::StrAppend(&text, "  ", note, "\n");
  }
  if (!plan.not_yet.empty()) {
    text += "\nplanned, but this version cannot run it\n";
  }
  for (const std::string& line : plan.not_yet) {
    absl::StrAppend(&text, "  ", line, "\n");
  }
}

int64_t Whole(double bytes) { return std::llround(bytes); }

nlohmann::ordered_json TermsJson(const std::vector<MemoryTerm>& terms) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const MemoryTerm& term : terms) {
    json.push_back({{"term", term.name},
                    {"bytes", Whole(term.bytes)},
                    {"what", term.what}});
  }
  return json;
}

nlohmann::ordered_json ProposalJson(const PlanProposal& proposal) {
  nlohmann::ordered_json changes = nlohmann::ordered_json::object();
  for (const PlanChange& change : proposal.changes) {
    changes[change.key] = change.value;
  }
  return {{"fits", proposal.fits},
          {"changes", changes},
          {"device_bytes", Whole(proposal.device_bytes)},
          {"host_bytes", Whole(proposal.host_bytes)},
          {"ranks", proposal.ranks}};
}

template <typename Value>
nlohmann::ordered_json OrNull(const std::optional<Value>& value) {
  return value.has_value() ? nlohmann::ordered_json(*value)
                           : nlohmann::ordered_json(nullptr);
}

}  // namespace

std::string PlanText(const JobPlan& plan) {
  std::string text;
  AppendVerdict(text, plan);
  AppendJob(text, plan);
  AppendLedger(text, plan);
  AppendProposals(text, plan);
  AppendNotes(text, plan);
  return text;
}

nlohmann::ordered_json PlanJson(const JobPlan& plan) {
  using Json = nlohmann::ordered_json;
  Json limits = Json::array();
  for (const PlanLimit& limit : plan.limits) {
    limits.push_back({{"what", limit.what},
                      {"needed", Whole(limit.needed)},
                      {"available", Whole(limit.available)},
                      {"fits", limit.fits()}});
  }
  Json proposals = Json::array();
  for (const PlanProposal& proposal : plan.proposals) {
    proposals.push_back(ProposalJson(proposal));
  }
  const auto chosen = [&](const std::optional<size_t>& index) {
    return index.has_value() ? ProposalJson(plan.proposals[*index])
                             : Json(nullptr);
  };
  const MemoryPlan& memory = plan.memory;
  return {{"job", plan.job},
          {"fits", OrNull(plan.fits)},
          {"limits", limits},
          {"model",
           {{"family", plan.family},
            {"parameters", memory.parameters},
            {"trainable", memory.trainable},
            {"method", plan.method},
            {"can_be_trained", plan.can_be_trained}}},
          {"ranks", plan.ranks},
          {"on_device", plan.on_device},
          {"zero_stage", plan.zero_stage},
          {"tokens_per_micro_batch", plan.question.tokens},
          {"loss_chunk_rows", plan.question.loss_chunk},
          {"ledger", TermsJson(memory.terms)},
          {"peak",
           {{"bytes", Whole(memory.peak_bytes)},
            {"at", memory.peak_at},
            {"allocator_margin", kAllocatorMargin}}},
          {"device_bytes", plan.on_device ? Whole(memory.device_bytes) : 0},
          {"host",
           {{"bytes", Whole(memory.host_bytes)},
            {"shared_bytes", Whole(memory.host_shared_bytes)},
            {"ledger", TermsJson(memory.host_terms)}}},
          {"disk",
           {{"bytes", Whole(plan.disk_bytes)},
            {"ledger", TermsJson(plan.disk_terms)}}},
          {"gflop_per_token", plan.gflop_per_token},
          {"step_seconds", OrNull(plan.step_seconds)},
          {"total_seconds", OrNull(plan.total_seconds)},
          {"proposals", proposals},
          {"proposal", chosen(plan.proposal)},
          {"nearest", chosen(plan.nearest)},
          {"notes", plan.notes},
          {"not_yet", plan.not_yet}};
}

}  // namespace ft
