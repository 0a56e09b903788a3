// SPDX-License-Identifier: Apache-2.0

#include "jobspec/plan_job.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/bytes.h"

namespace ft {
namespace {

constexpr int kMostRanks = 1024;

// A job file, and what its rungs lead to.
class Planner {
 public:
  Planner(v1::JobSpec spec, const ModelShape& model, const PlanOptions& options)
      : job_(std::move(spec), model, options),
        spec_(job_.spec()),
        model_(model),
        options_(options) {}

  absl::StatusOr<JobPlan> Plan();

 private:
  std::vector<PlanLimit> Limits(const MemoryPlan& memory, int ranks) const;
  bool Fits(const MemoryPlan& memory, int ranks) const;
  // How many times what is there the dearest limit needs.
  double Excess(const MemoryPlan& memory, int ranks) const;
  PlanProposal Proposal(const Levels& levels, int ranks) const;

  std::vector<Levels> AllLevels(int ranks) const;
  std::optional<PlanProposal> Best(int dearest) const;
  std::optional<PlanProposal> MoreRanks(int most_dear) const;
  void Propose(JobPlan& plan) const;

  void AddDisk(JobPlan& plan) const;
  void AddArithmetic(JobPlan& plan) const;
  void AddNotes(JobPlan& plan) const;

  JobQuestion job_;
  const v1::JobSpec& spec_;  // Of job_.
  const ModelShape& model_;
  const PlanOptions& options_;
};

std::vector<PlanLimit> Planner::Limits(const MemoryPlan& memory,
                                       int ranks) const {
  std::vector<PlanLimit> limits;
  if (options_.device_memory.has_value()) {
    limits.push_back({"device memory of a rank", memory.device_bytes,
                      static_cast<double>(*options_.device_memory)});
  }
  const bool is_given = options_.host_memory.has_value();
  if (is_given) {
    const double shared = memory.host_shared_bytes;
    limits.push_back({"host memory of all ranks",
                      ranks * (memory.host_bytes - shared) + shared,
                      static_cast<double>(*options_.host_memory)});
  }
  if (const auto bytes = ParseBytes(spec_.resources().memory_per_rank());
      bytes.ok()) {
    limits.push_back({"resources.memory_per_rank", memory.host_bytes,
                      static_cast<double>(*bytes)});
  } else if (!is_given && options_.device_memory.has_value() &&
             memory.HostBytes("optimizer") > 0) {
    // A host has as much as its devices at least; more must be said.
    limits.push_back({"host memory of a rank, taken to be that of its device",
                      memory.host_bytes,
                      static_cast<double>(*options_.device_memory)});
  }
  return limits;
}

double Planner::Excess(const MemoryPlan& memory, int ranks) const {
  double excess = 0;
  for (const PlanLimit& limit : Limits(memory, ranks)) {
    excess = std::max(excess, limit.needed / limit.available);
  }
  return excess;
}

bool Planner::Fits(const MemoryPlan& memory, int ranks) const {
  return Excess(memory, ranks) <= 1;
}

PlanProposal Planner::Proposal(const Levels& levels, int ranks) const {
  const MemoryPlan memory = PlanMemory(job_.At(levels, ranks));
  return {.changes = job_.Changes(levels, ranks),
          .device_bytes = job_.on_device() ? memory.device_bytes : 0,
          .host_bytes = memory.host_bytes,
          .ranks = ranks,
          .fits = Fits(memory, ranks)};
}

// The dearest rung that is climbed; -1: none.
int Dearest(const Levels& levels) {
  int dearest = -1;
  for (int rung = 0; rung < kRungs; ++rung) {
    if (levels[rung] > 0) dearest = rung;
  }
  return dearest;
}

// Every combination, the cheapest first: a dear rung is climbed only where all
// that is cheaper does not help.
std::vector<Levels> Planner::AllLevels(int ranks) const {
  std::vector<Levels> all = {Levels{}};
  for (int rung = 0; rung < kRungs; ++rung) {
    const size_t below = all.size();
    for (int level = 1; level <= job_.Height(rung, ranks); ++level) {
      for (size_t i = 0; i < below; ++i) {
        Levels higher = all[i];
        higher[rung] = level;
        all.push_back(higher);
      }
    }
  }
  std::erase_if(all,
                [&](const Levels& levels) { return !job_.IsAllowed(levels); });
  return all;
}

// The best of those whose dearest rung is this: the first that fits, else the
// one that needs the least.
std::optional<PlanProposal> Planner::Best(int dearest) const {
  std::optional<Levels> best;
  double least = 0;
  for (const Levels& levels : AllLevels(job_.ranks())) {
    if (Dearest(levels) != dearest) continue;
    const double excess =
        Excess(PlanMemory(job_.At(levels, job_.ranks())), job_.ranks());
    if (!best.has_value() || excess < least) {
      best = levels;
      least = excess;
    }
    if (excess <= 1) break;
  }
  if (!best.has_value()) return std::nullopt;
  return Proposal(*best, job_.ranks());
}

// The fewest ranks, doubled again and again, with which a combination whose
// dearest rung is at most `most_dear` fits.
std::optional<PlanProposal> Planner::MoreRanks(int most_dear) const {
  for (int ranks = 2 * job_.ranks(); ranks <= kMostRanks; ranks *= 2) {
    for (const Levels& levels : AllLevels(ranks)) {
      if (Dearest(levels) > most_dear) break;  // They are sorted by it.
      if (Fits(PlanMemory(job_.At(levels, ranks)), ranks)) {
        return Proposal(levels, ranks);
      }
    }
  }
  return std::nullopt;
}

void Planner::Propose(JobPlan& plan) const {
  const auto fits_here = [&](const PlanProposal& proposal) {
    return proposal.fits && proposal.ranks == job_.ranks();
  };
  for (int rung = 0; rung < kRungs; ++rung) {
    if (auto best = Best(rung); best.has_value()) {
      plan.proposals.push_back(*std::move(best));
    }
    // More devices keep the method; another method keeps the devices.
    if (rung == kOffload && job_.on_device() &&
        std::none_of(plan.proposals.begin(), plan.proposals.end(), fits_here)) {
      if (auto more = MoreRanks(kOffload); more.has_value()) {
        plan.proposals.push_back(*std::move(more));
      }
    }
  }
  const auto is_fit = [](const PlanProposal& each) { return each.fits; };
  std::vector<PlanProposal>& all = plan.proposals;
  if (job_.on_device() && std::none_of(all.begin(), all.end(), is_fit)) {
    if (auto more = MoreRanks(kNf4); more.has_value()) {
      all.push_back(*std::move(more));
    }
  }
  const bool may_offload =
      std::any_of(all.begin(), all.end(), [](const PlanProposal& each) {
        return std::any_of(each.changes.begin(), each.changes.end(),
                           [](const PlanChange& change) {
                             return change.key == "parallelism.offload";
                           });
      });
  if (may_offload && !options_.host_memory.has_value() &&
      spec_.resources().memory_per_rank().empty()) {
    plan.notes.push_back(
        "for offload a rank is taken to have as much memory on its host as on "
        "its device; --host-memory SIZE says how much there is");
  }
  auto found = std::find_if(all.begin(), all.end(), fits_here);
  if (found == all.end()) found = std::find_if(all.begin(), all.end(), is_fit);
  if (found != all.end()) {
    plan.proposal = static_cast<size_t>(found - all.begin());
  } else if (!all.empty()) {
    const auto bytes = [&](const PlanProposal& each) {
      return job_.on_device() ? each.device_bytes : each.host_bytes;
    };
    plan.nearest = static_cast<size_t>(
        std::min_element(all.begin(), all.end(),
                         [&](const PlanProposal& a, const PlanProposal& b) {
                           return bytes(a) < bytes(b);
                         }) -
        all.begin());
  }
}

// Bytes a weight of a GGUF type: "Q4_K_M" has four bits and its scales. 0: not
// known.
double GgufBytes(absl::string_view type) {
  const std::string upper = absl::AsciiStrToUpper(type);
  if (upper == "F32") return 4;
  if (upper == "F16" || upper == "BF16") return 2;
  if (upper.size() >= 2 && upper[0] == 'Q' && upper[1] >= '2' &&
      upper[1] <= '8') {
    return (upper[1] - '0' + 0.5) / 8;
  }
  return 0;
}

void Planner::AddDisk(JobPlan& plan) const {
  const double t = static_cast<double>(plan.memory.trainable);
  const double all = static_cast<double>(plan.memory.parameters);
  const double element = model_.dtype == DType::kF32 ? 4 : 2;
  const auto add = [&](const char* name, std::string what, double bytes) {
    if (bytes > 0) plan.disk_terms.push_back({name, std::move(what), bytes});
  };
  const v1::Keep& keep = spec_.checkpointing().keep();
  const int best = keep.has_best() ? std::max(1, keep.best().n()) : 0;
  // One more is written before the oldest goes.
  const int checkpoints = keep.last() + best + 1;
  add("checkpoints", absl::StrCat(checkpoints, " of fp32 weights and moments"),
      checkpoints * (4 + plan.question.moment_bytes) * t);
  if (LearnsWholeBlocks(spec_)) {
    add("result", "the model", element * all);
  } else {
    add("result", "the adapter, fp32", 4 * t);
  }
  if (spec_.export_().merged()) add("merged model", "", element * all);
  add("GGUF", spec_.export_().gguf(), GgufBytes(spec_.export_().gguf()) * all);
  add("base model", "of each worker", element * all);
  for (const MemoryTerm& term : plan.disk_terms) plan.disk_bytes += term.bytes;
}

// Multiply-adds count as two. Frozen weights have no gradient of their own:
// forward and the way back through them, but not dW.
void Planner::AddArithmetic(JobPlan& plan) const {
  const double layers = static_cast<double>(model_.num_layers);
  const double blocks = layers * static_cast<double>(model_.LinearsOfBlock());
  const double head = static_cast<double>(model_.Embedding());
  const double attention = layers * static_cast<double>(model_.q_features()) *
                           static_cast<double>(job_.longest());
  double flop = 0;
  if (spec_.adaptation().has_full()) {
    flop = 6 * (blocks + head) + 6 * attention;
  } else if (spec_.adaptation().has_freeze()) {
    const int64_t last = spec_.adaptation().freeze().last_blocks();
    const double learning =
        std::min<double>(layers, std::abs(static_cast<double>(last))) / layers;
    const double reached = last > 0 ? learning : 1;
    flop = 2 * (blocks + head) + 2 * head + 2 * attention +
           2 * (learning + reached) * blocks + 4 * reached * attention;
  } else {
    flop = 4 * (blocks + head) +
           6 * static_cast<double>(plan.memory.trainable) + 6 * attention;
  }
  if (plan.question.recomputes_blocks) flop += 2 * blocks + 2 * attention;
  plan.gflop_per_token = flop / 1e9;

  if (!options_.tokens_per_second.has_value()) return;
  const double tokens = static_cast<double>(spec_.batch().sequences()) *
                        static_cast<double>(job_.longest()) *
                        (job_.IsPairs() ? 2 : 1);
  plan.step_seconds = tokens / *options_.tokens_per_second;
  if (spec_.schedule().has_steps()) {
    plan.total_seconds =
        *plan.step_seconds * static_cast<double>(spec_.schedule().steps());
  }
}

void Planner::AddNotes(JobPlan& plan) const {
  if (!model_.why_not_trained.empty()) {
    plan.notes.push_back(
        absl::StrCat("the model is planned, but this version cannot train it: ",
                     model_.why_not_trained));
  }
  if (job_.longest() > model_.max_position) {
    plan.notes.push_back(absl::StrCat(
        "data.cutoff_len: ", job_.longest(), " tokens, the model was made for ",
        model_.max_position, "; lower it to cut them"));
  }
  if (!options_.longest.has_value()) {
    plan.notes.push_back(absl::StrCat(
        "every example is taken to have data.cutoff_len = ", job_.longest(),
        " tokens; ftctl check says how long they are, --longest N plans for "
        "that"));
  }
  if (!spec_.export_().gguf().empty() &&
      GgufBytes(spec_.export_().gguf()) == 0) {
    plan.notes.push_back(absl::StrCat("export.gguf: the size of ",
                                      spec_.export_().gguf().substr(0, 40),
                                      " is not known"));
  }
  if (job_.on_device() && !options_.device_memory.has_value()) {
    plan.notes.push_back(
        "no device is known to compare with; say --device-memory SIZE");
  }
  if (!job_.on_device() && plan.limits.empty()) {
    plan.notes.push_back(
        "no memory is known to compare with; say --host-memory SIZE");
  }
}

absl::StatusOr<JobPlan> Planner::Plan() {
  if (const std::vector<std::string> faults = job_.Faults(); !faults.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(faults, "\n"));
  }

  JobPlan plan;
  const auto fits = [&] {
    return Fits(PlanMemory(job_.At(Levels{}, job_.ranks())), job_.ranks());
  };
  if (spec_.model().recompute() == v1::RECOMPUTE_AUTO) {
    const bool fits_without = job_.IsAllowed(Levels{}) && fits();
    if (!fits_without) job_.RecomputeBlocks();
    plan.notes.push_back(absl::StrCat("model.recompute: auto becomes ",
                                      fits_without ? "none" : "block"));
  }
  if (job_.is_moved_to_devices()) {
    plan.notes.push_back(absl::StrCat(
        "the job file asks for CPU ranks; planned for ", job_.ranks(),
        job_.ranks() == 1 ? " device" : " devices", " instead"));
  }
  plan.question = job_.At(Levels{}, job_.ranks());
  plan.memory = PlanMemory(plan.question);
  plan.job = spec_.name();
  plan.family = model_.family;
  plan.can_be_trained = model_.why_not_trained.empty();
  plan.method = job_.Method();
  plan.ranks = job_.ranks();
  plan.on_device = job_.on_device();
  plan.zero_stage = spec_.parallelism().zero_stage();
  plan.micro = job_.Micro(0);
  plan.longest = job_.longest();
  plan.limits = Limits(plan.memory, job_.ranks());
  if (!plan.limits.empty()) plan.fits = fits();
  AddDisk(plan);
  AddArithmetic(plan);
  AddNotes(plan);
  if (plan.fits == false) Propose(plan);
  return plan;
}

}  // namespace

absl::StatusOr<JobPlan> PlanJob(v1::JobSpec spec, const ModelShape& model,
                                const PlanOptions& options) {
  return Planner(std::move(spec), model, options).Plan();
}

}  // namespace ft
