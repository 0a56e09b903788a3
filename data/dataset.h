// SPDX-License-Identifier: Apache-2.0
//
// Files to tokenized examples, with a report of what was found on the way.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/conversation_mask.h"
#include "data/cutoff.h"
#include "data/example.h"
#include "text/model_text.h"

namespace ft {

enum class OnBadRow { kError, kSkip };

struct DatasetFile {
  std::string path;
  RowFormat format = RowFormat::kAlpaca;
  int64_t max_samples = 0;  // The first rows of the file. 0: all.
  // What messages call it, where the path is one of a cache. Empty: the last
  // part of the path.
  std::string name;
};

struct DatasetOptions {
  std::vector<DatasetFile> files;  // One after another.
  std::map<std::string, std::string> variables;
  int64_t cutoff_len = 2048;
  OverCutoff over_cutoff = OverCutoff::kTruncate;
  MaskOptions mask;
  OnBadRow on_bad_row = OnBadRow::kError;
  // This share of the rows goes to `validation`, chosen by the digest of each
  // row and the seed, so that an added row moves no other.
  double validation_share = 0;
  uint64_t seed = 0;
  // Ids that the model has an embedding for: [0, vocab_size). A row with others
  // is bad. 0: any.
  int64_t vocab_size = 0;
  // For tokenising. Changes no result.
  int threads = 1;
};

// Counts examples of training and validation alike.
struct DatasetReport {
  int64_t rows = 0;  // That are JSON.
  int64_t examples = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
  int64_t truncated = 0;   // Rows cut to cutoff_len.
  int64_t dropped = 0;     // Rows left out by over_cutoff: drop.
  int64_t skipped = 0;     // Bad rows left out by on_bad_row: skip.
  int64_t duplicates = 0;  // Rows that an earlier row equals; they stay.
  // Examples where nothing is learned: left out.
  int64_t without_target = 0;
  // Examples where no token that ends an answer is learned; they stay.
  int64_t without_end_token = 0;
  // Tokens of an example.
  int64_t shortest = 0, median = 0, p90 = 0, p99 = 0, longest = 0;
  // Greatest length and number of examples, for the lengths up to 32, 64, 128
  // and so on to the first that holds the longest.
  std::vector<std::pair<int64_t, int64_t>> length_histogram;
  std::vector<BadRow> bad_rows;  // All of them, in order.
  // The first rows of without_target and without_end_token, at most 20 each.
  std::vector<BadRow> warnings;
};

struct Dataset {
  std::vector<TokenizedExample> train;
  std::vector<TokenizedExample> validation;
  DatasetReport report;
  // SHA-256 of what a cursor into `train` means (digest.h).
  std::string digest;
};

// INVALID_ARGUMENT: bad rows under OnBadRow::kError (the message names at most
// 20 of them), no example left, or no end token is ever learned. NOT_FOUND: a
// file is missing. RESOURCE_EXHAUSTED: a file is too large.
absl::StatusOr<Dataset> LoadDataset(const DatasetOptions& options,
                                    const ModelText& text);

// The same, but bad rows and the other faults of the data are only reported;
// `faults` lists what LoadDataset would refuse, all of it.
absl::StatusOr<Dataset> InspectDataset(const DatasetOptions& options,
                                       const ModelText& text,
                                       std::vector<std::string>& faults);

}  // namespace ft
