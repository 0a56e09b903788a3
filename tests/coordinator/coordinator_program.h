// SPDX-License-Identifier: Apache-2.0
//
// The real ft-coordinator over a folder of the test.

#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <regex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/token.h"
#include "ft/v1/jobs.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft::testing {

// A small job whose data, the text "[]", must be stored before.
inline v1::CreateJobRequest SmallJob(const std::string& request_id) {
  v1::CreateJobRequest request;
  request.set_request_id(request_id);
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_schema("ft.v1");
  spec.set_name("hotel-bot");
  spec.mutable_model()->set_base("tiny");
  v1::Dataset& dataset = *spec.mutable_data()->add_train();
  dataset.set_path("train.json");
  dataset.set_format(v1::DATA_FORMAT_ALPACA);
  dataset.set_sha256(Sha256Hex("[]"));
  dataset.set_bytes(2);
  spec.mutable_stage()->mutable_sft();
  spec.mutable_adaptation()->mutable_lora();
  spec.mutable_resources()->mutable_ranks()->set_max(1);
  return request;
}

// One run of it. Its log is kept over runs.
class CoordinatorProgram {
 public:
  struct Options {
    std::string client_address = "127.0.0.1:0";
    std::string timer_scale = "1";
    // "NAME=value", beside the test's own.
    std::vector<std::string> environment = {};
  };
  explicit CoordinatorProgram(const TestDir& dir)
      : CoordinatorProgram(dir, Options()) {}
  CoordinatorProgram(const TestDir& dir, const Options& options)
      : data_dir_(dir / "data"),
        endpoint_file_(dir / "endpoint.json"),
        log_(dir / "log") {
    EXPECT_THAT(RemoveFile(endpoint_file_), IsOk());
    std::vector<std::string> words = {FT_TEST_BINARY_DIR "/bin/ft-coordinator",
                                      "--data_dir",
                                      data_dir_,
                                      "--endpoint_file",
                                      endpoint_file_,
                                      "--client_address",
                                      options.client_address,
                                      "--worker_address",
                                      "127.0.0.1:0",
                                      "--http_address",
                                      "127.0.0.1:0",
                                      "--timer_scale",
                                      options.timer_scale};
    std::vector<std::string> variables = options.environment;
    std::vector<char*> argv, envp;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    for (char** entry = environ; *entry != nullptr; ++entry) {
      envp.push_back(*entry);
    }
    for (std::string& entry : variables) envp.push_back(entry.data());
    envp.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_.c_str(),
                                       O_WRONLY | O_CREAT | O_APPEND, 0600);
    EXPECT_EQ(::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(),
                            envp.data()),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ~CoordinatorProgram() {
    if (pid_ > 0) End(SIGKILL);
  }

  pid_t pid() const { return pid_; }
  // Where it listens, once it does.
  std::string ClientAddress() { return Address("client_address"); }
  std::string WorkerAddress() { return Address("worker_address"); }
  std::string AdminToken() { return Token("admin"); }
  std::string WorkerToken() { return Token("worker"); }

  // The wait status after `signal`; 0: waits for it to end by itself.
  int End(int signal) {
    if (signal != 0) ::kill(pid_, signal);
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return status;
  }
  // Whether it listens; false: it has ended before, and was waited for.
  bool Listens() {
    while (!Exists(endpoint_file_)) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return false;
      }
      absl::SleepFor(absl::Milliseconds(2));
    }
    return true;
  }
  std::string Log() { return ReadFile(log_, 1 << 20).value_or(""); }

 private:
  std::string Address(const std::string& field) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!Exists(endpoint_file_)) {
      if (absl::Now() > deadline) {
        ADD_FAILURE() << "not ready: " << Log();
        return "";
      }
      absl::SleepFor(absl::Milliseconds(2));
    }
    const std::string json = ReadFile(endpoint_file_, 10'000).value();
    std::smatch found;
    EXPECT_TRUE(std::regex_search(
        json, found, std::regex("\"" + field + "\": \"([^\"]+)\"")));
    return found[1];
  }
  std::string Token(const std::string& role) {
    ClientAddress();  // By then the files are there.
    return ReadTokenFile(absl::StrCat(data_dir_, "/tokens/", role, ".token"))
        .value();
  }

  const std::string data_dir_;
  const std::string endpoint_file_;
  const std::string log_;
  pid_t pid_ = -1;
};

}  // namespace ft::testing
