// SPDX-License-Identifier: Apache-2.0
//
// SQLite's files under a FaultEnv: a VFS that asks it before each call that
// changes something, does the call with the VFS that was there before, and
// records it.

#include <sqlite3.h>

#include <cerrno>
#include <new>
#include <utility>

#include "common/check.h"
#include "common/file.h"
#include "tests/testing/fault_env.h"

namespace ft::testing {
namespace {

using Kind = DiskRecord::Op::Kind;

FaultEnv* faults = nullptr;
sqlite3_vfs* below = nullptr;
sqlite3_vfs fault_vfs;

// What SQLite holds; the file of the VFS below lies behind it.
struct FaultFile {
  sqlite3_file base;
  int file;           // -1: not ours to fail.
  const char* path;   // SQLite's own; lives as long as the file.
  bool syncs_folder;  // With its next sync: it may be new.
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

FaultFile* Of(sqlite3_file* file) { return reinterpret_cast<FaultFile*>(file); }

int WriteError(int error) {
  return error == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

std::string Relative(const char* path) {
  std::string relative;
  FT_CHECK(faults->IsBelow(path, &relative));
  return relative;
}

void SyncFolder(const char* path) {
  const std::string relative = Relative(path);
  faults->Note({.kind = Kind::kSyncDir,
                .path = relative.find('/') == std::string::npos
                            ? ""
                            : DirName(relative)});
}

int Close(sqlite3_file* file) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods == nullptr ? SQLITE_OK : real->pMethods->xClose(real);
}

int Read(sqlite3_file* file, void* into, int size, sqlite3_int64 offset) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xRead(real, into, size, offset);
}

int Write(sqlite3_file* file, const void* bytes, int size,
          sqlite3_int64 offset) {
  FaultFile* ours = Of(file);
  sqlite3_file* real = ours->real();
  if (ours->file < 0) return real->pMethods->xWrite(real, bytes, size, offset);
  const int error = faults->Before(FaultEnv::Call::kGrow);
  const int part = error == 0 ? size : size / 2;
  const int code = real->pMethods->xWrite(real, bytes, part, offset);
  if (code != SQLITE_OK) return code;
  faults->Note({.kind = Kind::kWrite,
                .file = ours->file,
                .offset = offset,
                .bytes = std::string(static_cast<const char*>(bytes), part)});
  return error == 0 ? SQLITE_OK : WriteError(error);
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  FaultFile* ours = Of(file);
  sqlite3_file* real = ours->real();
  if (ours->file >= 0) {
    if (faults->Before(FaultEnv::Call::kOther) != 0)
      return SQLITE_IOERR_TRUNCATE;
    faults->Note({.kind = Kind::kTruncate, .file = ours->file, .offset = size});
  }
  return real->pMethods->xTruncate(real, size);
}

int Sync(sqlite3_file* file, int flags) {
  FaultFile* ours = Of(file);
  if (ours->file < 0) return ours->real()->pMethods->xSync(ours->real(), flags);
  if (faults->Before(FaultEnv::Call::kSync, ours->path) != 0)
    return SQLITE_IOERR_FSYNC;
  faults->Note({.kind = Kind::kSync, .file = ours->file});
  if (std::exchange(ours->syncs_folder, false)) SyncFolder(ours->path);
  return SQLITE_OK;
}

int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xFileSize(real, size);
}
int Lock(sqlite3_file* file, int level) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xLock(real, level);
}
int Unlock(sqlite3_file* file, int level) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xUnlock(real, level);
}
int CheckReservedLock(sqlite3_file* file, int* is_locked) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xCheckReservedLock(real, is_locked);
}
int FileControl(sqlite3_file* file, int op, void* argument) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xFileControl(real, op, argument);
}
int SectorSize(sqlite3_file* file) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xSectorSize(real);
}
int DeviceCharacteristics(sqlite3_file* file) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xDeviceCharacteristics(real);
}
int ShmMap(sqlite3_file* file, int page, int size, int extend,
           void volatile** at) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xShmMap(real, page, size, extend, at);
}
int ShmLock(sqlite3_file* file, int offset, int n, int flags) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xShmLock(real, offset, n, flags);
}
void ShmBarrier(sqlite3_file* file) {
  sqlite3_file* real = Of(file)->real();
  real->pMethods->xShmBarrier(real);
}
int ShmUnmap(sqlite3_file* file, int remove) {
  sqlite3_file* real = Of(file)->real();
  return real->pMethods->xShmUnmap(real, remove);
}

constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,  // Without xFetch: nothing is written through a mapping.
    .xClose = Close,
    .xRead = Read,
    .xWrite = Write,
    .xTruncate = Truncate,
    .xSync = Sync,
    .xFileSize = FileSize,
    .xLock = Lock,
    .xUnlock = Unlock,
    .xCheckReservedLock = CheckReservedLock,
    .xFileControl = FileControl,
    .xSectorSize = SectorSize,
    .xDeviceCharacteristics = DeviceCharacteristics,
    .xShmMap = ShmMap,
    .xShmLock = ShmLock,
    .xShmBarrier = ShmBarrier,
    .xShmUnmap = ShmUnmap,
};

int OpenFile(sqlite3_vfs*, const char* path, sqlite3_file* file, int flags,
             int* out_flags) {
  auto* ours = new (file) FaultFile{.base = {}, .file = -1, .path = path};
  ours->real()->pMethods = nullptr;
  std::string relative;
  const bool is_ours = path != nullptr && faults->IsBelow(path, &relative);
  const bool is_new = is_ours && !Exists(path);
  if (is_new && faults->Before(FaultEnv::Call::kGrow) != 0)
    return SQLITE_CANTOPEN;
  const int code = below->xOpen(below, path, ours->real(), flags, out_flags);
  if (code != SQLITE_OK) return code;
  ours->base.pMethods = &kMethods;
  if (!is_ours) return SQLITE_OK;
  ours->file = faults->FileAt(path, is_new);
  ours->syncs_folder =
      (flags & SQLITE_OPEN_CREATE) != 0 &&
      (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
  return SQLITE_OK;
}

int DeleteFile(sqlite3_vfs*, const char* path, int sync_folder) {
  std::string relative;
  if (!faults->IsBelow(path, &relative)) {
    return below->xDelete(below, path, sync_folder);
  }
  if (faults->Before(FaultEnv::Call::kOther) != 0) return SQLITE_IOERR_DELETE;
  faults->Forget(path);
  const int code = below->xDelete(below, path, /*syncDir=*/0);
  if (code != SQLITE_OK) return code;
  faults->Note({.kind = Kind::kUnlink, .path = relative});
  if (sync_folder != 0) SyncFolder(path);
  return SQLITE_OK;
}

}  // namespace

void InstallFaultVfs(FaultEnv& env) {
  FT_CHECK(sqlite3_initialize() == SQLITE_OK);
  faults = &env;
  below = sqlite3_vfs_find(nullptr);
  fault_vfs = *below;
  fault_vfs.pNext = nullptr;
  fault_vfs.zName = "faults";
  fault_vfs.szOsFile = static_cast<int>(sizeof(FaultFile)) + below->szOsFile;
  fault_vfs.xOpen = OpenFile;
  fault_vfs.xDelete = DeleteFile;
  FT_CHECK(sqlite3_vfs_register(&fault_vfs, /*makeDflt=*/1) == SQLITE_OK);
}

void UninstallFaultVfs() {
  FT_CHECK(sqlite3_vfs_unregister(&fault_vfs) == SQLITE_OK);
  FT_CHECK(sqlite3_vfs_register(below, /*makeDflt=*/1) == SQLITE_OK);
  faults = nullptr;
}

}  // namespace ft::testing
