// SPDX-License-Identifier: Apache-2.0
//
// The subcommands of ft-train, each a function that prints and returns an exit
// code: 0 ok, 1 error, 3 invalid job, data or model. Those of models alone,
// which ftctl passes on, tell more errors apart: common/exit_code.h.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jobspec/plan_options.h"

namespace ft {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitInvalid = 3;

struct RankCommand {
  std::string workspace;
  int link_fd = -1;
  bool standby = false;  // Waits for its Start as long as the daemon lives.
};
// One rank of an attempt, under a daemon.
int RunRankCommand(const RankCommand& command);

struct RunCommand {
  std::string job_file;
  std::string model_root;
  std::string output;
  int world = 1;
  std::string transport = "memory";  // memory | tcp, as between workers.
  int rank = 0;  // Other than 0 for the processes that rank 0 starts,
  int shared_memory_fd = -1;  // which inherit this,
  std::string rendezvous;     // or meet in this folder.
  std::string program;        // argv[0], to start the other ranks.
};
// A whole job, alone: all lanes on --world ranks of this machine.
int RunRunCommand(RunCommand command);

struct CheckCommand {
  std::string job_file;
  std::string model_root;
  std::string output = "table";  // table | json
  bool quiet = false;            // Only what is wrong.
};
// Data, tokenizer and model of a job file.
int RunCheckCommand(const CheckCommand& command);

struct PlanCommand {
  PlanWords words;
  std::string model_root;
  std::string output = "table";  // table | json
};
// Memory and disk that a job will need; 9: it does not fit.
int RunPlanCommand(const PlanCommand& command);

struct ShowTokensCommand {
  std::string job_file;
  std::string model_root;
  int64_t rows = 1;
};
// token, id, learned of the first examples.
int RunShowTokensCommand(const ShowTokensCommand& command);

struct ImportCommand {
  std::string source;
  std::string target;
};
int RunImportCommand(const ImportCommand& command);

struct QuantizeCommand {
  std::string model;
  std::string target;
  bool double_quant = true;
};
// A model directory in 4 bits, as bitsandbytes stores it.
int RunQuantizeCommand(const QuantizeCommand& command);

struct MergeCommand {
  std::string model;
  std::string adapter;
  std::string output;
  std::string dtype = "bf16";    // bf16 | fp32
  std::string quantization;      // none | nf4; empty: as the adapter says.
  bool double_quant = true;      // With nf4.
  std::string format = "table";  // table | json
};
// A model directory with the adapter in its weights.
int RunMergeCommand(const MergeCommand& command);

struct ChatCommand {
  std::string model;
  std::string adapter;
  std::string chat_template = "tokenizer";
  std::string system;
  bool sample = false;
  uint64_t seed = 0;
  int64_t max_new_tokens = 1024;
  int threads = 0;  // 0: all cores.
  std::vector<std::string> text;
};
int RunChatCommand(const ChatCommand& command);

struct LogitsCommand {
  std::string model;
  std::string adapter;
  std::string ids_file;  // JSON: [[1, 2, 3], ...]
  std::string output;    // safetensors: logits.0, logits.1, ...
};
// Logits of token ids, for checks against other implementations.
int RunLogitsCommand(const LogitsCommand& command);

}  // namespace ft
