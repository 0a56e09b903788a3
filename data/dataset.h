// SPDX-License-Identifier: Apache-2.0
//
// Files to tokenized examples, with a report of what was found on the way.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/conversation_mask.h"
#include "data/example.h"
#include "text/model_text.h"

namespace ft {

enum class OverCutoff { kTruncate, kDrop, kError };
enum class OnBadRow { kError, kSkip };

struct DatasetFile {
  std::string path;
  RowFormat format = RowFormat::kAlpaca;
  int64_t max_samples = 0;  // 0: all.
};

struct DatasetOptions {
  std::vector<DatasetFile> files;
  std::map<std::string, std::string> variables;
  int64_t cutoff_len = 2048;
  OverCutoff over_cutoff = OverCutoff::kTruncate;
  MaskOptions mask;
  OnBadRow on_bad_row = OnBadRow::kError;
  // This share of the rows goes to `validation`, chosen by the digest of each
  // row and the seed, so that an added row moves no other.
  double validation_share = 0;
  uint64_t seed = 0;
};

struct DatasetReport {
  int64_t rows = 0;
  int64_t examples = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
  int64_t truncated = 0;  // Rows cut to cutoff_len.
  int64_t dropped = 0;    // Rows left out by over_cutoff: drop.
  int64_t skipped = 0;    // Bad rows left out by on_bad_row: skip.
  int64_t duplicates = 0;
  int64_t without_target = 0;
  int64_t without_end_token = 0;
  int64_t shortest = 0, median = 0, longest = 0;  // Tokens of an example.
  std::vector<BadRow> bad_rows;                   // All of them.
};

struct Dataset {
  std::vector<TokenizedExample> train;
  std::vector<TokenizedExample> validation;
  DatasetReport report;
  // SHA-256 of what a cursor into `train` means: files, tokenizer, template,
  // options.
  std::string digest;
};

// INVALID_ARGUMENT: bad rows under OnBadRow::kError (report.bad_rows is in the
// message, at most 20 of them), no example left, or no end token is ever
// learned. NOT_FOUND: a file is missing.
absl::StatusOr<Dataset> LoadDataset(const DatasetOptions& options,
                                    const ModelText& text);

// The same, but bad rows and the other faults of the data are only reported;
// `faults` lists what LoadDataset would refuse.
absl::StatusOr<Dataset> InspectDataset(const DatasetOptions& options,
                                       const ModelText& text,
                                       std::vector<std::string>& faults);

}  // namespace ft
