// SPDX-License-Identifier: Apache-2.0
//
// The system calls that change files, behind one pointer: whatever must survive
// a crash is written through it, so that a test can fail, tear, reorder and
// lose any of them. Reading goes to the system directly.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace ft {

// Each call does, returns and leaves in errno what the system call of that name
// does. This class is the system itself; tests derive from it. Thread-safe.
class FileEnv {
 public:
  virtual ~FileEnv() = default;

  virtual int Open(const char* path, int flags, mode_t mode);
  virtual ssize_t Write(int fd, const void* bytes, size_t size);
  virtual ssize_t WriteAt(int fd, const void* bytes, size_t size,
                          int64_t offset);
  virtual int Truncate(int fd, int64_t size);
  // posix_fallocate from the beginning of the file: blocks, not just a size.
  virtual int Allocate(int fd, int64_t size);
  // Of a file or of a folder.
  virtual int Sync(int fd);
  virtual int Rename(const char* from, const char* to);
  virtual int Link(const char* from, const char* to);
  virtual int Unlink(const char* path);
  virtual int MakeDir(const char* path, mode_t mode);
  virtual int RemoveDir(const char* path);
};

// The one that is in use.
FileEnv& Files();

// Puts another in its place; nullptr: the system again. It must outlive its
// use. REQUIRES: no other thread writes files meanwhile.
void ReplaceFiles(FileEnv* env);

}  // namespace ft
