// SPDX-License-Identifier: Apache-2.0
//
// ft-train: one rank of an attempt; it also stands alone.

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "common/version.h"
#include "train/commands.h"
#include "train/crash_stack.h"
#include "train/local_job.h"

namespace {

constexpr char kExamples[] = R"(
  ft-train import model.gguf models/smollm2   make a model directory
  ft-train check job.yaml                     find mistakes in data and model
  ft-train plan job.yaml --device-memory 24GiB
                                              what it will need
  ft-train show-tokens job.yaml               what is learned, token by token
  ft-train run job.yaml --output out          train without a coordinator
  ft-train quantize models/smollm2 models/smollm2-nf4   the same in 4 bits
  ft-train chat --model models/smollm2 --adapter out/export "Who are you?"
  ft-train merge --model models/smollm2 --adapter out/export --out merged)";

}  // namespace

int main(int argc, char** argv) {
  ft::WriteStackOnCrash(argv[0]);
  CLI::App app("Train a language model, alone or as one rank of a gang.\n" +
               std::string(kExamples));
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default();
  app.set_version_flag(
      "--version", absl::StrCat("ft-train ", std::string(ft::Version()), " (",
                                std::string(ft::Revision()), ")"));
  int code = 0;
  std::string model_root = ft::DefaultModelRoot();

  ft::RankCommand rank;
  CLI::App* command = app.add_subcommand("rank", "One rank, under ft-worker");
  command->add_option("--workspace", rank.workspace)->required();
  command->add_option("--link_fd", rank.link_fd)->required();
  command->add_flag("--standby", rank.standby);
  command->callback([&] { code = ft::RunRankCommand(rank); });

  ft::RunCommand run;
  run.program = argv[0];
  command = app.add_subcommand("run", "Train a job file without a coordinator");
  command->add_option("job", run.job_file, "Job file")->required();
  command->add_option("--output", run.output, "Workspace and result")
      ->required();
  command->add_option("--model_root", model_root, "Folder of models");
  command->add_option("--world", run.world, "Ranks; must divide the lanes")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--transport", run.transport,
                   "How ranks exchange bytes: memory, or tcp as between "
                   "workers")
      ->check(CLI::IsMember({"memory", "tcp"}))
      ->capture_default_str();
  command->add_option("--rendezvous", run.rendezvous)->group("");
  command->add_option("--rank", run.rank)->group("");
  command->add_option("--shared_memory_fd", run.shared_memory_fd)->group("");
  command->callback([&] {
    run.model_root = model_root;
    code = ft::RunRunCommand(run);
  });

  ft::CheckCommand check;
  command = app.add_subcommand("check", "Find mistakes in data and model");
  command->add_option("job", check.job_file, "Job file")->required();
  command->add_option("--model_root", model_root, "Folder of models");
  command->add_option("-o,--output", check.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  command->add_flag("--quiet", check.quiet, "Only what is wrong");
  command->callback([&] {
    check.model_root = model_root;
    code = ft::RunCheckCommand(check);
  });

  ft::PlanCommand plan;
  command = app.add_subcommand(
      "plan", "Memory and disk a job will need, and what would make it fit");
  ft::AddPlanOptions(*command, plan.words);
  command->add_option("--model_root", model_root, "Folder of models");
  command->add_option("-o,--output", plan.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  command->callback([&] {
    plan.model_root = model_root;
    code = ft::RunPlanCommand(plan);
  });

  ft::ShowTokensCommand show;
  command =
      app.add_subcommand("show-tokens", "Tokens, ids and what is learned");
  command->add_option("job", show.job_file, "Job file")->required();
  command->add_option("--model_root", model_root, "Folder of models");
  command->add_option("--rows", show.rows, "How many examples");
  command->callback([&] {
    show.model_root = model_root;
    code = ft::RunShowTokensCommand(show);
  });

  ft::ImportCommand import;
  command = app.add_subcommand("import", "Make a model directory");
  command->add_option("source", import.source, "GGUF file or HF directory")
      ->required();
  command->add_option("target", import.target, "New folder")->required();
  command->callback([&] { code = ft::RunImportCommand(import); });

  ft::QuantizeCommand quantize;
  command = app.add_subcommand(
      "quantize", "Make a model directory in 4 bits, as bitsandbytes has it");
  command->add_option("model", quantize.model, "Model directory")->required();
  command->add_option("target", quantize.target, "New folder")->required();
  bool single_quant = false;
  command->add_flag("--no-double-quant", single_quant,
                    "Keep the scales in fp32");
  command->callback([&] {
    quantize.double_quant = !single_quant;
    code = ft::RunQuantizeCommand(quantize);
  });

  ft::MergeCommand merge;
  command = app.add_subcommand("merge", "Fold an adapter into its base");
  command->add_option("--model", merge.model, "Model directory")->required();
  command->add_option("--adapter", merge.adapter, "PEFT directory")->required();
  command->add_option("--out", merge.output, "New folder")->required();
  command->add_option("--dtype", merge.dtype, "Of the weights: bf16 or fp32")
      ->check(CLI::IsMember({"bf16", "fp32"}));
  command
      ->add_option("--quantization", merge.quantization,
                   "What the adapter was trained on: none or nf4; default: as "
                   "its file says")
      ->check(CLI::IsMember({"none", "nf4"}))
      ->default_str("");
  command->add_flag("--no-double-quant", single_quant,
                    "With nf4: the scales in fp32");
  command->add_option("-o,--output", merge.format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  command->callback([&] {
    merge.double_quant = !single_quant;
    code = ft::RunMergeCommand(merge);
  });

  ft::ChatCommand chat;
  command = app.add_subcommand("chat", "Ask a model");
  command->add_option("--model", chat.model, "Model directory")->required();
  command->add_option("--adapter", chat.adapter, "PEFT directory");
  command->add_option("--template", chat.chat_template,
                      "tokenizer, or a built-in one");
  command->add_option("--system", chat.system, "System message");
  command->add_flag("--sample", chat.sample, "Draw instead of the likeliest");
  command->add_option("--seed", chat.seed, "Of the draws");
  command->add_option("--max_new_tokens", chat.max_new_tokens);
  command->add_option("--threads", chat.threads, "Default: all cores");
  command->add_option("text", chat.text, "What to say")
      ->required()
      ->default_str("");
  command->callback([&] { code = ft::RunChatCommand(chat); });

  ft::LogitsCommand logits;
  command = app.add_subcommand("logits", "Logits of token ids, to compare");
  command->add_option("--model", logits.model, "Model directory")->required();
  command->add_option("--adapter", logits.adapter, "PEFT directory");
  command->add_option("--ids", logits.ids_file, "JSON list of lists")
      ->required();
  command->add_option("--out", logits.output, "safetensors file")->required();
  command->callback([&] { code = ft::RunLogitsCommand(logits); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int parsed = app.exit(error);
    return parsed == 0 ? 0 : 2;  // 2: usage.
  }
  return code;
}
