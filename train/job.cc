// SPDX-License-Identifier: Apache-2.0

#include "train/job.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "formats/peft_adapter.h"

namespace ft {
namespace {

RowFormat FormatOf(v1::DataFormat format) {
  switch (format) {
    case v1::DATA_FORMAT_SHAREGPT:
      return RowFormat::kSharegpt;
    case v1::DATA_FORMAT_OPENAI:
      return RowFormat::kOpenai;
    default:
      return RowFormat::kAlpaca;
  }
}

DatasetOptions CommonOptions(const RankJob& job, int64_t vocab_size) {
  const v1::Data& data = job.spec.data();
  DatasetOptions options;
  options.vocab_size = vocab_size;
  options.variables = {data.variables().begin(), data.variables().end()};
  options.cutoff_len = data.cutoff_len();
  options.over_cutoff =
      data.over_cutoff() == v1::OVER_CUTOFF_DROP    ? OverCutoff::kDrop
      : data.over_cutoff() == v1::OVER_CUTOFF_ERROR ? OverCutoff::kError
                                                    : OverCutoff::kTruncate;
  options.mask.train_on = data.train_on() == v1::TRAIN_ON_LAST ? TrainOn::kLast
                          : data.train_on() == v1::TRAIN_ON_PROMPT_TOO
                              ? TrainOn::kPromptToo
                              : TrainOn::kAll;
  options.mask.history_rewrite =
      data.history_rewrite() == v1::HISTORY_REWRITE_LAST ? HistoryRewrite::kLast
      : data.history_rewrite() == v1::HISTORY_REWRITE_ERROR
          ? HistoryRewrite::kError
          : HistoryRewrite::kSplit;
  options.mask.learn_tail = data.learn_tail();
  options.on_bad_row = data.on_bad_row() == v1::ON_BAD_ROW_SKIP
                           ? OnBadRow::kSkip
                           : OnBadRow::kError;
  options.seed = static_cast<uint64_t>(job.spec.determinism().seed());
  return options;
}

}  // namespace

RankJob JobOf(const v1::RankStart& start) {
  return {
      .job_id = start.job_id(),
      .epoch = start.epoch(),
      .rank = start.rank(),
      .world = start.world(),
      .spec = start.spec(),
      .workspace = start.workspace(),
      .model_dir = start.model_dir(),
      .train_files = {start.train_files().begin(), start.train_files().end()},
      .validation_file = start.validation_file(),
      .source_checkpoint_dir = start.source_checkpoint_dir(),
      .snapshot_ring = start.snapshot_ring(),
      .snapshot_bytes = start.snapshot_bytes(),
      .source_snapshot_steps = {start.source_snapshot_steps().begin(),
                                start.source_snapshot_steps().end()},
      .secret = start.secret(),
      .bind_address =
          start.bind_address().empty() ? "127.0.0.1" : start.bind_address()};
}

DatasetOptions TrainDataOptions(const RankJob& job, int64_t vocab_size) {
  DatasetOptions options = CommonOptions(job, vocab_size);
  for (int i = 0; i < job.spec.data().train_size(); ++i) {
    const v1::Dataset& dataset = job.spec.data().train(i);
    options.files.push_back({.path = job.train_files[i],
                             .format = FormatOf(dataset.format()),
                             .max_samples = dataset.max_samples(),
                             // On a worker the file is called by its digest.
                             .name = BaseName(dataset.path())});
  }
  if (job.spec.data().validation().has_share()) {
    options.validation_share = job.spec.data().validation().share();
  }
  return options;
}

DatasetOptions ValidationDataOptions(const RankJob& job, int64_t vocab_size) {
  DatasetOptions options = CommonOptions(job, vocab_size);
  const v1::Validation& validation = job.spec.data().validation();
  options.files.push_back({.path = job.validation_file,
                           .format = FormatOf(validation.format()),
                           .max_samples = validation.max_samples(),
                           .name = BaseName(validation.path())});
  return options;
}

std::vector<std::string> LoraTargets(const v1::JobSpec& spec) {
  const auto& targets = spec.adaptation().lora().targets();
  if (targets.size() == 1 && targets[0] == "all") return {};
  return {targets.begin(), targets.end()};
}

std::optional<Nf4Quantization> QuantizationOf(const v1::JobSpec& spec) {
  if (spec.quantization().weights() != v1::QUANTIZED_WEIGHTS_NF4) {
    return std::nullopt;
  }
  return Nf4Quantization{.double_quant = spec.quantization().double_quant()};
}

std::vector<std::string> FaultsWithModel(const v1::JobSpec& spec,
                                         const ModelSpec& model) {
  std::vector<std::string> faults;
  const absl::Status targets = CheckTargets(LoraTargets(spec), model);
  if (!targets.ok()) {
    faults.push_back(
        absl::StrCat("adaptation.lora.targets: ", targets.message()));
  }
  const int64_t blocks =
      std::abs(int64_t{spec.adaptation().freeze().last_blocks()});
  if (blocks > model.num_layers) {
    faults.push_back(absl::StrCat("adaptation.freeze.last_blocks: ", blocks,
                                  " is more than the ", model.num_layers,
                                  " blocks of the model"));
  }
  // Beyond its positions such a model turns each segment by its own length; the
  // table of the ropes has one scaling for all.
  if (model.rope.kind == RopeKind::kDynamic &&
      spec.data().cutoff_len() > model.max_position) {
    faults.push_back(absl::StrCat(
        "data.cutoff_len: ", spec.data().cutoff_len(), " is more than the ",
        model.max_position,
        " positions of a model with dynamic rope, which is not supported yet; "
        "lower it"));
  }
  return faults;
}

std::string TemplateName(const v1::JobSpec& spec) {
  return spec.data().template_().empty() ? "tokenizer"
                                         : spec.data().template_();
}

LoaderOptions TrainLoaderOptions(const RankJob& job) {
  return {.sequences = job.spec.batch().sequences(),
          .micro = job.spec.batch().micro(),
          .lanes = job.lanes(),
          .first_lane = job.rank * job.lanes_per_rank(),
          .last_lane = (job.rank + 1) * job.lanes_per_rank(),
          .packing = job.spec.data().packing(),
          .seed = static_cast<uint64_t>(job.spec.determinism().seed())};
}

int64_t TotalSteps(const v1::JobSpec& spec, int64_t examples) {
  if (spec.schedule().has_steps()) return spec.schedule().steps();
  return spec.schedule().epochs() *
         StepsPerPass(examples, spec.batch().sequences());
}

LearningRateSchedule ScheduleOf(const v1::JobSpec& spec, int64_t total_steps) {
  const v1::Schedule& schedule = spec.schedule();
  LearningRateSchedule result{.peak = schedule.learning_rate(),
                              .total_steps = total_steps};
  switch (schedule.shape()) {
    case v1::SCHEDULE_SHAPE_LINEAR:
      result.kind = ScheduleKind::kLinear;
      break;
    case v1::SCHEDULE_SHAPE_CONSTANT:
      result.kind = ScheduleKind::kConstant;
      break;
    default:
      result.kind = ScheduleKind::kCosine;
  }
  result.warmup_steps = schedule.has_warmup_steps()
                            ? schedule.warmup_steps()
                            : WarmupSteps(schedule.warmup_ratio(), total_steps);
  return result;
}

}  // namespace ft
