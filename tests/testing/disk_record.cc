// SPDX-License-Identifier: Apache-2.0
//
// What a power loss leaves: the record is played up to a moment, over files
// that have a synced state and a list of what came since.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "tests/testing/fault_env.h"

namespace ft::testing {
namespace {

using Op = DiskRecord::Op;
using Kind = DiskRecord::Op::Kind;
using Loss = DiskRecord::Loss;

constexpr int64_t kSector = 512;
constexpr int kFolder = -1;

// Applies one write or truncation to the bytes of a file.
void Apply(const Op& op, int64_t begin, int64_t end, std::string& bytes) {
  if (op.kind == Kind::kTruncate) {
    bytes.resize(static_cast<size_t>(op.offset));
    return;
  }
  const auto at = static_cast<size_t>(op.offset + begin);
  const auto size = static_cast<size_t>(end - begin);
  if (bytes.size() < at + size) bytes.resize(at + size);
  bytes.replace(at, size, op.bytes, static_cast<size_t>(begin), size);
}

struct File {
  std::string synced;
  std::vector<const Op*> since;
};

using Names = std::map<std::string, int>;  // Name to file or kFolder.
// What changes at once; nullopt: the name goes.
using NameChange = std::vector<std::pair<std::string, std::optional<int>>>;

struct Folder {
  Names synced;
  Names now;
  std::vector<NameChange> since;

  void Change(NameChange change) {
    ApplyTo(now, change);
    since.push_back(std::move(change));
  }
  static void ApplyTo(Names& names, const NameChange& change) {
    for (const auto& [name, what] : change) {
      if (what.has_value()) {
        names[name] = *what;
      } else {
        names.erase(name);
      }
    }
  }
};

class Disk {
 public:
  Disk(Loss loss, std::mt19937& random) : loss_(loss), random_(random) {
    static constexpr double kChances[] = {0.1, 0.5, 0.9};
    chance_ = kChances[random_() % 3];
  }

  void Play(const Op& op) {
    const auto parent = [](const std::string& path) -> std::string {
      return path.find('/') == std::string::npos ? "" : DirName(path);
    };
    Folder& folder = folders_[parent(op.path)];
    switch (op.kind) {
      case Kind::kCreate:
        folder.Change({{BaseName(op.path), op.file}});
        break;
      case Kind::kWrite:
      case Kind::kTruncate:
        files_[op.file].since.push_back(&op);
        break;
      case Kind::kSync: {
        File& file = files_[op.file];
        for (const Op* write : file.since) {
          Apply(*write, 0, static_cast<int64_t>(write->bytes.size()),
                file.synced);
        }
        file.since.clear();
        break;
      }
      case Kind::kSyncDir: {
        Folder& synced = folders_[op.path];
        synced.synced = synced.now;
        synced.since.clear();
        break;
      }
      case Kind::kRename: {
        const int what = folder.now.at(BaseName(op.path));
        Folder& target = folders_[parent(op.to)];
        if (&target == &folder) {
          folder.Change(
              {{BaseName(op.path), std::nullopt}, {BaseName(op.to), what}});
        } else {
          target.Change({{BaseName(op.to), what}});
          folders_[parent(op.path)].Change({{BaseName(op.path), std::nullopt}});
        }
        break;
      }
      case Kind::kLink:
        folders_[parent(op.to)].Change({{BaseName(op.to), op.file}});
        break;
      case Kind::kMakeDir:
        folder.Change({{BaseName(op.path), kFolder}});
        folders_[op.path] = Folder();
        break;
      case Kind::kUnlink:
      case Kind::kRemoveDir:
        folder.Change({{BaseName(op.path), std::nullopt}});
        break;
      case Kind::kMark:
        break;
    }
  }

  void Make(const std::string& path, const std::string& dir) {
    const Folder& folder = folders_[path];
    Names names = folder.synced;
    for (const NameChange& change : folder.since) {
      if (KeepsName()) Folder::ApplyTo(names, change);
    }
    for (const auto& [name, file] : names) {
      const std::string real = JoinPath(dir, name);
      if (file == kFolder) {
        FT_CHECK(MakeDirs(real, 0700).ok());
        Make(path.empty() ? name : JoinPath(path, name), real);
      } else {
        Put(real, BytesOf(files_[file]));
      }
    }
  }

 private:
  bool Coin() {
    return std::uniform_real_distribution<double>()(random_) < chance_;
  }
  bool KeepsName() {
    if (loss_ == Loss::kRandom) return Coin();
    return loss_ == Loss::kNothing || loss_ == Loss::kData;
  }

  std::string BytesOf(const File& file) {
    std::string bytes = file.synced;
    for (const Op* op : file.since) {
      const auto size = static_cast<int64_t>(op->bytes.size());
      if (loss_ == Loss::kNothing || loss_ == Loss::kNames ||
          (loss_ == Loss::kRandom && Coin())) {
        Apply(*op, 0, size, bytes);
      } else if (loss_ == Loss::kRandom && size > kSector && Coin()) {
        // A sector is written or not; here begin or end of the write were.
        const int64_t sectors = (op->offset + size) / kSector;
        const int64_t cut = std::clamp<int64_t>(
            static_cast<int64_t>(random_() % (sectors + 1)) * kSector -
                op->offset,
            0, size);
        random_() % 2 == 0 ? Apply(*op, 0, cut, bytes)
                           : Apply(*op, cut, size, bytes);
      }
    }
    return bytes;
  }

  // Past Files(): the disk that fails is the one under test, not this copy.
  static void Put(const std::string& path, const std::string& bytes) {
    const UniqueFd fd(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    FT_CHECK(fd.is_open());
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t put =
          ::write(fd.get(), bytes.data() + done, bytes.size() - done);
      FT_CHECK(put > 0);
      done += static_cast<size_t>(put);
    }
  }

  const Loss loss_;
  std::mt19937& random_;
  double chance_;
  std::map<int, File> files_;
  std::map<std::string, Folder> folders_;
};

}  // namespace

std::vector<std::string> DiskRecord::MarksBefore(size_t end) const {
  std::vector<std::string> marks;
  for (size_t i = 0; i < end; ++i) {
    if (ops_[i].kind == Kind::kMark) marks.push_back(ops_[i].path);
  }
  return marks;
}

void DiskRecord::MakeAfterPowerLoss(size_t end, Loss loss, std::mt19937& random,
                                    const std::string& dir) const {
  Disk disk(loss, random);
  for (size_t i = 0; i < end; ++i) disk.Play(ops_[i]);
  disk.Make("", dir);
}

}  // namespace ft::testing
