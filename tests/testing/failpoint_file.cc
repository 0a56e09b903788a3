// SPDX-License-Identifier: Apache-2.0

#include "tests/testing/failpoint_file.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "common/check.h"
#include "common/file.h"

namespace ft::testing {

FailpointFile::FailpointFile(const std::string& path) : path_(path) {
  const UniqueFd fd(
      open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  FT_CHECK(fd.is_open());
  FT_CHECK(ftruncate(fd.get(), sizeof(FailpointTable)) == 0);
  void* const mapped = mmap(nullptr, sizeof(FailpointTable),
                            PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  FT_CHECK(mapped != MAP_FAILED);
  table_ = static_cast<FailpointTable*>(mapped);
  table_->magic = FailpointTable::kMagic;
}

FailpointFile::~FailpointFile() { munmap(table_, sizeof(FailpointTable)); }

void FailpointFile::Arm(Failpoint point, int64_t nth) {
  slot(point).countdown.store(nth);
}

void FailpointFile::Disarm(Failpoint point) { slot(point).countdown.store(0); }

}  // namespace ft::testing
