// SPDX-License-Identifier: Apache-2.0
//
// check, submit, list, get, watch, wait, events, logs, metrics, cancel, resume,
// delete.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/id.h"
#include "ctl/client.h"
#include "ctl/command.h"
#include "ctl/output.h"
#include "ctl/submit.h"
#include "ctl/watch.h"
#include "jobspec/from_yaml.h"
#include "jobspec/to_yaml.h"
#include "jobspec/yaml_reader.h"

namespace ft {
namespace {

// Arguments of the chosen verb; there is one a process.
struct Arguments {
  std::string file;
  std::string job;
  bool watch = false;
  bool no_check = false;
  bool follow = false;
  std::optional<int> rank;
  std::optional<int> tail;
  int limit = 50;
  int64_t after_step = 0;
  bool csv = false;
  double timeout_seconds = 0;
  std::string state;       // Of wait --for.
  std::string request_id;  // Empty: a new one.
};
Arguments arguments;

// A step of a job's curve. `training` lies in the response that it was read
// from; null: only an evaluation is stored.
struct CurveRow {
  int64_t step = 0;
  double epoch = 0;
  const v1::StepMetrics* training = nullptr;
  std::optional<double> validation_loss;
};

// A coordinator that restarts is away for less.
constexpr absl::Duration kOutage = absl::Minutes(1);

// Connects and calls `act`; an error becomes the exit code.
template <typename Act>
int WithClient(const GlobalOptions& options, const Act& act) {
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(options);
  if (!client.ok()) return Fail(client.status());
  return act(**client);
}

std::string ProgressOf(const v1::Job& job) {
  const v1::StepMetrics& step = job.status().progress();
  return step.total_steps() == 0
             ? ""
             : absl::StrCat(step.step(), "/", step.total_steps());
}

// "RUNNING", "HELD (POISON)".
std::string StateText(const v1::JobStatus& status) {
  const std::string state = StateName(status.state());
  return status.reason().empty()
             ? state
             : absl::StrCat(state, " (", status.reason(), ")");
}

// The last line after what is wrong with a job.
int NothingSubmitted(int code, const absl::Status& status = absl::OkStatus()) {
  if (absl::IsInvalidArgument(status)) {
    // One line a violation.
    const auto errors =
        std::count(status.message().begin(), status.message().end(), '\n') + 1;
    std::fprintf(stderr, "%ld error%s. ", static_cast<long>(errors),
                 errors == 1 ? "" : "s");
  }
  std::fprintf(stderr, "Nothing was submitted.\n");
  return code;
}

// A model that no worker holds is found late, but stands in the job file.
absl::Status WithPlace(const absl::Status& status) {
  if (ReasonOf(status) != "UNKNOWN_MODEL" || arguments.file == "-") {
    return status;
  }
  const std::string text =
      ReadFile(arguments.file, static_cast<int64_t>(kMaxYamlBytes))
          .value_or("");
  return absl::Status(
      status.code(),
      FieldPlaces(text, arguments.file).Locate(status.message()));
}

int Check(const GlobalOptions& options) {
  std::string folder;
  const absl::StatusOr<v1::JobSpec> spec = ReadJobFile(arguments.file, folder);
  if (!spec.ok()) return Fail(spec.status());
  const int code = CheckData(arguments.file, options.output != "table");
  if (code != 0) return code;
  if (options.output == "yaml") {
    std::fputs(SpecToYaml(*spec).c_str(), stdout);
  } else if (options.output == "json") {
    PrintMessage(options, *spec);
  } else if (options.output == "name") {
    std::printf("%s\n", spec->name().c_str());
  }
  return 0;
}

int SubmitFile(const GlobalOptions& options) {
  std::string folder;
  const absl::StatusOr<v1::JobSpec> spec = ReadJobFile(arguments.file, folder);
  if (!spec.ok()) {
    return NothingSubmitted(Fail(spec.status()), spec.status());
  }
  if (!arguments.no_check) {
    const int code = CheckData(arguments.file, /*quiet=*/true);
    if (code != 0) return NothingSubmitted(code);
  }
  return WithClient(options, [&](Client& client) {
    const absl::StatusOr<v1::Job> job =
        Submit(client, *spec, folder, arguments.request_id);
    if (!job.ok()) {
      const int code = Fail(WithPlace(job.status()));
      // Without an answer nobody knows: the same request_id finds out.
      return code == 7 || code == 8 ? code : NothingSubmitted(code);
    }
    if (IsMessageOutput(options) && arguments.watch) {
      // The first of the stream that the watch goes on with, told already here:
      // whatever becomes of the watch, the id is known.
      v1::WatchJobResponse first;
      *first.mutable_job() = *job;
      PrintStreamed(options, first);
    } else if (IsMessageOutput(options)) {
      PrintMessage(options, *job);
    } else {
      std::printf("%s\n", job->job_id().c_str());
      std::fflush(stdout);
    }
    if (arguments.watch) return WatchToEnd(client, options, job->job_id());
    if (options.output == "table") {
      std::fprintf(stderr, "Follow it with: ftctl watch %s\n",
                   job->job_id().c_str());
    }
    return 0;
  });
}

int List(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    v1::ListJobsRequest request;
    request.set_page_size(arguments.limit);
    const absl::StatusOr<v1::ListJobsResponse> list = client.ListJobs(request);
    if (!list.ok()) return Fail(list.status());
    if (IsMessageOutput(options)) {
      PrintMessage(options, *list);
      return 0;
    }
    std::vector<std::vector<std::string>> rows;
    for (const v1::Job& job : list->jobs()) {
      if (options.output == "name") {
        std::printf("%s\n", job.job_id().c_str());
        continue;
      }
      rows.push_back(
          {job.job_id(), job.spec().name(), StateText(job.status()),
           ProgressOf(job),
           job.status().progress().step() == 0
               ? ""
               : absl::StrFormat("%.4f", job.status().progress().loss()),
           AgeOf(job.status().created())});
    }
    if (options.output != "name") {
      PrintTable(options, {"JOB", "NAME", "STATE", "STEP", "LOSS", "AGE"},
                 rows);
    }
    if (!list->next_page_token().empty()) {
      std::fprintf(stderr, "There may be more: --limit %d\n",
                   std::min(1000, 2 * arguments.limit));
    }
    return 0;
  });
}

// Of the newest attempt; all of them are in -o yaml.
template <typename Add>
void AddExitReport(const v1::JobStatus& status, const Add& add) {
  constexpr int kLines = 5;
  if (status.attempts().empty()) return;
  const v1::ExitReport& report = status.attempts().rbegin()->exit_report();
  const auto& stack = report.stack();
  for (int i = 0; i < std::min(kLines, stack.size()); ++i) {
    add(i == 0 ? "stack" : "", stack[i]);
  }
  const auto& tail = report.log_tail();
  for (int i = std::max(0, tail.size() - kLines); i < tail.size(); ++i) {
    add(i == std::max(0, tail.size() - kLines) ? "last lines" : "", tail[i]);
  }
}

int PrintJob(const GlobalOptions& options, const v1::Job& job) {
  if (options.output == "name") {
    std::printf("%s\n", job.job_id().c_str());
    return 0;
  }
  if (options.output != "table") {
    PrintMessage(options, job);
    return 0;
  }
  const v1::JobStatus& status = job.status();
  std::vector<std::pair<std::string, std::string>> rows = {
      {"job", job.job_id()},
      {"name", job.spec().name()},
      {"state", StateName(status.state())}};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) rows.emplace_back(name, value);
  };
  add("reason", status.reason());
  add("message", status.message());
  if (status.state() == v1::JOB_STATE_HELD) {
    add("what to do", AdviceForHeld(job.job_id()));
  }
  add("waits", status.waiting_for());
  add("step", ProgressOf(job));
  if (status.progress().step() > 0) {
    add("loss", absl::StrFormat("%.4f", status.progress().loss()));
  }
  if (status.evaluation().has_eval_loss()) {
    add("validation",
        absl::StrFormat("%.4f after step %d", status.evaluation().eval_loss(),
                        status.evaluation().step()));
  }
  if (status.checkpoint_step() > 0) {
    add("checkpoint", absl::StrCat("step ", status.checkpoint_step()));
  }
  add("artifact", status.artifact_name());
  add("age", AgeOf(status.created()));
  for (const v1::Attempt& attempt : status.attempts()) {
    std::string text = absl::StrCat("epoch ", attempt.epoch());
    if (attempt.cause() != 0) {
      absl::StrAppend(&text, ", ", CauseName(attempt.cause()));
    }
    if (!attempt.message().empty()) {
      absl::StrAppend(&text, ": ", attempt.message());
    }
    add(absl::StrCat("attempt ", attempt.number()).c_str(), text);
  }
  AddExitReport(status, add);
  PrintFields(rows);
  return 0;
}

int Get(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    const absl::StatusOr<v1::Job> job = client.GetJob(arguments.job);
    return job.ok() ? PrintJob(options, *job) : Fail(job.status());
  });
}

// What a job that has ended, or waits for a person, means for who waited for a
// state.
int EndedWhileWaiting(const GlobalOptions& options, const v1::Job& job) {
  if (options.output != "table") PrintJob(options, job);
  const std::string state = StateName(job.status().state());
  std::fprintf(stderr, "%s\n", StateText(job.status()).c_str());
  if (job.status().state() == v1::JOB_STATE_HELD) {
    std::fprintf(stderr, "%s\n%s\n", job.status().message().c_str(),
                 AdviceForHeld(job.job_id()).c_str());
  }
  if (arguments.state.empty() || arguments.state == state) {
    return arguments.state == state ? 0 : ExitCodeOfJob(job);
  }
  return job.status().state() == v1::JOB_STATE_SUCCEEDED ? 6
                                                         : ExitCodeOfJob(job);
}

int Wait(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    const absl::Time deadline =
        arguments.timeout_seconds > 0
            ? absl::Now() + absl::Seconds(arguments.timeout_seconds)
            : absl::InfiniteFuture();
    absl::Time heard = absl::Now();
    std::string state = "not known";
    while (true) {
      const absl::StatusOr<v1::Job> job = client.GetJob(arguments.job);
      if (job.ok()) {
        heard = absl::Now();
        state = StateName(job->status().state());
        if (job->status().state() == v1::JOB_STATE_HELD ||
            IsTerminal(job->status().state())) {
          return EndedWhileWaiting(options, *job);
        }
        if (state == arguments.state) {
          return options.output == "table" ? 0 : PrintJob(options, *job);
        }
      } else if (!absl::IsUnavailable(job.status()) ||
                 absl::Now() - heard > kOutage) {
        return Fail(job.status());
      }
      if (absl::Now() > deadline) {
        return Fail(absl::DeadlineExceededError(
            absl::StrCat(arguments.job, " is ", state)));
      }
      absl::SleepFor(absl::Milliseconds(200));
    }
  });
}

std::vector<std::string> RowOf(const v1::Event& event) {
  return {
      absl::StrCat(event.job_seq()),
      absl::FormatTime("%H:%M:%S", absl::FromUnixSeconds(event.at().seconds()),
                       absl::LocalTimeZone()),
      event.epoch() == 0 ? "" : absl::StrCat(event.epoch()),
      v1::EventKind_Name(event.kind()).substr(sizeof("EVENT_KIND_") - 1),
      event.message()};
}

int Events(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    v1::ListEventsRequest request;
    request.set_job_id(arguments.job);
    request.set_page_size(1000);
    v1::ListEventsResponse all;
    do {
      const absl::StatusOr<v1::ListEventsResponse> page =
          client.ListEvents(request);
      if (!page.ok()) return Fail(page.status());
      all.mutable_events()->MergeFrom(page->events());
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    if (IsMessageOutput(options)) {
      PrintMessage(options, all);
      return 0;
    }
    std::vector<std::vector<std::string>> rows;
    for (const v1::Event& event : all.events()) {
      rows.push_back(RowOf(event));
      if (options.output == "name") std::printf("%s\n", rows.back()[3].c_str());
    }
    if (options.output == "table") {
      PrintTable(options, {"SEQ", "TIME", "EPOCH", "EVENT", "MESSAGE"}, rows);
    }
    return 0;
  });
}

int Logs(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    v1::TailLogsRequest request;
    request.set_job_id(arguments.job);
    request.set_follow(arguments.follow);
    if (arguments.tail == 0) {
      // No stored line is younger than now.
      request.mutable_since();
    } else if (arguments.tail.has_value()) {
      request.set_tail_lines(*arguments.tail);
    }
    if (arguments.rank.has_value()) request.set_rank(*arguments.rank);
    client.OnBreak(&SayBreak);
    const absl::Status status =
        client.TailLogs(request, [&](const v1::LogLine& line) {
          if (IsMessageOutput(options)) return PrintStreamed(options, line);
          std::printf("[%d] %s\n", line.rank(), line.text().c_str());
          std::fflush(stdout);
        });
    return status.ok() ? 0 : Fail(status);
  });
}

// The training points; an evaluation stands in the row of its step.
std::vector<CurveRow> CurveOf(const v1::ListMetricsResponse& metrics) {
  std::vector<CurveRow> rows;
  for (const v1::StepMetrics& point : metrics.points()) {
    if (rows.empty() || rows.back().step != point.step()) {
      rows.push_back({.step = point.step(), .epoch = point.epoch()});
    }
    CurveRow& row = rows.back();
    if (point.has_eval_loss()) {
      row.validation_loss = point.eval_loss();
    } else {
      row.training = &point;
    }
  }
  return rows;
}

// The shortest text that reads back as the same number.
std::string Exact(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return std::string(text, end);
}

void PrintCsv(const std::vector<CurveRow>& rows) {
  std::printf(
      "step,epoch,loss,validation_loss,learning_rate,grad_norm,tokens,targets,"
      "seconds\n");
  for (const CurveRow& row : rows) {
    std::vector<std::string> cells(9);
    cells[0] = absl::StrCat(row.step);
    cells[1] = Exact(row.epoch);
    if (const v1::StepMetrics* step = row.training; step != nullptr) {
      cells[2] = Exact(step->loss());
      cells[4] = Exact(step->learning_rate());
      cells[5] = Exact(step->grad_norm());
      cells[6] = absl::StrCat(step->tokens());
      cells[7] = absl::StrCat(step->targets());
      cells[8] = Exact(step->seconds());
    }
    if (row.validation_loss) cells[3] = Exact(*row.validation_loss);
    std::printf("%s\n", absl::StrJoin(cells, ",").c_str());
  }
}

void PrintCurve(const GlobalOptions& options,
                const std::vector<CurveRow>& rows) {
  std::vector<std::vector<std::string>> table;
  for (const CurveRow& row : rows) {
    std::vector<std::string> cells(8);
    cells[0] = absl::StrCat(row.step);
    cells[1] = absl::StrFormat("%.2f", row.epoch);
    if (const v1::StepMetrics* step = row.training; step != nullptr) {
      cells[2] = absl::StrFormat("%.4f", step->loss());
      cells[4] = absl::StrFormat("%.2e", step->learning_rate());
      cells[5] = absl::StrFormat("%.3f", step->grad_norm());
      cells[6] = absl::StrCat(step->tokens());
      cells[7] = absl::StrFormat("%.2f", step->seconds());
    }
    if (row.validation_loss) {
      cells[3] = absl::StrFormat("%.4f", *row.validation_loss);
    }
    table.push_back(std::move(cells));
  }
  PrintTable(options,
             {"STEP", "EPOCH", "LOSS", "VALIDATION", "RATE", "GRAD NORM",
              "TOKENS", "SECONDS"},
             table);
}

int Metrics(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    const absl::StatusOr<v1::ListMetricsResponse> metrics =
        client.ListMetrics(arguments.job, arguments.after_step);
    if (!metrics.ok()) return Fail(metrics.status());
    const std::vector<CurveRow> rows = CurveOf(*metrics);
    if (arguments.csv) {
      PrintCsv(rows);
    } else if (IsMessageOutput(options)) {
      PrintMessage(options, *metrics);
    } else if (options.output == "name") {
      for (const CurveRow& row : rows) {
        std::printf("%ld\n", static_cast<long>(row.step));
      }
    } else {
      PrintCurve(options, rows);
    }
    return 0;
  });
}

int Cancel(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    const absl::StatusOr<v1::Job> job = client.CancelJob(arguments.job);
    if (!job.ok()) return Fail(job.status());
    if (options.output != "table") return PrintJob(options, *job);
    std::fprintf(stderr, "%s %s\n", job->job_id().c_str(),
                 StateName(job->status().state()).c_str());
    return 0;
  });
}

int Resume(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    const absl::StatusOr<v1::Job> job = client.ResumeJob(arguments.job);
    if (!job.ok()) return Fail(job.status());
    if (options.output != "table") return PrintJob(options, *job);
    std::fprintf(stderr, "%s %s, from step %ld\n", job->job_id().c_str(),
                 StateName(job->status().state()).c_str(),
                 static_cast<long>(job->status().checkpoint_step()));
    return 0;
  });
}

int Delete(const GlobalOptions& options) {
  return WithClient(options, [&](Client& client) {
    const absl::Status status = client.DeleteJob(arguments.job);
    if (!status.ok()) return Fail(status);
    if (IsMessageOutput(options)) {
      PrintValue(options, {{"deleted", arguments.job}});
    } else if (options.output == "name") {
      std::printf("%s\n", arguments.job.c_str());
    } else {
      std::fprintf(stderr, "%s deleted\n", arguments.job.c_str());
    }
    return 0;
  });
}

// "QUEUED", "STARTING", ...
std::vector<std::string> StateNames() {
  std::vector<std::string> names;
  for (int i = v1::JOB_STATE_QUEUED; i <= v1::JobState_MAX; ++i) {
    names.push_back(StateName(static_cast<v1::JobState>(i)));
  }
  return names;
}

}  // namespace

void AddJobCommands(CLI::App& app, GlobalOptions& options, int& code) {
  const auto add = [&](const char* name, const char* help, auto run) {
    CLI::App* command = app.add_subcommand(name, help)->group("Jobs");
    command->callback([&options, &code, run] { code = run(options); });
    return command;
  };
  const auto takes_job = [](CLI::App* command) {
    command->add_option("job", arguments.job, "A job's id")->required();
    return command;
  };

  CLI::App* command = app.add_subcommand(
      "check",
      "Find mistakes in a job file, its data and its model, without a "
      "coordinator\n\n  ftctl check job.yaml\n  ftctl check - < job.yaml   the "
      "job file alone\n  ftctl check job.yaml -o yaml   with every default");
  command->group("Jobs");
  command->add_option("file", arguments.file, "Job file")->required();
  command->callback([&] { code = Check(options); });

  AddPlanCommand(app, options, code);

  command = add("submit",
                "Queue a job, print its id\n\n  ftctl submit job.yaml --watch\n"
                "  JOB=$(ftctl submit job.yaml -o name)\n"
                "  ftctl submit job.yaml --watch -o json   the messages of "
                "watch, one a line",
                SubmitFile);
  command->add_option("file", arguments.file, "Job file, or - for stdin")
      ->required();
  command->add_flag("-w,--watch", arguments.watch, "Follow it until it ends");
  command->add_flag("--no_check", arguments.no_check,
                    "Leave data and model to the worker's own check");
  command
      ->add_option("--request_id", arguments.request_id,
                   "Makes a repeated submit give the same job")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return IsRequestId(text)
                       ? ""
                       : "1 to 64 characters of A-Z, a-z, 0-9, _ and -";
          },
          ""));

  add("list",
      "Jobs, the newest first\n\n  ftctl list --limit 200\n"
      "  ftctl list -o name | xargs -n 1 ftctl get",
      List)
      ->add_option("--limit", arguments.limit, "At most so many")
      ->check(CLI::Range(1, 1000));
  takes_job(
      add("get", "One job\n\n  ftctl get JOB\n  ftctl get JOB -o json", Get));
  takes_job(add("watch",
                "Follow a job's loss until it ends; Ctrl-C leaves the job "
                "alone\n\n  ftctl watch JOB\n  ftctl watch JOB -o json   one "
                "message a line",
                [](const GlobalOptions& given) {
                  return WithClient(given, [&](Client& client) {
                    return WatchToEnd(client, given, arguments.job);
                  });
                }));
  command =
      takes_job(add("wait",
                    "Return when the job has ended or waits for a person: 0 "
                    "succeeded, 10 failed, 11 cancelled, 12 held\n\n  ftctl "
                    "wait JOB --timeout 3600\n"
                    "  ftctl wait JOB --for RUNNING",
                    Wait));
  command
      ->add_option("--timeout", arguments.timeout_seconds,
                   "Seconds, then exit 8; 0: for ever")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--for", arguments.state,
                   "Return in this state already; default: when it has ended")
      ->transform(CLI::IsMember(StateNames(), CLI::ignore_case));
  takes_job(add("events",
                "What happened to a job\n\n  ftctl events JOB\n"
                "  ftctl events JOB -o json",
                Events));
  command = takes_job(add("logs",
                          "What its ranks said\n\n  ftctl logs JOB -f\n"
                          "  ftctl logs JOB --rank 1 --tail 20",
                          Logs));
  command->add_flag("-f,--follow", arguments.follow, "Until the job ends");
  command->add_option("--rank", arguments.rank, "Only this rank; default: all")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--tail", arguments.tail,
                   "Only the last so many lines, and with -f what comes; "
                   "default: all")
      ->check(CLI::NonNegativeNumber);
  command = takes_job(add("metrics",
                          "A job's curve: loss, validation loss, rate of each "
                          "step\n\n  ftctl metrics JOB\n"
                          "  ftctl metrics JOB --csv > curve.csv\n"
                          "  ftctl metrics JOB --after 1000 -o json",
                          Metrics));
  command
      ->add_option("--after", arguments.after_step, "Only steps after this one")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--csv", arguments.csv,
                    "Comma-separated, every digit; whatever -o says");
  takes_job(add("cancel",
                "Stop a job for good; its checkpoints stay\n\n"
                "  ftctl cancel JOB",
                Cancel));
  takes_job(add("resume",
                "Let a held or failed job go on from its last checkpoint\n\n"
                "  ftctl resume JOB",
                Resume));
  takes_job(add("delete",
                "Remove an ended job, its events, logs and checkpoints\n\n"
                "  ftctl delete JOB",
                Delete));
}

}  // namespace ft
