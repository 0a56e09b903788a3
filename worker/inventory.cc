// SPDX-License-Identifier: Apache-2.0

#include "worker/inventory.h"

#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/file.h"

namespace ft {
namespace {

// The classes within which results are equal to the bit; the names of
// kernels/isa.h, which the daemons do not link.
std::string IsaClass() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2")) return "avx2";
#endif
  return "baseline";
}

// The first line of a small system file; empty if it cannot be read.
std::string LineOf(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, 1 << 20);
  if (!text.ok()) return "";
  return std::string(absl::StripAsciiWhitespace(
      absl::string_view(*text).substr(0, text->find('\n'))));
}

std::string CpuModel() {
  const absl::StatusOr<std::string> text = ReadFile("/proc/cpuinfo", 1 << 22);
  if (!text.ok()) return "";
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(parts.first) == "model name") {
      return std::string(absl::StripAsciiWhitespace(parts.second));
    }
  }
  return "";
}

int Cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

int64_t MemoryBytes() {
  struct sysinfo info = {};
  sysinfo(&info);
  int64_t bytes = static_cast<int64_t>(info.totalram) * info.mem_unit;
  int64_t limit = 0;
  if (absl::SimpleAtoi(LineOf("/sys/fs/cgroup/memory.max"), &limit) &&
      limit > 0) {
    bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace

std::string BootId() { return LineOf("/proc/sys/kernel/random/boot_id"); }

v1::Inventory TakeInventory(const WorkerConfig& config) {
  v1::Inventory inventory;
  char hostname[256] = "";
  gethostname(hostname, sizeof(hostname) - 1);
  inventory.set_hostname(hostname);
  inventory.set_cpus(Cpus());
  inventory.set_memory_bytes(MemoryBytes());
  inventory.set_isa_class(IsaClass());
  inventory.set_cpu_model(CpuModel());
  for (int i = 0; i < config.slots; ++i) {
    v1::Slot* slot = inventory.add_slots();
    slot->set_index(i);
    slot->set_kind(v1::DEVICE_KIND_CPU);
    slot->set_memory_bytes(inventory.memory_bytes() / config.slots);
  }
  const absl::StatusOr<int64_t> free_bytes = FreeBytes(config.data_dir);
  if (free_bytes.ok()) inventory.set_disk_free_bytes(*free_bytes);
  return inventory;
}

}  // namespace ft
