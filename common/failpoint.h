// SPDX-License-Identifier: Apache-2.0
//
// Named points where a test may kill the process that passes them: between a
// commit and its reply, between fsync and rename, in the middle of a step. They
// are in every build, so that what is tested is what runs, and cost one relaxed
// load while nobody opened a table. tests/chaos/README.md tells who does.
//
// Why that is safe in a release: a daemon opens a table only if it was started
// with the hidden flag --failpoints FILE, never because of its environment; a
// rank only if its daemon did. The file must be a private one of the same user,
// and all it can do is to end processes which that user could kill anyway.

#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

// The one list: enumerator, name. The name begins with who passes the point;
// `file` is passed by several programs.
#define FT_FAILPOINTS(X)                                      \
  X(kCoordinatorLoaded, "coordinator.start.loaded")           \
  X(kCommitBegins, "coordinator.commit.begins")               \
  X(kCommitWritten, "coordinator.commit.written")             \
  X(kCommitDurable, "coordinator.commit.durable")             \
  X(kCommitTold, "coordinator.commit.told")                   \
  X(kReply, "coordinator.reply")                              \
  X(kOrder, "coordinator.order")                              \
  X(kReportStored, "coordinator.report.stored")               \
  X(kUploadBegun, "coordinator.upload.begun")                 \
  X(kUploadWritten, "coordinator.upload.written")             \
  X(kBlobChecked, "coordinator.blob.checked")                 \
  X(kBlobSynced, "coordinator.blob.synced")                   \
  X(kBlobRenamed, "coordinator.blob.renamed")                 \
  X(kManifestOfCheckpoint, "coordinator.manifest.checkpoint") \
  X(kManifestOfAdapter, "coordinator.manifest.adapter")       \
  X(kSweepBegins, "coordinator.sweep.begins")                 \
  X(kSweepBlob, "coordinator.sweep.blob")                     \
  X(kWorkerAttached, "worker.attached")                       \
  X(kOrderTaken, "worker.order.taken")                        \
  X(kInputFetched, "worker.input.fetched")                    \
  X(kSourceFetched, "worker.source.fetched")                  \
  X(kSpawnBegins, "worker.spawn.begins")                      \
  X(kSpawned, "worker.spawn.done")                            \
  X(kReadyTold, "worker.ready.told")                          \
  X(kBarrierOpened, "worker.barrier.opened")                  \
  X(kCheckpointHandedOver, "worker.checkpoint.handed_over")   \
  X(kShardUploaded, "worker.checkpoint.shard_uploaded")       \
  X(kShardsThere, "worker.checkpoint.shards_there")           \
  X(kManifestUploaded, "worker.checkpoint.manifest_uploaded") \
  X(kCheckpointCommitted, "worker.checkpoint.committed")      \
  X(kRankGone, "worker.rank.gone")                            \
  X(kRanksDone, "worker.ranks_done")                          \
  X(kPublishBegins, "worker.publish.begins")                  \
  X(kExportUploaded, "worker.publish.uploaded")               \
  X(kPublished, "worker.publish.done")                        \
  X(kEndedTold, "worker.ended.told")                          \
  X(kRankStarted, "rank.started")                             \
  X(kRankAssembled, "rank.assembled")                         \
  X(kRankResumed, "rank.resumed")                             \
  X(kRankReady, "rank.ready")                                 \
  X(kRankBegun, "rank.begun")                                 \
  X(kStepBegins, "rank.step.begins")                          \
  X(kReduceBegins, "rank.reduce.begins")                      \
  X(kReduced, "rank.reduce.done")                             \
  X(kUpdateBegins, "rank.update.begins")                      \
  X(kUpdated, "rank.update.done")                             \
  X(kStepTold, "rank.step.told")                              \
  X(kEvaluated, "rank.evaluated")                             \
  X(kTensorsWritten, "rank.tensors.written")                  \
  X(kTensorsSynced, "rank.tensors.synced")                    \
  X(kTensorsRenamed, "rank.tensors.renamed")                  \
  X(kCheckpointBegins, "rank.checkpoint.begins")              \
  X(kShardWritten, "rank.checkpoint.shard_written")           \
  X(kShardsGathered, "rank.checkpoint.gathered")              \
  X(kCheckpointWritten, "rank.checkpoint.json_written")       \
  X(kCheckpointTold, "rank.checkpoint.told")                  \
  X(kOldCheckpointsRemoved, "rank.checkpoint.old_removed")    \
  X(kExportWritten, "rank.export.written")                    \
  X(kExportTold, "rank.export.told")                          \
  X(kAtomicWritten, "file.atomic.written")                    \
  X(kAtomicSynced, "file.atomic.synced")                      \
  X(kAtomicRenamed, "file.atomic.renamed")

enum class Failpoint : int {
#define FT_FAILPOINT_ENUMERATOR(enumerator, name) enumerator,
  FT_FAILPOINTS(FT_FAILPOINT_ENUMERATOR)
#undef FT_FAILPOINT_ENUMERATOR
      kCount
};
inline constexpr int kFailpoints = static_cast<int>(Failpoint::kCount);

absl::string_view FailpointName(Failpoint point);
std::optional<Failpoint> FindFailpoint(absl::string_view name);

// A table is a file that all processes of a test map: who dies leaves it as it
// is.
struct FailpointTable {
  static constexpr uint64_t kMagic = 0x31746e696f706c66;  // "flpoint1"

  struct Slot {
    std::atomic<int64_t> passed;     // How often, in all processes.
    std::atomic<int64_t> countdown;  // At 1 the one who passes dies. 0: off.
    std::atomic<int64_t> killed;     // How many died here.
  };

  uint64_t magic;
  Slot slots[kFailpoints];
};

// Opens the table for the rest of the process's life.
// PERMISSION_DENIED: the file is not ours alone. INVALID_ARGUMENT: no table.
absl::Status OpenFailpoints(const std::string& path);

// What was opened; empty: nothing.
const std::string& FailpointsPath();

// How a daemon with a table tells its ranks; removed from their environment
// otherwise.
inline constexpr char kFailpointsVariable[] = "FT_TEST_FAILPOINTS";

namespace internal {
extern std::atomic<FailpointTable*> failpoints;
void PassArmed(FailpointTable& table, Failpoint point);
}  // namespace internal

// The process is at `point`.
inline void Pass(Failpoint point) {
  FailpointTable* const table =
      internal::failpoints.load(std::memory_order_relaxed);
  if (table != nullptr) [[unlikely]] {
    internal::PassArmed(*table, point);
  }
}

}  // namespace ft
