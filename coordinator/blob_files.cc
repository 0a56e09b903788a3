// SPDX-License-Identifier: Apache-2.0

#include "coordinator/blob_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/env.h"
#include "common/failpoint.h"
#include "common/no_space.h"
#include "common/status.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

constexpr int64_t kMaxPieceBytes = 1 << 20;
constexpr int64_t kMaxBlobBytes = int64_t{1} << 40;
constexpr size_t kDigestChars = 64;
constexpr size_t kReadBytes = 1 << 20;
constexpr int64_t kWritebackBytes = 8 << 20;

absl::Status Invalid(absl::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument,
                     v1::REASON_INVALID_REQUEST, message);
}

absl::Status WrongOffset(int64_t right, int64_t wrong) {
  return ReasonError(
      absl::StatusCode::kOutOfRange, v1::REASON_WRONG_OFFSET,
      absl::StrCat("offset ", wrong, ": the upload goes on at ", right),
      {{"offset", absl::StrCat(right)}});
}

absl::Status NoUpload() {
  return ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                     "no such upload; begin it again");
}

absl::Status NoBlob(const std::string& sha256) {
  return ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                     absl::StrCat("no blob ", sha256));
}

// An error of the disk as the caller is told it.
absl::Status Told(const absl::Status& error) {
  if (!IsNoSpace(error)) return error;
  return ReasonError(
      absl::StatusCode::kResourceExhausted, v1::REASON_STORE_FULL,
      absl::StrCat("the coordinator's disk is full: ", error.message()));
}

absl::Time ModifiedAt(const struct stat& info) {
  return absl::TimeFromTimespec(info.st_mtim);
}

absl::StatusOr<std::string> ReadSome(int fd, int64_t offset, size_t limit) {
  std::string data(limit, '\0');
  size_t done = 0;
  while (done < limit) {
    const ssize_t got = ::pread(fd, data.data() + done, limit - done,
                                offset + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read blob");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  data.resize(done);
  return data;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlobFiles>> BlobFiles::Open(
    const std::string& blob_dir, const std::string& upload_dir) {
  FT_RETURN_IF_ERROR(MakeDirs(blob_dir, 0700));
  FT_RETURN_IF_ERROR(MakeDirs(upload_dir, 0700));
  // A process that died between a rename and its sync left a blob that is seen,
  // but may not be durable.
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> folders,
                      ListDir(blob_dir));
  for (const std::string& folder : folders) {
    FT_RETURN_IF_ERROR(SyncDir(JoinPath(blob_dir, folder)));
  }
  FT_RETURN_IF_ERROR(SyncDir(blob_dir));
  return std::unique_ptr<BlobFiles>(new BlobFiles(blob_dir, upload_dir));
}

std::string BlobFiles::BlobPath(const std::string& sha256) const {
  return JoinPath(JoinPath(blob_dir_, sha256.substr(0, 2)), sha256);
}

std::string BlobFiles::UploadPath(const std::string& upload_id) const {
  return JoinPath(upload_dir_, upload_id);
}

// --- Reading -----------------------------------------------------------------

bool BlobFiles::Has(const std::string& sha256) {
  if (!IsSha256Hex(sha256)) return false;
  absl::MutexLock hold(&blob_mutex_);
  // Whoever asks is about to refer to it: its age begins anew.
  return ::utimensat(AT_FDCWD, BlobPath(sha256).c_str(), nullptr, 0) == 0;
}

absl::StatusOr<std::string> BlobFiles::ReadSmall(const std::string& sha256,
                                                 int64_t max_bytes) {
  if (!Has(sha256)) return NoBlob(sha256);
  FT_ASSIGN_OR_RETURN(std::string bytes, ReadFile(BlobPath(sha256), max_bytes));
  if (Sha256Hex(bytes) != sha256) {
    return ReasonError(
        absl::StatusCode::kDataLoss, v1::REASON_BAD_DIGEST,
        absl::StrCat("blob ", sha256, " no longer has its digest"));
  }
  return bytes;
}

absl::StatusOr<BlobDesk::Piece> BlobFiles::ReadPiece(const std::string& sha256,
                                                     int64_t offset,
                                                     int64_t limit) {
  if (!IsSha256Hex(sha256)) return Invalid("sha256: no SHA-256");
  const UniqueFd file(::open(BlobPath(sha256).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) {
    return errno == ENOENT ? NoBlob(sha256) : ErrnoStatus(errno, sha256);
  }
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus(errno, sha256);
  Piece piece;
  piece.total_bytes = info.st_size;
  if (offset < 0 || offset > piece.total_bytes) {
    return WrongOffset(piece.total_bytes, offset);
  }
  FT_ASSIGN_OR_RETURN(
      piece.data,
      ReadSome(file.get(), offset,
               static_cast<size_t>(std::min(
                   {limit, kMaxPieceBytes, piece.total_bytes - offset}))));
  return piece;
}

// --- Uploads -----------------------------------------------------------------

absl::StatusOr<v1::BeginUploadResponse> BlobFiles::Begin(
    const v1::BeginUploadRequest& request) {
  if (!IsSha256Hex(request.sha256())) return Invalid("sha256: no SHA-256");
  if (request.bytes() < 0) return Invalid("bytes: is negative");
  if (request.bytes() > kMaxBlobBytes) {
    return ReasonError(
        absl::StatusCode::kResourceExhausted, v1::REASON_LIMIT_EXCEEDED,
        absl::StrCat("bytes: ", request.bytes(), " is over ", kMaxBlobBytes));
  }
  v1::BeginUploadResponse response;
  const std::string upload_id =
      absl::StrCat(request.sha256(), "-", request.epoch());
  response.set_upload_id(upload_id);
  if (Has(request.sha256())) {
    response.set_offset(request.bytes());
    response.set_complete(true);
    return response;
  }

  FT_ASSIGN_OR_RETURN(const std::shared_ptr<Upload> upload,
                      FindOrOpen(upload_id, request));
  if (upload->bytes != request.bytes()) {
    return Invalid(
        absl::StrCat("bytes: the upload was begun with ", upload->bytes));
  }
  absl::MutexLock hold(&upload->mutex);
  response.set_offset(upload->offset);
  return response;
}

absl::StatusOr<std::shared_ptr<BlobFiles::Upload>> BlobFiles::FindOrOpen(
    const std::string& upload_id, const v1::BeginUploadRequest& request) {
  absl::MutexLock hold(&mutex_);
  const auto entry = uploads_.find(upload_id);
  if (entry != uploads_.end()) return entry->second;
  auto upload = std::make_shared<Upload>();
  upload->sha256 = request.sha256();
  upload->bytes = request.bytes();
  upload->writer = {request.job_id(), request.epoch()};
  if (const absl::Status opened = Resume(UploadPath(upload_id), *upload);
      !opened.ok()) {
    return Told(opened);
  }
  uploads_[upload_id] = upload;
  Pass(Failpoint::kUploadBegun);
  return upload;
}

// Opens the upload's file and takes up what an earlier process wrote.
absl::Status BlobFiles::Resume(const std::string& path, Upload& upload) {
  absl::MutexLock hold(&upload.mutex);
  upload.file = UniqueFd(Files().Open(
      path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!upload.file.is_open()) return ErrnoStatus(errno, path);
  while (true) {
    FT_ASSIGN_OR_RETURN(const std::string bytes,
                        ReadSome(upload.file.get(), upload.offset, kReadBytes),
                        path);
    if (bytes.empty()) break;
    upload.digest.Update(bytes);
    upload.offset += static_cast<int64_t>(bytes.size());
  }
  if (upload.offset > upload.bytes) {  // Another size was said before.
    if (Files().Truncate(upload.file.get(), 0) != 0)
      return ErrnoStatus(errno, path);
    upload.offset = 0;
    upload.digest = Sha256();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<BlobFiles::Upload>> BlobFiles::Find(
    const std::string& upload_id) {
  absl::MutexLock hold(&mutex_);
  const auto entry = uploads_.find(upload_id);
  if (entry != uploads_.end()) return entry->second;
  return NoUpload();
}

absl::StatusOr<int64_t> BlobFiles::Write(const v1::WriteRequest& request) {
  FT_ASSIGN_OR_RETURN(const std::shared_ptr<Upload> upload,
                      Find(request.upload_id()));
  const std::string& data = request.data();
  const auto size = static_cast<int64_t>(data.size());
  if (size > kMaxPieceBytes) {
    return Invalid(
        absl::StrCat("data: ", size, " bytes; at most ", kMaxPieceBytes));
  }
  if (Crc32c(data) != request.crc32c()) {
    return ReasonError(
        absl::StatusCode::kDataLoss, v1::REASON_BAD_DIGEST,
        absl::StrCat("CRC of the bytes at ", request.offset(), " is wrong"));
  }
  absl::MutexLock hold(&upload->mutex);
  if (upload->is_over) return NoUpload();
  if (request.offset() != upload->offset ||
      upload->offset + size > upload->bytes) {
    return WrongOffset(upload->offset, request.offset());
  }
  // A failed write leaves the offset, and the next one overwrites its part.
  if (::lseek(upload->file.get(), upload->offset, SEEK_SET) < 0) {
    return ErrnoStatus(errno, "upload");
  }
  if (const absl::Status put = WriteAll(upload->file.get(), data); !put.ok()) {
    return Told(put);
  }
  upload->digest.Update(data);
  upload->offset += size;
  if (upload->offset - upload->written_back >= kWritebackBytes) {
    WriteBack(*upload);
  }
  Pass(Failpoint::kUploadWritten);
  return upload->offset;
}

void BlobFiles::WriteBack(Upload& upload) {
  const int fd = upload.file.get();
  ::posix_fadvise(fd, 0, upload.written_back, POSIX_FADV_DONTNEED);
  ::sync_file_range(fd, upload.written_back,
                    upload.offset - upload.written_back, SYNC_FILE_RANGE_WRITE);
  upload.written_back = upload.offset;
}

absl::StatusOr<v1::QueryUploadResponse> BlobFiles::Query(
    const std::string& upload_id) {
  v1::QueryUploadResponse response;
  const absl::StatusOr<std::shared_ptr<Upload>> upload = Find(upload_id);
  if (!upload.ok()) {
    if (!Has(upload_id.substr(0, kDigestChars))) return upload.status();
    response.set_complete(true);
    return response;
  }
  absl::MutexLock hold(&(*upload)->mutex);
  response.set_offset((*upload)->offset);
  return response;
}

absl::StatusOr<v1::FinishUploadResponse> BlobFiles::Finish(
    const std::string& upload_id) {
  // Of an upload that is over: by an earlier call, or one at the same time.
  const auto answer_again = [&]() -> absl::StatusOr<v1::FinishUploadResponse> {
    const std::string sha256 = upload_id.substr(0, kDigestChars);
    if (!Has(sha256)) return NoUpload();
    FT_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(BlobPath(sha256)));
    v1::FinishUploadResponse response;
    response.set_sha256(sha256);
    response.set_bytes(bytes);
    return response;
  };
  const absl::StatusOr<std::shared_ptr<Upload>> found = Find(upload_id);
  if (!found.ok()) return answer_again();
  Upload& upload = **found;
  absl::Status status;
  {
    absl::MutexLock hold(&upload.mutex);
    if (upload.is_over) return answer_again();
    if (upload.offset != upload.bytes) {
      return WrongOffset(upload.offset, upload.bytes);
    }
    upload.is_over = true;
    const std::string path = UploadPath(upload_id);
    const std::string digest = upload.digest.FinishHex();
    if (digest != upload.sha256) {
      RemoveFile(path).IgnoreError();  // Swept later otherwise.
      status = ReasonError(absl::StatusCode::kDataLoss, v1::REASON_BAD_DIGEST,
                           absl::StrCat("the bytes have digest ", digest,
                                        ", not ", upload.sha256));
    } else {
      Pass(Failpoint::kBlobChecked);
      status = Sync(upload.file.get(), path);
      Pass(Failpoint::kBlobSynced);
      if (status.ok()) status = Publish(path, BlobPath(digest));
    }
  }
  absl::MutexLock hold(&mutex_);
  uploads_.erase(upload_id);
  if (!status.ok()) return Told(status);
  v1::FinishUploadResponse response;
  response.set_sha256(upload.sha256);
  response.set_bytes(upload.bytes);
  return response;
}

absl::Status BlobFiles::Publish(const std::string& path,
                                const std::string& blob_path) {
  absl::MutexLock hold(&blob_mutex_);
  FT_RETURN_IF_ERROR(MakeDirs(DirName(blob_path), 0700));
  FT_RETURN_IF_ERROR(RenameDurably(path, blob_path));
  Pass(Failpoint::kBlobRenamed);
  return absl::OkStatus();
}

absl::StatusOr<BlobDesk::Writer> BlobFiles::WriterOf(
    const std::string& upload_id) {
  FT_ASSIGN_OR_RETURN(const std::shared_ptr<Upload> upload, Find(upload_id));
  return upload->writer;
}

// --- Sweeping ----------------------------------------------------------------

absl::StatusOr<BlobFiles::Swept> BlobFiles::Sweep(
    const std::set<std::string>& referenced, absl::Time blobs_before,
    absl::Time uploads_before) {
  Swept swept;
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> folders,
                      ListDir(blob_dir_));
  for (const std::string& folder : folders) {
    FT_ASSIGN_OR_RETURN(const int removed,
                        SweepBlobs(folder, referenced, blobs_before));
    swept.blobs += removed;
  }
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> uploads,
                      ListDir(upload_dir_));
  for (const std::string& upload_id : uploads) {
    struct stat info{};
    const std::string path = UploadPath(upload_id);
    absl::MutexLock hold(&mutex_);
    if (::stat(path.c_str(), &info) != 0 ||
        ModifiedAt(info) >= uploads_before) {
      continue;
    }
    uploads_.erase(upload_id);
    FT_RETURN_IF_ERROR(RemoveFile(path));
    ++swept.uploads;
  }
  return swept;
}

absl::StatusOr<int> BlobFiles::SweepBlobs(
    const std::string& folder, const std::set<std::string>& referenced,
    absl::Time before) {
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ListDir(JoinPath(blob_dir_, folder)));
  int removed = 0;
  for (const std::string& sha256 : names) {
    if (!IsSha256Hex(sha256) || referenced.contains(sha256)) continue;
    const std::string path = BlobPath(sha256);
    struct stat info{};
    absl::MutexLock hold(&blob_mutex_);
    if (::stat(path.c_str(), &info) != 0 || ModifiedAt(info) >= before) {
      continue;
    }
    Pass(Failpoint::kSweepBlob);
    FT_RETURN_IF_ERROR(RemoveFile(path));
    ++removed;
  }
  return removed;
}

}  // namespace ft
