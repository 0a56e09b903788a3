// SPDX-License-Identifier: Apache-2.0
//
// fetch, chat, merge, model, workers: results and what they are made with.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/bytes.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"
#include "ctl/client.h"
#include "ctl/command.h"
#include "ctl/output.h"
#include "ctl/paths.h"
#include "ctl/train_program.h"
#include "jobspec/model_root.h"

namespace ft {
namespace {

struct Arguments {
  std::string job;
  std::string dir;
  std::string model;
  std::string source;
  std::string name;
  std::string dtype = "bf16";
  bool force = false;
  bool sample = false;
  int64_t max_new_tokens = 256;
  std::vector<std::string> text;
};
Arguments arguments;

// Whether the file is there, byte for byte.
bool IsThere(const std::string& path, const v1::FileEntry& file) {
  const absl::StatusOr<std::string> known = Sha256OfFile(path);
  return known.ok() && *known == file.sha256();
}

// Files of the user, or of another job's adapter.
absl::Status CheckNothingIsReplaced(const v1::Manifest& manifest,
                                    const std::string& dir) {
  std::vector<std::string> others;
  for (const v1::FileEntry& file : manifest.files()) {
    const std::string path = JoinPath(dir, file.path());
    if (Exists(path) && !IsThere(path, file)) others.push_back(path);
  }
  if (others.empty()) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(
      absl::StrJoin(others, ", "),
      ": there with other content; name another folder, or replace "
      "with --force"));
}

// Told of a file of a result that is there now.
using OnFile =
    std::function<void(const v1::FileEntry& file, const std::string& path)>;

// Fetches the job's adapter or model into `dir` and says which it is; files
// that are there with their digest are kept. Without `on_file` nothing is said.
absl::StatusOr<v1::ArtifactKind> FetchResult(Client& client, const v1::Job& job,
                                             const std::string& dir,
                                             bool replaces,
                                             const OnFile& on_file) {
  if (job.status().artifact_manifest_sha256().empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        job.job_id(), " is ", StateName(job.status().state()),
        " and has no result",
        IsTerminal(job.status().state())
            ? ""
            : absl::StrCat("; wait for it: ftctl wait ", job.job_id())));
  }
  FT_ASSIGN_OR_RETURN(
      const v1::Manifest manifest,
      client.artifacts().ReadManifest(job.status().artifact_manifest_sha256()));
  if (!replaces) FT_RETURN_IF_ERROR(CheckNothingIsReplaced(manifest, dir));
  FT_RETURN_IF_ERROR(MakeDirs(dir));
  const bool is_terminal = isatty(STDERR_FILENO) == 1;
  for (const v1::FileEntry& file : manifest.files()) {
    const std::string path = JoinPath(dir, file.path());
    FT_RETURN_IF_ERROR(MakeDirs(DirName(path)));
    if (!IsThere(path, file)) {
      FT_RETURN_IF_ERROR(
          client.artifacts().Download(
              file.sha256(), file.bytes(), path,
              [&](int64_t done, int64_t total) {
                if (is_terminal && on_file && total > (8 << 20)) {
                  std::fprintf(stderr, "\r%s of %s ", FormatBytes(done).c_str(),
                               FormatBytes(total).c_str());
                }
              }),
          file.path());
    }
    if (on_file) on_file(file, path);
  }
  return manifest.kind();
}

int Fetch(const GlobalOptions& options) {
  const std::string& dir =
      arguments.dir.empty() ? arguments.job : arguments.dir;
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  const auto tell = [&](const v1::FileEntry& file, const std::string& path) {
    if (!IsMessageOutput(options)) std::printf("%s\n", path.c_str());
    files.push_back(
        {{"path", path}, {"bytes", file.bytes()}, {"sha256", file.sha256()}});
  };
  const auto fetch = [&]() -> absl::Status {
    FT_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                        Client::Connect(options));
    FT_ASSIGN_OR_RETURN(const v1::Job job, client->GetJob(arguments.job));
    return FetchResult(*client, job, dir, arguments.force, tell).status();
  };
  const absl::Status status = fetch();
  if (!status.ok()) return Fail(status);
  if (IsMessageOutput(options)) {
    PrintValue(options,
               {{"job_id", arguments.job}, {"dir", dir}, {"files", files}});
  }
  return 0;
}

absl::StatusOr<std::string> ModelDir(const std::string& name) {
  const std::string dir = JoinPath(ModelRootDir(), name);
  if (IsModelName(name) && IsDirectory(dir)) return dir;
  if (IsDirectory(name)) return name;
  return absl::NotFoundError(absl::StrCat("no model \"", name, "\" under ",
                                          ModelRootDir(),
                                          "; see ftctl model ls"));
}

// Fetches the result of the job that was named: the folder of its adapter and
// the name of its base, or no adapter and the folder of its model.
absl::Status TakeResult(const GlobalOptions& options, std::string& adapter,
                        std::string& model) {
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                      Client::Connect(options));
  FT_ASSIGN_OR_RETURN(const v1::Job job, client->GetJob(arguments.job));
  const std::string result =
      JoinPath(DataHome(), absl::StrCat("results/", job.job_id()));
  FT_ASSIGN_OR_RETURN(const v1::ArtifactKind kind,
                      FetchResult(*client, job, result, /*replaces=*/true,
                                  /*on_file=*/nullptr));
  const bool is_model = kind == v1::ARTIFACT_KIND_MODEL;
  model = is_model ? result : job.spec().model().base();
  adapter = is_model ? "" : result;
  return absl::OkStatus();
}

int Chat(const GlobalOptions& options) {
  const std::string prompt = absl::StrJoin(arguments.text, " ");
  std::string model = arguments.model;
  const auto prepare = [&](std::vector<std::string>& words) -> absl::Status {
    std::string adapter;
    if (!arguments.job.empty()) {
      FT_RETURN_IF_ERROR(TakeResult(options, adapter, model));
    }
    FT_ASSIGN_OR_RETURN(const std::string dir, ModelDir(model));
    words = {"chat", "--model", dir, "--max_new_tokens",
             absl::StrCat(arguments.max_new_tokens)};
    if (!adapter.empty()) {
      words.push_back("--adapter");
      words.push_back(adapter);
    }
    if (arguments.sample) words.push_back("--sample");
    words.push_back("--");
    words.push_back(prompt);
    return absl::OkStatus();
  };
  std::vector<std::string> words;
  const absl::Status status = prepare(words);
  if (!status.ok()) return Fail(status);
  const bool as_value = IsMessageOutput(options);
  std::string answer;
  const absl::StatusOr<int> code =
      RunTrainProgram(words, as_value ? &answer : nullptr);
  if (!code.ok()) return Fail(code.status());
  if (*code == 0 && as_value) {
    nlohmann::ordered_json value;
    if (!arguments.job.empty()) value["job_id"] = arguments.job;
    value["model"] = model;
    value["prompt"] = prompt;
    value["answer"] = absl::StripSuffix(answer, "\n");
    PrintValue(options, value);
  }
  return *code;
}

int Merge(const GlobalOptions& options) {
  std::string adapter = arguments.source;
  std::string model = arguments.model;
  const auto prepare = [&](std::vector<std::string>& words) -> absl::Status {
    if (!arguments.job.empty()) {
      FT_RETURN_IF_ERROR(TakeResult(options, adapter, model));
      if (adapter.empty()) {
        return absl::FailedPreconditionError(
            absl::StrCat("the result of ", arguments.job,
                         " is a whole model already; ftctl fetch it"));
      }
    }
    FT_ASSIGN_OR_RETURN(const std::string dir, ModelDir(model));
    words = {"merge", "--model",     dir,       "--adapter",    adapter,
             "--out", arguments.dir, "--dtype", arguments.dtype};
    return absl::OkStatus();
  };
  std::vector<std::string> words;
  const absl::Status status = prepare(words);
  if (!status.ok()) return Fail(status);
  const bool as_value = IsMessageOutput(options);
  if (as_value) words.insert(words.end(), {"-o", "json"});
  const bool is_silent = options.output == "name";
  std::string said;
  const absl::StatusOr<int> code =
      RunTrainProgram(words, as_value || is_silent ? &said : nullptr);
  if (!code.ok()) return Fail(code.status());
  if (*code == 0 && is_silent) std::printf("%s\n", arguments.dir.c_str());
  if (*code == 0 && as_value) {
    PrintValue(options, nlohmann::ordered_json::parse(said, nullptr, false));
  }
  return *code;
}

int ImportModelCommand(const GlobalOptions& options) {
  if (!IsModelName(arguments.name)) {
    std::fprintf(stderr,
                 "--name \"%s\" is no name; use a-z, 0-9, '.', '_' and '-'\n",
                 arguments.name.c_str());
    return 2;
  }
  const std::string target = JoinPath(ModelRootDir(), arguments.name);
  if (Exists(target)) {
    std::fprintf(stderr, "model %s is there already (%s)\n",
                 arguments.name.c_str(), target.c_str());
    return 6;
  }
  if (const absl::Status status = MakeDirs(ModelRootDir()); !status.ok()) {
    return Fail(status);
  }
  const absl::StatusOr<int> code =
      RunTrainProgram({"import", arguments.source, target});
  if (!code.ok()) return Fail(code.status());
  if (*code != 0) return *code;
  if (IsMessageOutput(options)) {
    PrintValue(options, {{"name", arguments.name}, {"path", target}});
  } else {
    std::printf("%s\n", arguments.name.c_str());
  }
  return 0;
}

int ListModels(const GlobalOptions& options) {
  ModelRoot root(ModelRootDir());
  std::vector<std::string> problems;
  std::vector<std::vector<std::string>> rows;
  v1::ListModelsResponse response;
  for (const v1::ModelInfo& model : root.List(&problems)) {
    rows.push_back({model.name(), FormatBytes(model.bytes()),
                    model.digest().substr(0, 12)});
    v1::ModelInfo& listed = *response.add_models()->mutable_model();
    listed = model;
    listed.clear_config_json();
    if (options.output == "name") std::printf("%s\n", model.name().c_str());
  }
  if (options.output == "table") {
    PrintTable(options, {"MODEL", "SIZE", "DIGEST"}, rows);
  } else if (options.output != "name") {
    PrintMessage(options, response);
  }
  for (const std::string& problem : problems) {
    std::fprintf(stderr, "%s\n", problem.c_str());
  }
  return 0;
}

std::string WorkerStateName(v1::WorkerState state) {
  return v1::WorkerState_Name(state).substr(sizeof("WORKER_STATE_") - 1);
}

int ListWorkers(const GlobalOptions& options) {
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(options);
  if (!client.ok()) return Fail(client.status());
  const absl::StatusOr<v1::ListWorkersResponse> list = (*client)->ListWorkers();
  if (!list.ok()) return Fail(list.status());
  if (IsMessageOutput(options)) {
    PrintMessage(options, *list);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const v1::WorkerInfo& worker : list->workers()) {
    if (options.output == "name") {
      std::printf("%s\n", worker.worker_id().c_str());
      continue;
    }
    std::vector<std::string> running;
    for (const v1::RunningRank& rank : worker.running()) {
      running.push_back(absl::StrCat(rank.job_id(), "/", rank.rank()));
    }
    rows.push_back({worker.worker_id(), WorkerStateName(worker.state()),
                    absl::StrCat(worker.inventory().slots_size()),
                    absl::StrCat(worker.inventory().cpus()),
                    FormatBytes(worker.inventory().memory_bytes()),
                    worker.inventory().isa_class(),
                    worker.marks().has_quarantine()
                        ? worker.marks().quarantine().reason()
                        : absl::StrJoin(running, " ")});
  }
  if (options.output != "name") {
    PrintTable(options,
               {"WORKER", "STATE", "SLOTS", "CPUS", "MEMORY", "ISA",
                "RUNNING OR WHY NOT"},
               rows);
  }
  return 0;
}

int ReleaseWorker(const GlobalOptions& options) {
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(options);
  if (!client.ok()) return Fail(client.status());
  const absl::StatusOr<v1::WorkerInfo> worker =
      (*client)->ReleaseWorker(arguments.name);
  if (!worker.ok()) return Fail(worker.status());
  if (IsMessageOutput(options)) {
    PrintMessage(options, *worker);
    return 0;
  }
  std::fprintf(stderr, "%s %s\n", worker->worker_id().c_str(),
               WorkerStateName(worker->state()).c_str());
  return 0;
}

}  // namespace

void AddResultCommands(CLI::App& app, GlobalOptions& options, int& code) {
  CLI::App* command = app.add_subcommand(
      "fetch",
      "Download a job's result; what was begun is continued\n\n  ftctl fetch "
      "JOB   into the folder JOB\n  ftctl fetch JOB out/ --force");
  command->group("Results");
  command->add_option("job", arguments.job, "A job's id")->required();
  command->add_option("dir", arguments.dir, "Folder; default: the job's id");
  command->add_flag("--force", arguments.force,
                    "Replace files of other content");
  command->callback([&] { code = Fetch(options); });

  command = app.add_subcommand(
      "chat",
      "Ask a job's result, or a model\n\n  ftctl chat --job JOB \"Who are "
      "you?\"\n  ftctl chat --model smollm2-135m \"Who are you?\"");
  command->group("Results");
  CLI::Option* job = command->add_option("--job", arguments.job, "A job's id");
  command->add_option("--model", arguments.model, "A model's name")
      ->excludes(job);
  command->add_flag("--sample", arguments.sample, "Draw the answer");
  command
      ->add_option("--max_new_tokens", arguments.max_new_tokens,
                   "At most so many tokens")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("text", arguments.text, "What to say")
      ->required()
      ->default_str("");
  command->callback([&] {
    if (arguments.job.empty() && arguments.model.empty()) {
      throw CLI::ValidationError("chat needs --job or --model");
    }
    code = Chat(options);
  });

  command = app.add_subcommand(
      "merge",
      "Fold an adapter into its base\n\n  ftctl merge --job JOB --out merged/\n"
      "  ftctl merge --model smollm2-135m --adapter out/export --out merged/");
  command->group("Results");
  job = command->add_option("--job", arguments.job, "A job's id");
  CLI::Option* adapter =
      command->add_option("--adapter", arguments.source, "A PEFT directory")
          ->excludes(job);
  command->add_option("--model", arguments.model, "A model's name")
      ->excludes(job)
      ->needs(adapter);
  command->add_option("--out", arguments.dir, "New folder")->required();
  command
      ->add_option("--dtype", arguments.dtype, "Of the weights: bf16 or fp32")
      ->check(CLI::IsMember({"bf16", "fp32"}));
  command->callback([&] {
    if (arguments.job.empty() &&
        (arguments.model.empty() || arguments.source.empty())) {
      throw CLI::ValidationError("merge needs --job, or --model and --adapter");
    }
    code = Merge(options);
  });

  CLI::App* model = app.add_subcommand(
      "model",
      "Models of this machine\n\n  ftctl model import model.gguf --name "
      "smollm2-135m\n  ftctl model ls");
  model->group("Results");
  model->require_subcommand(1);
  command = model->add_subcommand(
      "import",
      "Make a model usable as model.base\n\n  ftctl model import model.gguf "
      "--name smollm2-135m\n  ftctl model import hf_dir/ --name tiny-chat");
  command->add_option("source", arguments.source, "GGUF file or HF directory")
      ->required();
  command->add_option("--name", arguments.name, "Its name")->required();
  command->callback([&] { code = ImportModelCommand(options); });
  command = model->add_subcommand(
      "ls", "Models under the model root\n\n  ftctl model ls -o name");
  command->callback([&] { code = ListModels(options); });

  CLI::App* workers = app.add_subcommand(
      "workers", "Machines and what runs on them\n\n  ftctl workers -o json");
  workers->group("Cluster");
  workers->require_subcommand(0, 1);
  workers
      ->add_subcommand("ls", "List them, as does no word\n\n  ftctl workers ls")
      ->callback([&] { code = ListWorkers(options); });
  command = workers->add_subcommand(
      "release", "End a worker's quarantine\n\n  ftctl workers release w-3");
  command->add_option("worker", arguments.name, "A worker's id")->required();
  command->callback([&] { code = ReleaseWorker(options); });
  workers->callback([&, workers] {
    if (workers->get_subcommands().empty()) code = ListWorkers(options);
  });
}

}  // namespace ft
