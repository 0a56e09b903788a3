// SPDX-License-Identifier: Apache-2.0
//
// What systemd does with Restart=always, and nothing else: starts programs, and
// starts each again a moment after it ended, however it ended.

#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ft::testing {

// Thread-safe.
class Supervisor {
 public:
  // What a program prints goes to `log_dir`/NAME.log.
  explicit Supervisor(std::string log_dir);
  // Kills all and waits for them.
  ~Supervisor();

  void Start(const std::string& name, std::vector<std::string> words);

  // SIGKILL. False: it is not running just now.
  bool Kill(const std::string& name);

  // 0: between two lives.
  pid_t Pid(const std::string& name) const;
  // How often it was started.
  int lives(const std::string& name) const;
  absl::Time started(const std::string& name) const;
  std::string LogFile(const std::string& name) const;

  // Ends that were no SIGKILL, in words.
  std::vector<std::string> strange_ends() const;

 private:
  struct Program {
    std::vector<std::string> words;
    pid_t pid = 0;
    int lives = 0;
    absl::Time started;
    absl::Time restart_at = absl::InfinitePast();
  };

  void Loop();
  void Spawn(const std::string& name, Program& program)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Reap(const std::string& name, Program& program)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string log_dir_;
  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Program> programs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> strange_ends_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ft::testing
