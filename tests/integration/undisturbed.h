// SPDX-License-Identifier: Apache-2.0
//
// What the job of the fault tests gives when nobody disturbs it.

#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"

namespace ft::testing {

inline constexpr int kFaultSteps = 200;

// The digest of each file of its adapter, by path; made once a process.
inline const std::map<std::string, std::string>& Undisturbed() {
  static const auto* const files = new std::map<std::string, std::string>([] {
    LocalCluster quiet;
    const v1::Job job =
        quiet.WaitForEnd(quiet.Submit(TinyChat(2, kFaultSteps)).job_id());
    EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED);
    EXPECT_EQ(job.status().attempts_size(), 1);
    return quiet.Result(job);
  }());
  return *files;
}

// The job has taken every step and has the same bits.
inline void ExpectSameAdapter(LocalCluster& cluster, const v1::Job& job) {
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED)
      << job.status().DebugString();
  EXPECT_EQ(job.status().progress().step(), kFaultSteps);
  EXPECT_EQ(cluster.Result(job), Undisturbed());
  EXPECT_EQ(Undisturbed().count("adapter_model.safetensors"), 1);
}

}  // namespace ft::testing
