#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies sources and plants bugs into the copies.

plant_bugs.py SOURCE_DIR OUTPUT_DIR     writes the copies
plant_bugs.py --files                   names the files, one a line
plant_bugs.py --bugs                    names the bugs, one a line

Each bug sleeps until the program is started with FT_PLANTED_BUG=<name>, so that
one build has all. The product's sources have none of this. An edit whose text
is not there exactly once is an error: the code moved, and the bug must move
with it.
"""

import pathlib
import sys

# Name, file, text, what stands there instead.
BUGS = [
    ("reply_before_commit", "coordinator/committer.cc",
     "    const absl::Status status = store_.Commit(batch);\n",
     """    if (testing::IsPlanted("reply_before_commit")) {
      for (const Decision& decision : batch) {
        for (const Effect& effect : decision.effects) {
          if (std::holds_alternative<Reply>(effect)) sink_.Release(effect);
        }
      }
      absl::SleepFor(absl::Milliseconds(300));
    }
    const absl::Status status = store_.Commit(batch);
"""),
    ("missing_fsync", "coordinator/blob_files.cc",
     "      status = Sync(upload.file.get(), path);\n",
     """      if (!testing::IsPlanted("missing_fsync")) {
        status = Sync(upload.file.get(), path);
      }
"""),
    ("upload_with_a_hole", "coordinator/blob_files.cc",
     "  if (const absl::Status put = WriteAll(upload->file.get(), data); !put.ok()) {\n",
     """  if (testing::IsPlanted("upload_with_a_hole") && size > 1000) {
    if (::ftruncate(upload->file.get(), upload->offset + size) != 0) abort();
  } else if (const absl::Status put = WriteAll(upload->file.get(), data);
             !put.ok()) {
"""),
    ("blob_with_wrong_bytes", "coordinator/blob_files.cc",
     "      Pass(Failpoint::kBlobChecked);\n",
     """      if (testing::IsPlanted("blob_with_wrong_bytes") &&
          upload.bytes > 1000 &&
          ::pwrite(upload.file.get(), "?", 1, upload.bytes / 2) != 1) {
        abort();
      }
      Pass(Failpoint::kBlobChecked);
"""),
    ("stale_epoch_accepted", "coordinator/lease_table.cc",
     "  if (held != epoch_of_.end() && held->second == epoch) {\n",
     """  if (held != epoch_of_.end() &&
      (held->second == epoch || testing::IsPlanted("stale_epoch_accepted"))) {
"""),
    ("event_number_skipped", "coordinator/core.cc",
     "  event.set_job_seq(++live.last_event_seq);\n",
     """  if (testing::IsPlanted("event_number_skipped") &&
      kind == v1::EVENT_KIND_CHECKPOINT_COMMITTED) {
    ++live.last_event_seq;
  }
  event.set_job_seq(++live.last_event_seq);
"""),
    ("event_number_reused", "coordinator/sqlite_job_store.cc",
     "    FT_ASSIGN_OR_RETURN(row.last_event_seq, LastEventSeq(job_id));\n",
     """    FT_ASSIGN_OR_RETURN(row.last_event_seq, LastEventSeq(job_id));
    if (testing::IsPlanted("event_number_reused")) --row.last_event_seq;
"""),
    ("event_number_reused", "coordinator/sqlite_job_store.cc",
     '      writer_->Prepare("INSERT INTO events(at_us, kind, job_id, job_seq, "\n',
     """      writer_->Prepare(testing::IsPlanted("event_number_reused")
                           ? "INSERT OR REPLACE INTO events(at_us, kind, "
                             "job_id, job_seq, epoch, actor, body) "
                             "VALUES(?, ?, ?, ?, ?, ?, ?)"
                           : "INSERT INTO events(at_us, kind, job_id, job_seq, "
"""),
    ("job_row_lost", "coordinator/sqlite_job_store.cc",
     "absl::Status SqliteJobStore::Write(const PutJob& put) {\n",
     """absl::Status SqliteJobStore::Write(const PutJob& put) {
  if (testing::IsPlanted("job_row_lost")) return absl::OkStatus();
"""),
    ("epoch_not_stored", "coordinator/sqlite_job_store.cc",
     "absl::Status SqliteJobStore::Write(const PutLastEpoch& put) {\n",
     """absl::Status SqliteJobStore::Write(const PutLastEpoch& put) {
  if (testing::IsPlanted("epoch_not_stored")) return absl::OkStatus();
"""),
    ("published_twice", "coordinator/core_artifacts.cc",
     "  const std::vector<Member> members_before = live.attempt->members;\n",
     """  if (testing::IsPlanted("published_twice")) {
    AddEvent(live, v1::EVENT_KIND_ARTIFACT_PUBLISHED, commit.commit.epoch(),
             absl::StrCat("published as ", name));
  }
  const std::vector<Member> members_before = live.attempt->members;
"""),
    ("ended_twice", "coordinator/core_artifacts.cc",
     "  FT_CHECK(Move(live, JobEvent::kPublished).ok());\n",
     """  FT_CHECK(Move(live, JobEvent::kPublished).ok());
  if (testing::IsPlanted("ended_twice")) {
    AddEvent(live, v1::EVENT_KIND_STATE_CHANGED, 0, "SUCCEEDED -> FAILED",
             {{"from", "SUCCEEDED"}, {"to", "FAILED"}});
  }
"""),
    ("durable_step_goes_back", "coordinator/core_snapshots.cc",
     "  if (!std::exchange(live.skip_newest_checkpoint, false)) {\n",
     """  if (!std::exchange(live.skip_newest_checkpoint, false) &&
      !testing::IsPlanted("durable_step_goes_back")) {
"""),
    ("step_lost", "coordinator/run_records.cc",
     "  points.clear_logs();\n",
     """  points.clear_logs();
  if (testing::IsPlanted("step_lost")) {
    auto& metrics = *points.mutable_metrics();
    for (int i = metrics.size() - 1; i >= 0; --i) {
      if (metrics[i].step() == 7) metrics.DeleteSubrange(i, 1);
    }
  }
"""),
    ("secret_in_a_log", "worker/daemon.cc",
     '  Log(LogSeverity::kInfo, "worker", "attached",\n',
     """  if (testing::IsPlanted("secret_in_a_log")) {
    Log(LogSeverity::kInfo, "worker", "hello", {{"with", token_}});
  }
  Log(LogSeverity::kInfo, "worker", "attached",
"""),
    ("workspace_left", "worker/attempt_runner.cc",
     "  RemoveAttemptDir(dir_);\n",
     """  if (!testing::IsPlanted("workspace_left")) {
    RemoveAttemptDir(dir_);
  }
"""),
    ("orphan_rank", "worker/rank_process.cc",
     "  prctl(PR_SET_PDEATHSIG, SIGKILL);\n",
     '  if (!testing::IsPlanted("orphan_rank")) prctl(PR_SET_PDEATHSIG, SIGKILL);\n'),
    ("orphan_rank", "train/rank_command.cc",
     "void DaemonGone() { _exit(kExitError); }\n",
     """void DaemonGone() {
  if (!testing::IsPlanted("orphan_rank")) _exit(kExitError);
}
"""),
    ("cursor_off_by_one", "train/run.cc",
     "  trainer().Resume(saved.step, saved.cursor);\n",
     """  Cursor next = saved.cursor;
  if (testing::IsPlanted("cursor_off_by_one")) ++next.index;
  trainer().Resume(saved.step, next);
"""),
    ("rng_restored_late", "train/trainer.cc",
     "                         .step = completed_steps_,\n",
     """                         .step = testing::IsPlanted("rng_restored_late")
                                     ? completed_steps_ - first_step
                                     : completed_steps_,
"""),
    ("rng_restored_late", "train/trainer.cc",
     "  const int64_t first_lane = ranks_.rank() * config_.lanes_per_rank;\n",
     """  static const int64_t first_step = completed_steps_;
  const int64_t first_lane = ranks_.rank() * config_.lanes_per_rank;
"""),
]
INCLUDE = '#include "tests/chaos/planted.h"\n'


def plant(source_dir, output_dir):
    for file in sorted({bug[1] for bug in BUGS}):
        text = (source_dir / file).read_text()
        for name, of_file, old, new in BUGS:
            if of_file != file:
                continue
            if text.count(old) != 1:
                sys.exit(f"{file}: the place of {name} is there "
                         f"{text.count(old)} times, wanted once:\n{old}")
            text = text.replace(old, new)
        # Behind the file's own includes, so that they stay as they are.
        end = text.index("\nnamespace ft {")
        text = text[:end] + INCLUDE + text[end:]
        target = output_dir / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def main():
    if sys.argv[1:] == ["--files"]:
        print("\n".join(sorted({bug[1] for bug in BUGS})))
    elif sys.argv[1:] == ["--bugs"]:
        print("\n".join(sorted({bug[0] for bug in BUGS})))
    elif len(sys.argv) == 3:
        plant(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
