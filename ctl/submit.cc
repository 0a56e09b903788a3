// SPDX-License-Identifier: Apache-2.0

#include "ctl/submit.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/bytes.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/id.h"
#include "common/status.h"
#include "ctl/paths.h"
#include "ctl/train_program.h"
#include "jobspec/from_yaml.h"
#include "jobspec/job_text.h"

namespace ft {
namespace {

// A worker of this machine offers a model that was just imported at its next
// look at the folder, a few seconds later.
constexpr absl::Duration kModelTimeout = absl::Seconds(15);
constexpr absl::Duration kModelPoll = absl::Milliseconds(250);

// Uploads one file; `sha256` and `bytes` become its own.
absl::Status UploadData(Client& client, const std::string& folder,
                        std::string& path, std::string& sha256,
                        int64_t& bytes) {
  const std::string file = JoinPath(folder, path);
  FT_ASSIGN_OR_RETURN(bytes, FileSize(file));
  FT_ASSIGN_OR_RETURN(sha256, Sha256OfFile(file));
  const bool is_terminal = isatty(STDERR_FILENO) == 1;
  FT_RETURN_IF_ERROR(client.artifacts().UploadFile(
                         file, sha256, {},
                         [&](int64_t done, int64_t total) {
                           if (is_terminal && total > (8 << 20)) {
                             std::fprintf(stderr, "\r%s: %s of %s ",
                                          path.c_str(),
                                          FormatBytes(done).c_str(),
                                          FormatBytes(total).c_str());
                           }
                         }),
                     "upload of ", path);
  // The name is for messages; the folder is the user's own affair.
  path = BaseName(path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::JobSpec> ReadJobFile(const std::string& path,
                                        std::string& folder) {
  const bool is_stdin = path == "-";
  folder = is_stdin ? "." : DirName(path);
  FT_ASSIGN_OR_RETURN(const std::string text, ReadJobText(path));
  return ParseJobFile(text, is_stdin ? "stdin" : path, JobFilePlace{folder});
}

int CheckData(const std::string& job_file, bool quiet) {
  if (job_file == "-") {
    std::fprintf(stderr,
                 "From stdin only the job file was checked, not data and "
                 "model.\n");
    return 0;
  }
  if (!FindTrainProgram().ok()) {
    std::fprintf(stderr,
                 "ft-train is not installed here: only the job file was "
                 "checked, not data and model.\n");
    return 0;
  }
  const absl::StatusOr<int> code = RunTrainProgram(
      quiet ? std::vector<std::string>{"check", job_file, "--model_root",
                                       ModelRootDir(), "--quiet"}
            : std::vector<std::string>{"check", job_file, "--model_root",
                                       ModelRootDir()});
  return code.ok() ? *code : Fail(code.status());
}

absl::StatusOr<v1::Job> Submit(Client& client, v1::JobSpec spec,
                               const std::string& folder,
                               const std::string& request_id) {
  for (v1::Dataset& dataset : *spec.mutable_data()->mutable_train()) {
    int64_t bytes = 0;
    FT_RETURN_IF_ERROR(UploadData(client, folder, *dataset.mutable_path(),
                                  *dataset.mutable_sha256(), bytes));
    dataset.set_bytes(bytes);
  }
  v1::Validation& validation = *spec.mutable_data()->mutable_validation();
  if (validation.has_path()) {
    int64_t bytes = 0;
    FT_RETURN_IF_ERROR(UploadData(client, folder, *validation.mutable_path(),
                                  *validation.mutable_sha256(), bytes));
    validation.set_bytes(bytes);
  } else if (!validation.has_share()) {
    spec.mutable_data()->clear_validation();
  }
  v1::CreateJobRequest request;
  *request.mutable_spec() = std::move(spec);
  request.set_request_id(request_id.empty() ? MakeRequestId() : request_id);
  const bool is_local =
      IsDirectory(JoinPath(ModelRootDir(), request.spec().model().base()));
  const absl::Time deadline = absl::Now() + kModelTimeout;
  while (true) {
    const absl::StatusOr<v1::Job> job = client.CreateJob(request);
    if (job.ok() || !is_local || ReasonOf(job.status()) != "UNKNOWN_MODEL" ||
        absl::Now() > deadline) {
      return job;
    }
    absl::SleepFor(kModelPoll);
  }
}

}  // namespace ft
