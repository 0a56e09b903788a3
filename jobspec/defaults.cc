// SPDX-License-Identifier: Apache-2.0

#include "jobspec/defaults.h"

#include <algorithm>

namespace ft {
namespace {

void DefaultData(v1::Data& data) {
  if (data.template_().empty()) data.set_template_("tokenizer");
  for (v1::Dataset& dataset : *data.mutable_train()) {
    if (dataset.weight() == 0) dataset.set_weight(1);
  }
  if (data.cutoff_len() == 0) data.set_cutoff_len(2048);
  if (data.over_cutoff() == 0) data.set_over_cutoff(v1::OVER_CUTOFF_TRUNCATE);
  if (!data.has_packing()) data.set_packing(true);
  if (data.train_on() == 0) data.set_train_on(v1::TRAIN_ON_ALL);
  if (data.history_rewrite() == 0) {
    data.set_history_rewrite(v1::HISTORY_REWRITE_SPLIT);
  }
  if (!data.has_learn_tail()) data.set_learn_tail(false);
  if (data.on_bad_row() == 0) data.set_on_bad_row(v1::ON_BAD_ROW_ERROR);
}

void DefaultLora(v1::Lora& lora) {
  if (lora.rank() == 0) lora.set_rank(16);
  if (lora.alpha() == 0) lora.set_alpha(2 * lora.rank());
  if (lora.targets().empty()) lora.add_targets("all");
  if (lora.variant() == 0) lora.set_variant(v1::LORA_VARIANT_PLAIN);
}

void DefaultQuantization(v1::Quantization& quantization) {
  if (!quantization.has_double_quant()) quantization.set_double_quant(true);
}

void DefaultAdamW(v1::AdamW& adamw) {
  if (!adamw.has_beta1()) adamw.set_beta1(0.9);
  if (!adamw.has_beta2()) adamw.set_beta2(0.999);
  if (!adamw.has_eps()) adamw.set_eps(1e-8);
}

void DefaultSchedule(v1::Schedule& schedule) {
  if (schedule.length_case() == v1::Schedule::LENGTH_NOT_SET) {
    schedule.set_epochs(3);
  }
  if (schedule.learning_rate() == 0) schedule.set_learning_rate(1e-4);
  if (schedule.shape() == 0) schedule.set_shape(v1::SCHEDULE_SHAPE_COSINE);
  if (schedule.warmup_case() == v1::Schedule::WARMUP_NOT_SET) {
    schedule.set_warmup_steps(0);
  }
}

void DefaultResources(v1::Resources& resources) {
  v1::IntRange& gang = resources.gpus().max() > 0 ? *resources.mutable_gpus()
                                                  : *resources.mutable_ranks();
  if (gang.min() == 0) gang.set_min(gang.max());
  if (resources.cpus_per_rank() == 0) resources.set_cpus_per_rank(1);
}

void DefaultDeterminism(const v1::Resources& resources,
                        v1::Determinism& determinism) {
  if (!determinism.has_strict()) determinism.set_strict(true);
  if (!determinism.has_seed()) determinism.set_seed(42);
  if (determinism.lanes() == 0) {
    determinism.set_lanes(resources.gpus().max() > 0 ? resources.gpus().max()
                                                     : resources.ranks().max());
  }
  if (determinism.threads() == 0) {
    determinism.set_threads(resources.cpus_per_rank());
  }
  if (determinism.isa() == 0) determinism.set_isa(v1::ISA_CHOICE_NATIVE);
}

// micro: auto is the most examples of a lane's share that stay within about
// 8,192 tokens.
void DefaultBatch(const v1::JobSpec& spec, v1::Batch& batch) {
  if (batch.sequences() == 0) batch.set_sequences(16);
  if (batch.micro() == 0) {
    const int32_t lanes = spec.determinism().lanes();
    batch.set_micro(std::min((batch.sequences() + lanes - 1) / lanes,
                             std::max(1, 8192 / spec.data().cutoff_len())));
  }
  if (!batch.has_max_grad_norm()) batch.set_max_grad_norm(1);
}

void DefaultCheckpointing(v1::Checkpointing& checkpointing) {
  if (checkpointing.every().interval_case() == v1::Every::INTERVAL_NOT_SET) {
    checkpointing.mutable_every()->set_minutes(10);
  }
  if (checkpointing.snapshot_every_steps() == 0) {
    checkpointing.set_snapshot_every_steps(1);
  }
  if (checkpointing.keep().last() == 0) {
    checkpointing.mutable_keep()->set_last(2);
  }
}

}  // namespace

void ApplyDefaults(v1::JobSpec& spec) {
  if (spec.project().empty()) spec.set_project("default");
  if (spec.queue().empty()) spec.set_queue("default");
  if (!spec.has_priority()) spec.set_priority(50);
  if (!spec.has_preemptible()) spec.set_preemptible(false);
  if (spec.model().recompute() == 0) {
    spec.mutable_model()->set_recompute(spec.parallelism().zero_stage() == 3
                                            ? v1::RECOMPUTE_BLOCK
                                            : v1::RECOMPUTE_NONE);
  }
  DefaultData(*spec.mutable_data());
  if (spec.adaptation().has_lora()) {
    DefaultLora(*spec.mutable_adaptation()->mutable_lora());
  }
  if (spec.has_quantization()) {
    DefaultQuantization(*spec.mutable_quantization());
  }
  if (spec.optimizer().kind_case() == v1::Optimizer::KIND_NOT_SET) {
    spec.mutable_optimizer()->mutable_adamw();
  }
  if (spec.optimizer().has_adamw()) {
    DefaultAdamW(*spec.mutable_optimizer()->mutable_adamw());
  }
  if (spec.optimizer().has_adamw_8bit()) {
    DefaultAdamW(*spec.mutable_optimizer()->mutable_adamw_8bit());
  }
  DefaultSchedule(*spec.mutable_schedule());
  DefaultResources(*spec.mutable_resources());
  DefaultDeterminism(spec.resources(), *spec.mutable_determinism());
  DefaultBatch(spec, *spec.mutable_batch());
  if (spec.precision() == 0) {
    spec.set_precision(spec.resources().gpus().max() > 0 ? v1::PRECISION_BF16
                                                         : v1::PRECISION_FP32);
  }
  if (!spec.parallelism().has_zero_stage()) {
    spec.mutable_parallelism()->set_zero_stage(1);
  }
  if (spec.parallelism().offload() == 0) {
    spec.mutable_parallelism()->set_offload(v1::OFFLOAD_NONE);
  }
  DefaultCheckpointing(*spec.mutable_checkpointing());
  if (spec.has_evaluation() && spec.evaluation().metrics().empty()) {
    spec.mutable_evaluation()->add_metrics("loss");
  }
  if (!spec.export_().has_adapter()) spec.mutable_export_()->set_adapter(true);
  if (spec.numeric().on_nan() == 0) {
    spec.mutable_numeric()->set_on_nan(v1::ON_NAN_STOP);
  }
  if (spec.numeric().on_spike() == 0) {
    spec.mutable_numeric()->set_on_spike(v1::ON_SPIKE_EVENT);
  }
  if (spec.numeric().max_skips() == 0) spec.mutable_numeric()->set_max_skips(3);
  if (spec.retry().max_without_progress() == 0) {
    spec.mutable_retry()->set_max_without_progress(3);
  }
  if (spec.retry().on_oom() == 0) {
    spec.mutable_retry()->set_on_oom(v1::ON_OOM_FAIL);
  }
}

}  // namespace ft
