// SPDX-License-Identifier: Apache-2.0
//
// The promises I1 to I8, checked from what is left behind: the store, the
// event log, the metric points, the blobs, the folders of the workers, the
// logs, the process list, and what clients were told. A violation is a sentence
// for people. (I9, that bad input changes nothing, is each test's own.)
//
//   I1  what a client was told is in the store, and nothing twice; what has a
//       name was synced first
//   I2  a job ends once; its artifact is published once
//   I3  only the current epoch writes; epochs grow
//   I4  bytes have the digest that names them
//   I5  steps 1..n once each with the same bits; the durable step never goes
//   back I6  the result has the bits of the undisturbed run I7  no process,
//   workspace or temporary file is left I8  no secret byte in logs, store,
//   blobs or command lines
//
// tests/chaos/planted_bugs_test.cc shows that each is caught.

#pragma once

#include <sys/types.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ft/v1/events.pb.h"
#include "tests/testing/store_view.h"

namespace ft::testing {

// What answers and streams told the clients. Empty parts are not checked.
struct ClientMemory {
  // Jobs by the request_id that made them.
  std::map<std::string, std::string> jobs;
  // Whether every job of the store is one of these.
  bool knows_all_jobs = false;
  std::set<std::string> deleted;
  // Events that watchers were told, by job, as they came.
  std::map<std::string, std::vector<v1::Event>> events;
  // Digests of the files of the undisturbed run, by job, by path.
  std::map<std::string, std::map<std::string, std::string>> results;
};

struct Evidence {
  std::string coordinator_dir;
  std::vector<std::string> worker_dirs;
  std::vector<std::string> log_files;
  // Text that is in the command line of every process of this cluster.
  std::string process_mark;
  // What tests/testing/sync_audit.cc wrote; empty: it was not there.
  std::string sync_audit;
  ClientMemory clients;
  // Every job has ended and the daemons run and have nothing to do: no rank, no
  // workspace and no temporary file may be there.
  bool at_rest = false;
};

// One sentence a violation; empty: all hold.
std::vector<std::string> CheckInvariants(const Evidence& evidence);

// The parts of it, by promise, over a store that was read.
using Violations = std::vector<std::string>;
void CheckJobs(const StoreView& store, const ClientMemory& clients,
               Violations& found);                              // I1, I2, I6
void CheckAttempts(const StoreView& store, Violations& found);  // I3
void CheckEvents(const StoreView& store, const ClientMemory& clients,
                 Violations& found);                         // I1
void CheckSteps(const StoreView& store, Violations& found);  // I5
void CheckBlobs(const StoreView& store, const std::string& coordinator_dir,
                Violations& found);                               // I4
void CheckLeavings(const Evidence& evidence, Violations& found);  // I7
void CheckSecrets(const StoreView& store, const Evidence& evidence,
                  Violations& found);  // I8

// A line a process whose command line has `text`, but ours and our parents'.
std::map<pid_t, std::string> CommandLinesWith(const std::string& text);

}  // namespace ft::testing
