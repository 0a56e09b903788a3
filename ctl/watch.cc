// SPDX-License-Identifier: Apache-2.0

#include "ctl/watch.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/bytes.h"
#include "ctl/output.h"

namespace ft {
namespace {

std::string watched_job;

// Only what is safe in a handler.
void StopWatching(int) {
  constexpr char kText[] =
      "\nStopped watching; the job goes on. Watch again with: ftctl watch ";
  [[maybe_unused]] ssize_t put = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  put = write(STDERR_FILENO, watched_job.c_str(), watched_job.size());
  put = write(STDERR_FILENO, "\n", 1);
  _exit(130);
}

std::string ProgressLine(const v1::StepMetrics& step) {
  const double left =
      static_cast<double>(step.total_steps() - step.step()) * step.seconds();
  return absl::StrFormat(
      "step %d/%d  loss %.4f  lr %.2e  %.0f tok/s  %s  %s left", step.step(),
      step.total_steps(), step.loss(), step.learning_rate(),
      step.seconds() > 0 ? static_cast<double>(step.tokens()) / step.seconds()
                         : 0.0,
      FormatBytes(step.peak_rss_bytes()), DurationText(left));
}

// Thread-safe.
class Screen {
 public:
  explicit Screen(bool is_live) : is_live_(is_live) {}

  // A line that stays.
  void Say(const std::string& line) {
    absl::MutexLock lock(&mutex_);
    SayLocked(line);
  }
  // The line that the next one replaces.
  void Show(const std::string& line) {
    absl::MutexLock lock(&mutex_);
    if (!is_live_) return SayLocked(line);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
    has_live_line_ = true;
  }
  // The live line stays as it is.
  void End() {
    absl::MutexLock lock(&mutex_);
    if (has_live_line_) std::fprintf(stderr, "\n");
    has_live_line_ = false;
  }

 private:
  void SayLocked(const std::string& line)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (is_live_ && has_live_line_) std::fprintf(stderr, "\r\033[K");
    std::fprintf(stderr, "%s\n", line.c_str());
    has_live_line_ = false;
  }
  const bool is_live_;
  absl::Mutex mutex_;
  bool has_live_line_ ABSL_GUARDED_BY(mutex_) = false;
};

// Says why a job waits, and again when that changes. The stream of a watch has
// changes of the job alone, and a job that waits does not change.
class WaitTeller {
 public:
  WaitTeller(const GlobalOptions& options, std::string job_id, Screen& screen)
      : job_id_(std::move(job_id)),
        screen_(screen),
        thread_([this, options] { Loop(options); }) {}
  ~WaitTeller() {
    {
      absl::MutexLock lock(&mutex_);
      closing_ = true;
    }
    thread_.join();
  }

 private:
  static constexpr absl::Duration kLook = absl::Seconds(1);

  void Loop(const GlobalOptions& options) {
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Connect(options);
    std::string said;
    while (client.ok()) {
      {
        absl::MutexLock lock(&mutex_);
        if (mutex_.AwaitWithTimeout(absl::Condition(&closing_), kLook)) return;
      }
      const absl::StatusOr<v1::Job> job = (*client)->GetJob(job_id_);
      if (!job.ok()) continue;  // The watch itself tells of it.
      const std::string& why = job->status().waiting_for();
      if (!why.empty() && why != said) screen_.Say("waits: " + why);
      said = why;
    }
  }

  const std::string job_id_;
  Screen& screen_;
  absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

void PrintSummary(const v1::Job& job) {
  const v1::JobStatus& status = job.status();
  std::fprintf(stderr, "%s %s", job.job_id().c_str(),
               StateName(status.state()).c_str());
  if (status.started().seconds() > 0 && status.ended().seconds() > 0) {
    std::fprintf(stderr, " after %s",
                 DurationText(static_cast<double>(status.ended().seconds() -
                                                  status.started().seconds()))
                     .c_str());
  }
  std::fprintf(stderr, ", %d attempt%s\n", status.attempts_size(),
               status.attempts_size() == 1 ? "" : "s");
  if (status.progress().step() > 0) {
    std::fprintf(stderr, "  last step      %ld, loss %.4f\n",
                 static_cast<long>(status.progress().step()),
                 status.progress().loss());
  }
  if (status.evaluation().has_eval_loss()) {
    std::fprintf(stderr, "  validation     loss %.4f after step %ld\n",
                 status.evaluation().eval_loss(),
                 static_cast<long>(status.evaluation().step()));
  }
  if (!status.artifact_name().empty()) {
    std::fprintf(stderr, "  result         ftctl fetch %s\n",
                 job.job_id().c_str());
  }
  if (!status.message().empty()) {
    std::fprintf(stderr, "  %s%s%s\n", status.reason().c_str(),
                 status.reason().empty() ? "" : ": ", status.message().c_str());
  }
  if (status.state() == v1::JOB_STATE_HELD) {
    std::fprintf(stderr, "  %s\n", AdviceForHeld(job.job_id()).c_str());
  }
}

}  // namespace

void SayBreak(const absl::Status&) {
  std::fprintf(stderr, "%sthe coordinator is away; trying again\n",
               isatty(STDERR_FILENO) == 1 ? "\r\033[K" : "");
}

int ExitCodeOfJob(const v1::Job& job) {
  switch (job.status().state()) {
    case v1::JOB_STATE_SUCCEEDED:
      return 0;
    case v1::JOB_STATE_CANCELLED:
      return 11;
    case v1::JOB_STATE_HELD:
      return 12;
    default:
      return 10;
  }
}

int WatchToEnd(Client& client, const GlobalOptions& options,
               const std::string& job_id) {
  watched_job = job_id;
  signal(SIGINT, &StopWatching);
  const bool as_messages = IsMessageOutput(options);
  Screen screen(isatty(STDERR_FILENO) == 1 && !as_messages);
  client.OnBreak(&SayBreak);
  std::optional<WaitTeller> teller;
  if (!as_messages) teller.emplace(options, job_id, screen);
  const absl::Status status =
      client.WatchJob(job_id, [&](const v1::WatchJobResponse& update) {
        if (as_messages) {
          PrintStreamed(options, update);
        } else if (update.has_event()) {
          screen.Say(update.event().message());
        } else if (update.has_progress() &&
                   !update.progress().has_eval_loss()) {
          // An evaluation is told by its event.
          screen.Show(ProgressLine(update.progress()));
        }
        if (update.has_job()) {
          // A held job waits for a person; whoever watches is the nearest.
          return update.job().status().state() != v1::JOB_STATE_HELD;
        }
        return true;
      });
  teller.reset();
  signal(SIGINT, SIG_DFL);
  if (!status.ok()) return Fail(status);
  const absl::StatusOr<v1::Job> job = client.GetJob(job_id);
  if (!job.ok()) return Fail(job.status());
  if (!as_messages) {
    screen.End();
    PrintSummary(*job);
  }
  return ExitCodeOfJob(*job);
}

}  // namespace ft
