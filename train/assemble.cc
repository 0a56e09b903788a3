// SPDX-License-Identifier: Apache-2.0

#include "train/assemble.h"

#include <utility>

#include "absl/strings/str_join.h"
#include "collective/shm_collective.h"
#include "collective/tcp_collective.h"
#include "common/status.h"
#include "formats/hf_directory.h"
#include "train/sft.h"

namespace ft {
namespace {

constexpr absl::Duration kMeetTimeout = absl::Minutes(10);

// The rendezvous of the collective over the link.
class LinkStore : public RendezvousStore {
 public:
  explicit LinkStore(Link& link) : link_(link) {}
  absl::Status Set(absl::string_view key, absl::string_view value) override {
    return link_.SetKey(key, value);
  }
  absl::StatusOr<std::string> Get(absl::string_view key,
                                  absl::Duration timeout) override {
    return link_.GetKey(key, timeout);
  }

 private:
  Link& link_;
};

absl::Status LoadData(const RankJob& job, const ModelSpec& model,
                      Assembly& assembly) {
  FT_ASSIGN_OR_RETURN(
      assembly.train_data,
      LoadDataset(TrainDataOptions(job, model.vocab_size), *assembly.text),
      "data.train");
  if (job.spec.data().validation().has_path()) {
    FT_ASSIGN_OR_RETURN(
        assembly.validation_data,
        LoadDataset(ValidationDataOptions(job, model.vocab_size),
                    *assembly.text),
        "data.validation");
  } else {
    assembly.validation_data.train = std::move(assembly.train_data.validation);
  }
  const int64_t most = job.spec.evaluation().max_samples();
  auto& held_out = assembly.validation_data.train;
  if (held_out.empty() && job.spec.has_evaluation()) {
    return absl::InvalidArgumentError(
        "data.validation.share: chooses no row of so few; raise it");
  }
  if (most > 0 && static_cast<int64_t>(held_out.size()) > most) {
    held_out.resize(static_cast<size_t>(most));
  }
  return absl::OkStatus();
}

absl::Status LoadModel(const RankJob& job, HfDirectory files,
                       Assembly& assembly) {
  assembly.model_digest = job.spec.model().digest();
  if (assembly.model_digest.empty()) {
    FT_ASSIGN_OR_RETURN(assembly.model_digest, ModelDigest(job.model_dir));
  }
  FT_ASSIGN_OR_RETURN(
      assembly.model,
      Transformer::Load(std::move(files), QuantizationOf(job.spec)));
  const v1::Adaptation& adaptation = job.spec.adaptation();
  if (adaptation.has_full()) {
    assembly.model->TrainEverything();
    return absl::OkStatus();
  }
  if (adaptation.has_freeze()) {
    assembly.model->TrainBlocks(adaptation.freeze().last_blocks());
    return absl::OkStatus();
  }
  const v1::Lora& lora = job.spec.adaptation().lora();
  return assembly.model->AddLora(
      {.lora_rank = lora.rank(),
       .alpha = lora.alpha(),
       .dropout = lora.dropout(),
       .targets = LoraTargets(job.spec),
       .seed = static_cast<uint64_t>(job.spec.determinism().seed())});
}

// Through memory where all ranks lie on one machine, else by TCP; the bits are
// the same.
absl::Status ConnectRanks(const RankJob& job, Link& link, Assembly& assembly) {
  if (job.shared_memory >= 0) {
    FT_ASSIGN_OR_RETURN(assembly.ranks,
                        ConnectShm({.rank = job.rank,
                                    .size = job.world,
                                    .job_id = job.job_id,
                                    .epoch = job.epoch,
                                    .secret = job.secret,
                                    .connect_timeout = kMeetTimeout},
                                   job.shared_memory),
                        "meeting the other ranks");
    return absl::OkStatus();
  }
  LinkStore store(link);
  FT_ASSIGN_OR_RETURN(assembly.ranks,
                      ConnectTcp({.rank = job.rank,
                                  .size = job.world,
                                  .job_id = job.job_id,
                                  .epoch = job.epoch,
                                  .secret = job.secret,
                                  .bind_address = job.bind_address,
                                  .connect_timeout = kMeetTimeout},
                                 store),
                      "meeting the other ranks");
  return absl::OkStatus();
}

// The parameters move into the flat buffers, and learn there.
void Shard(const RankJob& job, Assembly& assembly) {
  const bool is_8_bit = job.spec.optimizer().has_adamw_8bit();
  const v1::AdamW& adamw = is_8_bit ? job.spec.optimizer().adamw_8bit()
                                    : job.spec.optimizer().adamw();
  assembly.sharded = std::make_unique<ShardedModel>(
      *assembly.model,
      ShardingOptions{
          .zero = {.zero_stage = job.spec.parallelism().zero_stage(),
                   .lanes_per_rank = job.lanes_per_rank(),
                   .beta1 = adamw.beta1(),
                   .beta2 = adamw.beta2(),
                   .eps = adamw.eps(),
                   .weight_decay = adamw.weight_decay(),
                   .moments =
                       is_8_bit ? MomentFormat::k8Bit : MomentFormat::kFp32},
          .recomputes_blocks =
              job.spec.model().recompute() == v1::RECOMPUTE_BLOCK},
      *assembly.ranks);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Assembly>> Assemble(const RankJob& job,
                                                   Link& link) {
  auto assembly = std::make_unique<Assembly>();
  FT_ASSIGN_OR_RETURN(ModelText text,
                      LoadModelText(job.model_dir, TemplateName(job.spec)));
  assembly->text = std::make_unique<ModelText>(std::move(text));
  FT_ASSIGN_OR_RETURN(HfDirectory files, OpenHfDirectory(job.model_dir));
  const std::vector<std::string> faults = FaultsWithModel(job.spec, files.spec);
  if (!faults.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(faults, "\n"));
  }
  FT_RETURN_IF_ERROR(LoadData(job, files.spec, *assembly));
  FT_RETURN_IF_ERROR(LoadModel(job, std::move(files), *assembly));
  FT_RETURN_IF_ERROR(ConnectRanks(job, link, *assembly));
  Shard(job, *assembly);

  assembly->objective = std::make_unique<Sft>();
  LoaderOptions loading = TrainLoaderOptions(job);
  assembly->train_loader =
      std::make_unique<Loader>(assembly->train_data.train, loading);
  if (!assembly->validation_data.train.empty() && job.spec.has_evaluation()) {
    loading.shuffle = false;
    assembly->validation_loader =
        std::make_unique<Loader>(assembly->validation_data.train, loading);
  }
  assembly->total_steps = TotalSteps(
      job.spec, static_cast<int64_t>(assembly->train_data.train.size()));
  assembly->trainer = std::make_unique<Trainer>(
      TrainerConfig{
          .lanes = job.lanes(),
          .lanes_per_rank = job.lanes_per_rank(),
          .max_grad_norm = job.spec.batch().max_grad_norm(),
          .seed = static_cast<uint64_t>(job.spec.determinism().seed()),
          .has_dropout = job.spec.adaptation().lora().dropout() > 0,
          .schedule = ScheduleOf(job.spec, assembly->total_steps)},
      *assembly->sharded, *assembly->objective, *assembly->train_loader,
      *assembly->ranks);
  return assembly;
}

}  // namespace ft
