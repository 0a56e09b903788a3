// SPDX-License-Identifier: Apache-2.0
//
// A script of RPCs by clients and workers against the real core over the store
// in memory, with the checks that stand between gRPC and the core. After each
// call it must have been answered once, and a restart must find what was
// stored.
//
// The input is a list of records: kind (1 byte), length (2 bytes, little-
// endian), a serialised request. A job_id of "$0" to "$9" is that of the n-th
// job made. Epochs are small numbers by themselves.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/id.h"
#include "coordinator/core.h"
#include "coordinator/memory_job_store.h"
#include "coordinator/request_checks.h"
#include "coordinator/spec_checker.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/proto_mutator.h"

namespace ft {
namespace {

enum class Kind : uint8_t {
  kCreateJob,
  kCancelJob,
  kDeleteJob,
  kManifest,  // Uploads the manifest that the next commit names.
  kCommitArtifact,
  kDeleteArtifact,
  kWorker0,  // What the stream of one of three workers says.
  kWorker1,
  kWorker2,
  kDetach,   // Of the worker in the first byte.
  kTime,     // As many tenths of a second as the first byte says.
  kReload,   // As after a commit that failed.
  kRestart,  // Of the process.
};
constexpr int kKinds = static_cast<int>(Kind::kRestart) + 1;
constexpr int kWorkers = 3;

struct Step {
  Kind kind = Kind::kTime;
  std::string bytes;
};

// --- The script ----------------------------------------------------------

std::vector<Step> ReadScript(absl::string_view input) {
  std::vector<Step> steps;
  while (input.size() >= 3 && steps.size() < 64) {
    const auto byte = [&](size_t i) {
      return static_cast<size_t>(static_cast<unsigned char>(input[i]));
    };
    const size_t size = std::min(byte(1) | byte(2) << 8, input.size() - 3);
    steps.push_back({static_cast<Kind>(byte(0) % kKinds),
                     std::string(input.substr(3, size))});
    input.remove_prefix(3 + size);
  }
  return steps;
}

std::string WriteScript(const std::vector<Step>& steps) {
  std::string bytes;
  for (const Step& step : steps) {
    const size_t size = std::min<size_t>(step.bytes.size(), 0xffff);
    bytes.push_back(static_cast<char>(step.kind));
    bytes.push_back(static_cast<char>(size & 0xff));
    bytes.push_back(static_cast<char>(size >> 8));
    bytes.append(step.bytes, 0, size);
  }
  return bytes;
}

// --- The world -----------------------------------------------------------

class World {
 public:
  World() { Restart(); }

  void Play(const Step& step) {
    switch (step.kind) {
      case Kind::kCreateJob:
        return With<v1::CreateJobRequest>(step.bytes, &World::CreateJob);
      case Kind::kCancelJob:
        return With<v1::CancelJobRequest>(step.bytes, &World::CancelJob);
      case Kind::kDeleteJob:
        return With<v1::DeleteJobRequest>(step.bytes, &World::DeleteJob);
      case Kind::kManifest:
        manifest_ = step.bytes;
        return;
      case Kind::kCommitArtifact:
        return With<v1::CommitArtifactRequest>(step.bytes, &World::Commit);
      case Kind::kDeleteArtifact:
        return With<v1::DeleteArtifactRequest>(step.bytes,
                                               &World::DeleteArtifact);
      case Kind::kWorker0:
      case Kind::kWorker1:
      case Kind::kWorker2:
        return Say(
            static_cast<int>(step.kind) - static_cast<int>(Kind::kWorker0),
            step.bytes);
      case Kind::kDetach:
        return Detach(FirstByte(step.bytes) % kWorkers);
      case Kind::kTime:
        return Pass(FirstByte(step.bytes));
      case Kind::kReload:
        return core_->Reload(store_.Load().value(), /*dropped=*/{}, now_);
      case Kind::kRestart:
        return Restart();
    }
  }

  // Every live job of the store is one of the core's, also after a restart.
  void CheckStore() {
    Restart();
    const std::vector<v1::Job> jobs =
        store_.ListJobs({.page_size = 1000}).value();
    for (const v1::Job& job : jobs) {
      FT_CHECK(core_->FindLive(job.job_id()).has_value() !=
               IsTerminal(job.status().state()));
    }
  }

 private:
  template <typename Request>
  void With(const std::string& bytes, void (World::*play)(Request)) {
    Request request;
    if (!request.ParseFromString(bytes)) return;
    if (!CheckRepeated(request).ok()) return;
    (this->*play)(std::move(request));
  }

  void CreateJob(v1::CreateJobRequest request) {
    SubmitCommand submit;
    submit.spec = request.spec();
    submit.validate_only = request.validate_only();
    if (!JobSpecChecker().CheckAndFix(submit.spec).ok()) return;
    const bool is_mutation = !submit.validate_only;
    const std::string answer =
        is_mutation ? Mutate(Method::kCreateJob, request, std::move(submit))
                    : Call(std::move(submit)).response;
    v1::Job job;
    FT_CHECK(job.ParseFromString(answer));
    if (!job.job_id().empty()) jobs_.push_back(job.job_id());
  }
  void CancelJob(v1::CancelJobRequest request) {
    CancelCommand cancel;
    cancel.job_id = JobId(request.job_id());
    Mutate(Method::kCancelJob, request, std::move(cancel));
  }
  void DeleteJob(v1::DeleteJobRequest request) {
    DeleteCommand erase;
    erase.job_id = JobId(request.job_id());
    Mutate(Method::kDeleteJob, request, std::move(erase));
  }
  void DeleteArtifact(v1::DeleteArtifactRequest request) {
    DeleteArtifactCommand erase;
    erase.name = request.name();
    Mutate(Method::kDeleteArtifact, request, std::move(erase));
  }
  void Commit(v1::CommitArtifactRequest request) {
    absl::StatusOr<v1::Manifest> manifest = ParseManifest(manifest_);
    if (!manifest.ok()) return;
    if (!request.name().empty() && !IsArtifactName(request.name())) return;
    request.set_job_id(JobId(request.job_id()));
    request.set_manifest_sha256(Sha256Hex(manifest_));
    manifest->set_job_id(JobId(manifest->job_id()));
    CommitArtifactCommand commit;
    commit.commit = request;
    commit.manifest = *std::move(manifest);
    Mutate(Method::kCommitArtifact, request, std::move(commit));
  }

  void Say(int worker, const std::string& bytes) {
    v1::ConnectRequest message;
    if (!message.ParseFromString(bytes)) return;
    Resolve(message);
    uint64_t& session = sessions_[worker];
    const bool is_first = session == 0;
    const absl::Status status =
        is_first ? CheckAttach(message) : CheckLater(message);
    if (!status.ok()) return is_first ? void() : Detach(worker);
    if (is_first) session = ++last_session_;
    Run({.what = WorkerCommand{session, std::move(message)}});
  }
  void Resolve(v1::ConnectRequest& message) {
    if (message.has_attempt_update()) {
      ResolveIn(*message.mutable_attempt_update());
    } else if (message.has_event()) {
      ResolveIn(*message.mutable_event());
    } else if (message.has_rendezvous_set()) {
      ResolveIn(*message.mutable_rendezvous_set());
    } else if (message.has_rendezvous_get()) {
      ResolveIn(*message.mutable_rendezvous_get());
    } else if (message.has_attach()) {
      for (auto& held : *message.mutable_attach()->mutable_attempts()) {
        ResolveIn(held);
      }
    }
  }
  template <typename Message>
  void ResolveIn(Message& message) {
    message.set_job_id(JobId(message.job_id()));
  }
  std::string JobId(const std::string& said) const {
    if (said.size() != 2 || said[0] != '$') return said;
    const size_t number = static_cast<unsigned char>(said[1] - '0');
    return number < jobs_.size() ? jobs_[number] : said;
  }
  void Detach(int worker) {
    if (sessions_[worker] == 0) return;
    Run({.what = DetachCommand{sessions_[worker]}});
    sessions_[worker] = 0;
  }

  void Pass(int tenths) {
    for (int i = 0; i < tenths && ticks_ < kMaxTicks; ++i, ++ticks_) {
      now_ += absl::Milliseconds(100);
      Run({.what = TickCommand{}});
    }
  }
  void Restart() {
    core_ = std::make_unique<Core>(timers_, store_.Load().value(), now_);
    for (uint64_t& session : sessions_) session = 0;
  }

  // What JobBook::Mutate does. Returns the answer; empty if it was refused.
  template <typename Request, typename Command>
  std::string Mutate(Method method, Request request, Command command) {
    if (!IsRequestId(request.request_id())) return "";
    const std::string request_id = request.request_id();
    request.clear_request_id();
    Sha256 digest;
    digest.Update(request.SerializeAsString());
    command.request.key = {.principal = "admin",
                           .request_id = request_id,
                           .method = method,
                           .body_sha256 = digest.Finish()};
    command.request.stored = store_.FindReply("admin", request_id).value();
    return Call(std::move(command)).response;
  }
  template <typename What>
  Reply Call(What what) {
    const uint64_t ticket = ++last_ticket_;
    Run({.ticket = ticket, .what = std::move(what)});
    const auto reply = replies_.find(ticket);
    FT_CHECK(reply != replies_.end());
    return reply->second;
  }
  void Run(const Command& command) {
    RunOne(command);
    // Each placement takes a slot, so this ends.
    for (int i = 0; core_->wants_schedule(); ++i) {
      FT_CHECK(i < 1000);
      RunOne({.what = ScheduleCommand{}});
    }
  }
  void RunOne(const Command& command) {
    const Decision decision = core_->Apply(command, now_);
    FT_CHECK(store_.Commit(std::span(&decision, 1)).ok());
    for (const Effect& effect : decision.effects) {
      if (const auto* reply = std::get_if<Reply>(&effect)) {
        FT_CHECK(replies_.emplace(reply->ticket, *reply).second);
      } else if (const auto* close = std::get_if<CloseSession>(&effect)) {
        for (uint64_t& session : sessions_) {
          if (session == close->session) session = 0;
        }
      }
    }
  }
  static int FirstByte(const std::string& bytes) {
    return bytes.empty() ? 1 : static_cast<unsigned char>(bytes[0]);
  }

  static constexpr int kMaxTicks = 3000;  // Five minutes.

  const Timers timers_;
  int ticks_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  MemoryJobStore store_;
  std::unique_ptr<Core> core_;
  std::string manifest_;
  std::vector<std::string> jobs_;
  uint64_t sessions_[kWorkers] = {};
  uint64_t last_session_ = 0;
  uint64_t last_ticket_ = 0;
  std::map<uint64_t, Reply> replies_;
};

// --- Changing scripts ----------------------------------------------------

const std::vector<std::string>& Words() {
  static const auto* const words =
      new std::vector<std::string>{"",
                                   "$0",
                                   "$1",
                                   "w0",
                                   "w1",
                                   "i0",
                                   "i1",
                                   "tiny",
                                   "d1",
                                   "r0",
                                   "r1",
                                   "r2",
                                   "ft.v1",
                                   "hotel-bot",
                                   "train.json",
                                   "adapter",
                                   "weights",
                                   "../x",
                                   "avx2",
                                   std::string(64, 'a'),
                                   std::string(64, 'b'),
                                   std::string(300, 'x')};
  return *words;
}

v1::JobSpec GoodSpec() {
  v1::JobSpec spec;
  spec.set_schema("ft.v1");
  spec.set_name("hotel-bot");
  spec.mutable_model()->set_base("tiny");
  v1::Dataset& dataset = *spec.mutable_data()->add_train();
  dataset.set_path("train.json");
  dataset.set_format(v1::DATA_FORMAT_ALPACA);
  dataset.set_sha256(std::string(64, 'a'));
  dataset.set_bytes(44);
  spec.mutable_stage()->mutable_sft();
  spec.mutable_adaptation()->mutable_lora();
  spec.mutable_resources()->mutable_ranks()->set_max(1);
  return spec;
}

// A message of this kind that says something; null: the kind has none.
std::unique_ptr<google::protobuf::Message> GoodMessage(Kind kind) {
  switch (kind) {
    case Kind::kCreateJob: {
      auto message = std::make_unique<v1::CreateJobRequest>();
      *message->mutable_spec() = GoodSpec();
      message->set_request_id("r0");
      return message;
    }
    case Kind::kCancelJob: {
      auto message = std::make_unique<v1::CancelJobRequest>();
      message->set_job_id("$0");
      message->set_request_id("r1");
      return message;
    }
    case Kind::kDeleteJob: {
      auto message = std::make_unique<v1::DeleteJobRequest>();
      message->set_job_id("$0");
      message->set_request_id("r2");
      return message;
    }
    case Kind::kManifest: {
      auto message = std::make_unique<v1::Manifest>();
      message->set_kind(v1::ARTIFACT_KIND_CHECKPOINT);
      message->set_job_id("$0");
      message->set_epoch(1);
      v1::FileEntry& file = *message->add_files();
      file.set_path("weights");
      file.set_bytes(7);
      file.set_sha256(std::string(64, 'a'));
      return message;
    }
    case Kind::kCommitArtifact: {
      auto message = std::make_unique<v1::CommitArtifactRequest>();
      message->set_job_id("$0");
      message->set_epoch(1);
      message->set_request_id("c0");
      return message;
    }
    case Kind::kDeleteArtifact: {
      auto message = std::make_unique<v1::DeleteArtifactRequest>();
      message->set_name("adapter");
      message->set_request_id("c1");
      return message;
    }
    case Kind::kWorker0:
    case Kind::kWorker1:
    case Kind::kWorker2: {
      auto message = std::make_unique<v1::ConnectRequest>();
      v1::Attach& attach = *message->mutable_attach();
      attach.set_worker_id(kind == Kind::kWorker0 ? "w0" : "w1");
      attach.set_instance_id("i0");
      attach.mutable_inventory()->add_slots();
      attach.add_models()->set_name("tiny");
      attach.mutable_models(0)->set_digest("d1");
      return message;
    }
    default:
      return nullptr;
  }
}

Step NewStep(fuzz::Random& random) {
  Step step{.kind = static_cast<Kind>(random() % kKinds)};
  const auto message = GoodMessage(step.kind);
  step.bytes = message == nullptr
                   ? std::string(1, static_cast<char>(random() % 256))
                   : message->SerializeAsString();
  return step;
}

void ChangeStep(Step& step, fuzz::Random& random) {
  const auto message = GoodMessage(step.kind);
  if (message == nullptr) {
    step.bytes = std::string(1, static_cast<char>(random() % 256));
    return;
  }
  if (!message->ParseFromString(step.bytes)) return;
  for (unsigned i = 0; i <= random() % 3; ++i) {
    fuzz::MutateMessage(*message, Words(), random);
  }
  step.bytes = message->SerializeAsString();
}

size_t MutateScript(uint8_t* data, size_t size, size_t max_size,
                    uint32_t seed) {
  fuzz::Random random(seed);
  std::vector<Step> steps =
      ReadScript({reinterpret_cast<const char*>(data), size});
  const size_t at = steps.empty() ? 0 : random() % steps.size();
  if (steps.empty() || random() % 5 == 0) {
    steps.insert(steps.begin() + at, NewStep(random));
  } else if (random() % 8 == 0) {
    steps.erase(steps.begin() + at);
  } else if (random() % 8 == 0) {
    std::swap(steps[at], steps[random() % steps.size()]);
  } else if (random() % 8 == 0) {
    steps.push_back(steps[at]);
  } else {
    ChangeStep(steps[at], random);
  }
  const std::string bytes = WriteScript(steps);
  if (bytes.size() > max_size) return size;
  std::memcpy(data, bytes.data(), bytes.size());
  return bytes.size();
}

FT_FUZZ_TARGET_WITH(rpc_requests, MutateScript) {
  World world;
  for (const Step& step : ReadScript(input)) world.Play(step);
  world.CheckStore();
}

}  // namespace
}  // namespace ft
