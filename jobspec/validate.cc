// SPDX-License-Identifier: Apache-2.0

#include "jobspec/validate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/digest.h"
#include "common/id.h"

namespace ft {
namespace {

// Not negative, and not NaN or infinite, which a message can hold.
bool IsMagnitude(double value) { return value >= 0 && std::isfinite(value); }

class Validator {
 public:
  Validator(const v1::JobSpec& spec, SpecOrigin origin, Violations& violations)
      : spec_(spec), origin_(origin), violations_(violations) {
    for (const Violation& violation : violations.list()) {
      was_refused_.insert(violation.field);
    }
  }

  void Run() {
    Job();
    Model();
    Data();
    Stage();
    Adaptation();
    Quantization();
    Optimizer();
    Schedule();
    Batch();
    Execution();
    Resources();
    Checkpointing();
    Evaluation();
    Export();
    Faults();
  }

 private:
  void Wrong(absl::string_view field, absl::string_view what) {
    // What the reader said of a value that it could not take is more precise.
    if (!was_refused_.contains(field)) violations_.Add(field, what);
  }
  void Require(bool given, absl::string_view field, absl::string_view example) {
    if (!given) {
      Wrong(field, absl::StrCat("is missing; write for example ", example));
    }
  }
  void NotYet(bool is_default, absl::string_view field,
              absl::string_view instead) {
    if (!is_default && !was_refused_.contains(field)) {
      violations_.AddNotYet(field,
                            absl::StrCat("is not supported yet; ", instead));
    }
  }
  // The same of one word of many.
  void WordNotYet(bool is_known, absl::string_view field,
                  absl::string_view word, absl::string_view instead) {
    if (!is_known && !was_refused_.contains(field)) {
      violations_.AddNotYet(field,
                            absl::StrCat("\"", word.substr(0, 40),
                                         "\" is not supported yet; ", instead));
    }
  }
  // 0 is "unset" where a default exists.
  template <typename Number>
  void InRange(Number value, Number low, Number high, absl::string_view field) {
    if (value < low || value > high) {
      Wrong(field, absl::StrCat(value, " is not in [", low, ", ", high, "]"));
    }
  }
  void MinOfRange(const v1::IntRange& range, absl::string_view field) {
    // N stands for both, and is told by its own rule.
    if (range.min() == range.max()) return;
    if (range.min() < 0 || range.min() > std::max(0, range.max())) {
      Wrong(field, absl::StrCat("min ", range.min(), " is not in [0, max]"));
    }
  }
  void Label(const std::string& value, absl::string_view field) {
    if (!value.empty() && !IsLabel(value)) {
      Wrong(field, absl::StrCat("\"", value.substr(0, 80),
                                "\" is no name; use a-z, 0-9 and -, at most "
                                "63 characters"));
    }
  }

  void Job();
  void Model();
  void Data();
  void Dataset(const v1::Dataset& dataset, const std::string& path);
  void Validation();
  void Stage();
  void Adaptation();
  void Quantization();
  void Optimizer();
  void Schedule();
  void Batch();
  void Execution();
  void Resources();
  void Checkpointing();
  void Evaluation();
  void Export();
  void Faults();

  const v1::JobSpec& spec_;
  const SpecOrigin origin_;
  Violations& violations_;
  std::set<std::string, std::less<>> was_refused_;
};

void Validator::Job() {
  if (spec_.schema() != "ft.v1") {
    Wrong("schema", spec_.schema().empty()
                        ? "is missing; write schema: ft.v1"
                        : absl::StrCat("\"", spec_.schema().substr(0, 40),
                                       "\" is unknown; write ft.v1"));
  }
  Require(!spec_.name().empty(), "name", "name: hotel-bot");
  Label(spec_.name(), "name");
  Label(spec_.project(), "project");
  NotYet(spec_.queue().empty() || spec_.queue() == "default", "queue",
         "there is one queue, default");
  if (spec_.has_priority()) InRange(spec_.priority(), 0, 100, "priority");
  NotYet(!spec_.preemptible(), "preemptible", "leave it out");
  NotYet(!spec_.has_time_limit(), "time_limit", "leave it out");
  NotYet(spec_.after().empty(), "after",
         "submit the job when the others ended");
  NotYet(spec_.notify().empty(), "notify", "leave it out");
  NotYet(spec_.secrets().empty(), "secrets", "leave it out");
}

void Validator::Model() {
  const std::string& base = spec_.model().base();
  Require(!base.empty(), "model.base", "model: {base: smollm2-135m}");
  NotYet(
      !absl::StartsWith(base, "artifact:") && !absl::StartsWith(base, "job:"),
      "model.base", "name a model of the worker's model root");
  if (base.size() > 1024) Wrong("model.base", "is longer than 1,024 bytes");
  NotYet(spec_.model().adapter().empty(), "model.adapter", "leave it out");
  NotYet(spec_.model().recompute() != v1::RECOMPUTE_AUTO, "model.recompute",
         "write none or block");
}

void Validator::Dataset(const v1::Dataset& dataset, const std::string& path) {
  Require(!dataset.path().empty(), path + ".path", "path: data/train.json");
  NotYet(!absl::StartsWith(dataset.path(), "artifact:"), path + ".path",
         "name a file");
  if (dataset.format() == v1::DATA_FORMAT_UNSPECIFIED) {
    Wrong(path + ".format", "is missing; write alpaca, sharegpt or openai");
  }
  NotYet(dataset.format() != v1::DATA_FORMAT_TEXT, path + ".format",
         "write alpaca, sharegpt or openai");
  NotYet(dataset.weight() == 0 || dataset.weight() == 1, path + ".weight",
         "leave it out");
  if (dataset.max_samples() < 0) Wrong(path + ".max_samples", "is negative");
  if (origin_ == SpecOrigin::kSubmitted && !IsSha256Hex(dataset.sha256())) {
    Wrong(path + ".sha256", "must be the SHA-256 of the uploaded file");
  }
}

void Validator::Validation() {
  const v1::Validation& validation = spec_.data().validation();
  switch (validation.source_case()) {
    case v1::Validation::kShare:
      if (!(validation.share() > 0 && validation.share() <= 0.5)) {
        Wrong("data.validation.share",
              absl::StrCat(validation.share(), " is not in (0, 0.5]"));
      }
      if (validation.format() != 0) {
        Wrong("data.validation.format", "belongs to path, not to share");
      }
      if (validation.max_samples() != 0) {
        Wrong("data.validation.max_samples",
              "belongs to path, not to share; write evaluation: {max_samples: "
              "...}");
      }
      break;
    case v1::Validation::kPath:
      if (validation.format() == 0) {
        Wrong("data.validation.format",
              "is missing; write alpaca, sharegpt or openai");
      }
      NotYet(!absl::StartsWith(validation.path(), "artifact:"),
             "data.validation.path", "name a file");
      NotYet(validation.format() != v1::DATA_FORMAT_TEXT,
             "data.validation.format", "write alpaca, sharegpt or openai");
      if (origin_ == SpecOrigin::kSubmitted &&
          !IsSha256Hex(validation.sha256())) {
        Wrong("data.validation.sha256",
              "must be the SHA-256 of the uploaded file");
      }
      break;
    case v1::Validation::SOURCE_NOT_SET:
      Wrong("data.validation", "needs path or share");
  }
  if (validation.max_samples() < 0) {
    Wrong("data.validation.max_samples", "is negative");
  }
}

void Validator::Data() {
  const v1::Data& data = spec_.data();
  Require(!data.train().empty(), "data.train",
          "train: [{path: data/train.json, format: alpaca}]");
  if (data.train_size() > 1000) Wrong("data.train", "has over 1,000 entries");
  for (int i = 0; i < data.train_size(); ++i) {
    Dataset(data.train(i), absl::StrCat("data.train[", i, "]"));
  }
  if (data.has_validation()) Validation();
  if (data.cutoff_len() != 0) {
    InRange(data.cutoff_len(), 8, 1 << 20, "data.cutoff_len");
  }
  NotYet(data.over_cutoff() != v1::OVER_CUTOFF_PROPORTIONAL, "data.over_cutoff",
         "write truncate, drop or error");
  const std::string& name = data.template_();
  if (!name.empty() && name != "tokenizer" && name != "chatml") {
    Wrong("data.template", absl::StrCat("\"", name.substr(0, 60),
                                        "\" is unknown; write tokenizer or "
                                        "chatml"));
  }
}

void Validator::Stage() {
  const auto stage = spec_.stage().objective_case();
  Require(stage != v1::Stage::OBJECTIVE_NOT_SET, "stage", "stage: sft");
  NotYet(stage == v1::Stage::OBJECTIVE_NOT_SET || stage == v1::Stage::kSft,
         "stage", "write sft");
}

void Validator::Adaptation() {
  const auto method = spec_.adaptation().method_case();
  Require(method != v1::Adaptation::METHOD_NOT_SET, "adaptation",
          "adaptation: lora");
  NotYet(method != v1::Adaptation::kBottleneck, "adaptation",
         "write lora, full or freeze");
  if (method == v1::Adaptation::kFreeze &&
      spec_.adaptation().freeze().last_blocks() == 0) {
    Wrong("adaptation.freeze.last_blocks",
          "is missing or 0: nothing would learn; write 2 for the last two "
          "blocks, -2 for the first two");
  }
  const v1::Bottleneck& bottleneck = spec_.adaptation().bottleneck();
  if (bottleneck.size() != 0) {
    InRange(bottleneck.size(), 1, 65536, "adaptation.bottleneck.size");
  }
  if (method != v1::Adaptation::kLora) return;
  const v1::Lora& lora = spec_.adaptation().lora();
  if (lora.rank() != 0) InRange(lora.rank(), 1, 1024, "adaptation.lora.rank");
  // It scales weights, which are floats.
  if (!(IsMagnitude(lora.alpha()) && lora.alpha() <= 1e9)) {
    Wrong("adaptation.lora.alpha", "must be above 0, and 1e9 at most");
  }
  if (!(lora.dropout() >= 0 && lora.dropout() < 1)) {
    Wrong("adaptation.lora.dropout",
          absl::StrCat(lora.dropout(), " is not in [0, 1)"));
  }
  NotYet(lora.variant() <= v1::LORA_VARIANT_PLAIN, "adaptation.lora.variant",
         "write plain");
  const bool has_all = std::find(lora.targets().begin(), lora.targets().end(),
                                 "all") != lora.targets().end();
  if (has_all && lora.targets_size() > 1) {
    Wrong("adaptation.lora.targets", "all excludes other names");
  }
  if (lora.targets_size() > 1000) {
    Wrong("adaptation.lora.targets", "has over 1,000 entries");
  }
}

void Validator::Quantization() {
  if (!spec_.has_quantization()) return;
  const auto weights = spec_.quantization().weights();
  Require(weights != v1::QUANTIZED_WEIGHTS_UNSPECIFIED, "quantization.weights",
          "quantization: {weights: nf4}");
  NotYet(weights != v1::QUANTIZED_WEIGHTS_INT8, "quantization.weights",
         "write nf4");
  const auto method = spec_.adaptation().method_case();
  if (method != v1::Adaptation::METHOD_NOT_SET &&
      method != v1::Adaptation::kLora) {
    Wrong("quantization",
          "quantised weights cannot learn; write adaptation: lora, or leave "
          "quantization out");
  }
}

void Validator::Optimizer() {
  const auto kind = spec_.optimizer().kind_case();
  const bool is_8_bit = kind == v1::Optimizer::kAdamw8Bit;
  NotYet(kind == v1::Optimizer::KIND_NOT_SET || kind == v1::Optimizer::kAdamw ||
             is_8_bit,
         "optimizer", "write adamw or adamw_8bit");
  const v1::AdamW& adamw =
      is_8_bit ? spec_.optimizer().adamw_8bit() : spec_.optimizer().adamw();
  const std::string name =
      is_8_bit ? "optimizer.adamw_8bit." : "optimizer.adamw.";
  if (is_8_bit && spec_.parallelism().has_zero_stage() &&
      spec_.parallelism().zero_stage() == 0) {
    Wrong("parallelism.zero_stage",
          "0 does not go with adamw_8bit, which is there to save memory; write "
          "1, or leave it out");
  }
  for (const auto& [value, field] :
       {std::pair{adamw.has_beta1() ? adamw.beta1() : 0.9, "beta1"},
        std::pair{adamw.has_beta2() ? adamw.beta2() : 0.999, "beta2"}}) {
    if (!(value >= 0 && value < 1)) {
      Wrong(absl::StrCat(name, field),
            absl::StrCat(value, " is not in [0, 1)"));
    }
  }
  if (adamw.has_eps() && !(IsMagnitude(adamw.eps()) && adamw.eps() > 0)) {
    Wrong(name + "eps", "must be above 0");
  }
  if (!IsMagnitude(adamw.weight_decay())) {
    Wrong(name + "weight_decay", "is negative or not finite");
  }
}

void Validator::Schedule() {
  const v1::Schedule& schedule = spec_.schedule();
  if (schedule.has_epochs()) {
    InRange(schedule.epochs(), 1, 1'000'000, "schedule.epochs");
  }
  if (schedule.has_steps()) {
    InRange<int64_t>(schedule.steps(), 1, int64_t{1} << 40, "schedule.steps");
  }
  if (!IsMagnitude(schedule.learning_rate())) {
    Wrong("schedule.learning_rate", "is negative or not finite");
  }
  if (schedule.has_warmup_ratio() &&
      !(schedule.warmup_ratio() >= 0 && schedule.warmup_ratio() < 1)) {
    Wrong("schedule.warmup_ratio",
          absl::StrCat(schedule.warmup_ratio(), " is not in [0, 1)"));
  }
  if (schedule.has_warmup_steps() && schedule.warmup_steps() < 0) {
    Wrong("schedule.warmup_steps", "is negative");
  }
}

void Validator::Batch() {
  const v1::Batch& batch = spec_.batch();
  if (batch.sequences() != 0) {
    InRange(batch.sequences(), 1, 1 << 20, "batch.sequences");
  }
  if (batch.micro() != 0) InRange(batch.micro(), 1, 1 << 20, "batch.micro");
  if (!IsMagnitude(batch.max_grad_norm())) {
    Wrong("batch.max_grad_norm", "is negative or not finite; 0 means never");
  }
}

void Validator::Execution() {
  NotYet(spec_.precision() <= v1::PRECISION_FP32, "precision", "write fp32");
  if (spec_.parallelism().has_zero_stage()) {
    const int32_t stage = spec_.parallelism().zero_stage();
    InRange(stage, 0, 3, "parallelism.zero_stage");
    if (stage == 3 && spec_.model().recompute() == v1::RECOMPUTE_NONE) {
      Wrong("model.recompute",
            "none does not go with parallelism.zero_stage 3, which gathers a "
            "block's weights once for each pass; write block, or leave it out");
    }
  }
  NotYet(spec_.parallelism().offload() <= v1::OFFLOAD_NONE,
         "parallelism.offload", "write none");
  const v1::Determinism& determinism = spec_.determinism();
  NotYet(!determinism.has_strict() || determinism.strict(),
         "determinism.strict", "write true");
  NotYet(determinism.replay_every() == 0, "determinism.replay_every",
         "leave it out");
  if (determinism.threads() != 0) {
    InRange(determinism.threads(), 1, 1024, "determinism.threads");
  }
  const int32_t ranks =
      std::max(spec_.resources().ranks().max(), spec_.resources().gpus().max());
  if (determinism.lanes() != 0) {
    InRange(determinism.lanes(), 1, 1 << 16, "determinism.lanes");
    if (ranks > 0 && determinism.lanes() % ranks != 0) {
      Wrong("determinism.lanes",
            absl::StrCat(determinism.lanes(), " is no multiple of ", ranks,
                         " ranks"));
    }
  }
}

void Validator::Resources() {
  const v1::Resources& resources = spec_.resources();
  NotYet(resources.gpus().max() == 0 && resources.gpus().min() == 0,
         "resources.gpus", "write ranks: N for CPU ranks");
  if (resources.gpus().max() != 0 || resources.gpus().min() != 0) {
    InRange(resources.gpus().max(), 1, 4096, "resources.gpus");
    MinOfRange(resources.gpus(), "resources.gpus");
  }
  NotYet(resources.gpu_kind().empty(), "resources.gpu_kind", "leave it out");
  const v1::IntRange& ranks = resources.ranks();
  if (ranks.max() == 0 && ranks.min() == 0) {
    Require(resources.gpus().max() != 0, "resources.ranks",
            "resources: {ranks: 2}");
  } else {
    InRange(ranks.max(), 1, 4096, "resources.ranks");
    MinOfRange(ranks, "resources.ranks");
    NotYet(ranks.min() == 0 || ranks.min() == ranks.max(), "resources.ranks",
           "write one number");
  }
  if (resources.cpus_per_rank() != 0) {
    InRange(resources.cpus_per_rank(), 1, 1024, "resources.cpus_per_rank");
  }
  if (!resources.memory_per_rank().empty()) {
    const auto bytes = ParseBytes(resources.memory_per_rank());
    if (!bytes.ok()) {
      Wrong("resources.memory_per_rank", bytes.status().message());
    }
  }
  NotYet(resources.memory_per_rank().empty(), "resources.memory_per_rank",
         "leave it out");
  NotYet(!resources.has_topology(), "resources.topology", "leave it out");
  NotYet(resources.selector().empty(), "resources.selector", "leave it out");
}

void Validator::Checkpointing() {
  const v1::Checkpointing& checkpointing = spec_.checkpointing();
  const v1::Every& every = checkpointing.every();
  if (every.has_steps() && every.steps() < 1) {
    Wrong("checkpointing.every.steps", "must be at least 1");
  }
  if (every.has_minutes() && !(every.minutes() > 0)) {
    Wrong("checkpointing.every.minutes", "must be above 0");
  }
  NotYet(!every.has_epochs(), "checkpointing.every.epochs",
         "write steps or minutes");
  if (checkpointing.snapshot_every_steps() != 0) {
    InRange(checkpointing.snapshot_every_steps(), 1, 1'000'000,
            "checkpointing.snapshot_every_steps");
  }
  if (checkpointing.keep().last() != 0) {
    InRange(checkpointing.keep().last(), 1, 10'000, "checkpointing.keep.last");
  }
  NotYet(!checkpointing.keep().has_best(), "checkpointing.keep.best",
         "leave it out");
  if (checkpointing.keep().best().n() != 0) {
    InRange(checkpointing.keep().best().n(), 1, 10'000,
            "checkpointing.keep.best.n");
  }
  NotYet(!checkpointing.keep().has_ttl(), "checkpointing.keep.ttl",
         "leave it out");
  NotYet(checkpointing.resume_from().empty(), "checkpointing.resume_from",
         "leave it out");
}

void Validator::Evaluation() {
  if (!spec_.has_evaluation()) return;
  const v1::Evaluation& evaluation = spec_.evaluation();
  if (!spec_.data().has_validation()) {
    Wrong("evaluation",
          "needs data.validation; add it, or leave evaluation "
          "out");
  }
  const v1::Every& every = evaluation.every();
  if (every.has_steps() && every.steps() < 1) {
    Wrong("evaluation.every.steps", "must be at least 1");
  } else if (every.has_epochs() && every.epochs() < 1) {
    Wrong("evaluation.every.epochs", "must be at least 1");
  } else if (!every.has_steps() && !every.has_epochs()) {
    Wrong("evaluation.every", "is missing; write {epochs: 1} or {steps: 100}");
  }
  for (const std::string& metric : evaluation.metrics()) {
    WordNotYet(metric == "loss", "evaluation.metrics", metric, "write loss");
  }
  if (evaluation.max_samples() < 0) {
    Wrong("evaluation.max_samples", "is negative");
  }
  NotYet(evaluation.stop_after_worse() == 0, "evaluation.stop_after_worse",
         "leave it out");
}

void Validator::Export() {
  Label(spec_.export_().name(), "export.name");
  NotYet(!spec_.export_().has_adapter() || spec_.export_().adapter(),
         "export.adapter", "write true");
  NotYet(!spec_.export_().merged(), "export.merged", "write false");
  NotYet(spec_.export_().gguf().empty(), "export.gguf", "write null");
}

void Validator::Faults() {
  NotYet(spec_.numeric().on_nan() <= v1::ON_NAN_STOP, "numeric.on_nan",
         "write stop");
  NotYet(spec_.numeric().on_spike() <= v1::ON_SPIKE_EVENT, "numeric.on_spike",
         "write event");
  NotYet(spec_.numeric().max_skips() == 0 || spec_.numeric().max_skips() == 3,
         "numeric.max_skips", "leave it out");
  if (spec_.retry().max_without_progress() != 0) {
    InRange(spec_.retry().max_without_progress(), 1, 1000,
            "retry.max_without_progress");
  }
  NotYet(spec_.retry().on_oom() <= v1::ON_OOM_FAIL, "retry.on_oom",
         "write fail");
}

}  // namespace

void ValidateSpec(const v1::JobSpec& spec, SpecOrigin origin,
                  Violations& violations) {
  Validator(spec, origin, violations).Run();
}

}  // namespace ft
