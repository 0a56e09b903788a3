// SPDX-License-Identifier: Apache-2.0
//
// Rows are read one after another, tokenized by several threads a block at a
// time, and counted in order: nothing depends on the number of threads.

#include "data/dataset.h"

#include <algorithm>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"
#include "data/digest.h"
#include "data/json_reader.h"
#include "data/row_formats.h"
#include "data/variables.h"

namespace ft {
namespace {

constexpr size_t kRowsPerBlock = 1024;
constexpr size_t kMostTold = 20;

struct PendingRow {
  RowPlace place;
  Json value;
};

struct RowResult {
  absl::Status status;  // Not OK: the row is bad.
  std::string digest;   // Of the conversation.
  FittedExamples fitted;
};

// Where a row stands in a list of all rows that is shuffled by `seed`, as a
// share: the first 52 bits of a digest.
double SplitPlace(const std::string& row_digest, uint64_t seed) {
  const std::string digest = Sha256Hex(absl::StrCat(row_digest, " ", seed));
  return static_cast<double>(std::stoull(digest.substr(0, 13), nullptr, 16)) *
         0x1p-52;
}

void ReportLengths(std::vector<int64_t> lengths, DatasetReport& report) {
  if (lengths.empty()) return;
  std::sort(lengths.begin(), lengths.end());
  // The smallest length that `share` percent of the examples do not exceed.
  const auto percentile = [&](size_t share) {
    return lengths[(lengths.size() * share + 99) / 100 - 1];
  };
  report.shortest = lengths.front();
  report.median = percentile(50);
  report.p90 = percentile(90);
  report.p99 = percentile(99);
  report.longest = lengths.back();
  int64_t limit = 32, below = 0;
  for (;; limit *= 2) {
    const int64_t upto =
        std::upper_bound(lengths.begin(), lengths.end(), limit) -
        lengths.begin();
    report.length_histogram.emplace_back(limit, upto - below);
    below = upto;
    if (limit >= report.longest) return;
  }
}

class Builder {
 public:
  Builder(const DatasetOptions& options, const ModelText& text)
      : options_(options), text_(text) {}

  absl::Status AddFile(size_t index);
  Dataset Take(std::vector<std::string>& faults);

 private:
  const DatasetFile& file() const { return options_.files[file_]; }
  RowResult Process(const Json& row) const;
  absl::StatusOr<FittedExamples> Tokenize(const Json& row,
                                          std::string& digest) const;
  absl::Status CheckIds(const FittedExamples& fitted) const;
  void ProcessBlock();
  void Merge(const RowPlace& place, RowResult result);
  void Count(const TokenizedExample& example, const RowPlace& place);
  void Warn(const RowPlace& place, int64_t count, absl::string_view reason);

  const DatasetOptions& options_;
  const ModelText& text_;
  size_t file_ = 0;   // The one that is read,
  std::string name_;  // and its name.
  std::vector<PendingRow> block_;
  Dataset dataset_;
  std::vector<std::string> file_digests_;
  std::set<std::string> seen_;
  std::vector<int64_t> lengths_;
};

absl::Status Builder::AddFile(size_t index) {
  file_ = index;
  name_ = file().name.empty() ? BaseName(file().path) : file().name;
  FT_ASSIGN_OR_RETURN(file_digests_.emplace_back(), Sha256OfFile(file().path));
  int64_t taken = 0;
  const auto wants_more = [&] {
    return file().max_samples == 0 || taken < file().max_samples;
  };
  FT_RETURN_IF_ERROR(ReadJsonRows(
      file().path, name_,
      [&](const RowPlace& place, Json row) {
        if (!wants_more()) return;
        ++taken;
        block_.push_back({place, std::move(row)});
        if (block_.size() == kRowsPerBlock) ProcessBlock();
      },
      [&](BadRow bad) {
        if (!wants_more()) return;
        ++taken;
        ProcessBlock();  // So that bad rows come in order.
        dataset_.report.bad_rows.push_back(std::move(bad));
      }));
  ProcessBlock();
  return absl::OkStatus();
}

void Builder::ProcessBlock() {
  std::vector<RowResult> results(block_.size());
  const size_t stride = std::max(1, options_.threads);
  const auto work = [&](size_t first) {
    for (size_t i = first; i < block_.size(); i += stride) {
      results[i] = Process(block_[i].value);
    }
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(stride, block_.size()); ++i) {
    helpers.emplace_back(work, i);
  }
  work(0);
  for (std::thread& helper : helpers) helper.join();
  for (size_t i = 0; i < block_.size(); ++i) {
    Merge(block_[i].place, std::move(results[i]));
  }
  block_.clear();
}

RowResult Builder::Process(const Json& row) const {
  RowResult result;
  absl::StatusOr<FittedExamples> fitted = Tokenize(row, result.digest);
  result.status = fitted.status();
  if (fitted.ok()) result.fitted = *std::move(fitted);
  return result;
}

absl::StatusOr<FittedExamples> Builder::Tokenize(const Json& row,
                                                 std::string& digest) const {
  FT_ASSIGN_OR_RETURN(Example example, ExampleFromRow(file().format, row));
  const std::set<std::string> unfilled =
      FillVariables(options_.variables, example);
  if (!unfilled.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("{{", absl::StrJoin(unfilled, "}}, {{"),
                     "}} has no value; set it under data.variables"));
  }
  digest = Sha256Hex(
      Json::array({example.messages, example.tools, example.may_learn})
          .dump(-1, ' ', false, Json::error_handler_t::replace));
  FT_ASSIGN_OR_RETURN(FittedExamples fitted,
                      TokenizeWithin({.cutoff_len = options_.cutoff_len,
                                      .over_cutoff = options_.over_cutoff},
                                     example, text_, options_.mask));
  FT_RETURN_IF_ERROR(CheckIds(fitted));
  return fitted;
}

absl::Status Builder::CheckIds(const FittedExamples& fitted) const {
  if (options_.vocab_size == 0) return absl::OkStatus();
  for (const TokenizedExample& example : fitted.examples) {
    for (const int32_t id : example.ids) {
      if (id < options_.vocab_size) continue;
      FT_ASSIGN_OR_RETURN(const std::string token, text_.tokenizer.TokenOf(id));
      return absl::InvalidArgumentError(absl::StrCat(
          "token \"", token, "\" (", id, ") is beyond the model's ",
          options_.vocab_size,
          " tokens; take the tokenizer that belongs to the model"));
    }
  }
  return absl::OkStatus();
}

void Builder::Merge(const RowPlace& place, RowResult result) {
  DatasetReport& report = dataset_.report;
  ++report.rows;
  if (!result.status.ok()) {
    report.bad_rows.push_back({.file = name_,
                               .row = place.row,
                               .line = place.line,
                               .reason = std::string(result.status.message())});
    return;
  }
  if (!seen_.insert(result.digest).second) ++report.duplicates;
  if (result.fitted.was_too_long) {
    ++(result.fitted.examples.empty() ? report.dropped : report.truncated);
  }
  const bool is_held_out =
      options_.validation_share > 0 &&
      SplitPlace(result.digest, options_.seed) < options_.validation_share;
  for (TokenizedExample& example : result.fitted.examples) {
    Count(example, place);
    if (example.num_targets() == 0) continue;
    example.file = static_cast<int32_t>(file_);
    example.row = place.row;
    (is_held_out ? dataset_.validation : dataset_.train)
        .push_back(std::move(example));
  }
}

void Builder::Count(const TokenizedExample& example, const RowPlace& place) {
  DatasetReport& report = dataset_.report;
  const int64_t targets = example.num_targets();
  if (targets == 0) {
    return Warn(place, ++report.without_target,
                "nothing is learned from it; it is left out");
  }
  ++report.examples;
  report.tokens += example.size();
  report.targets += targets;
  lengths_.push_back(example.size());
  for (size_t t = 1; t < example.ids.size(); ++t) {
    if (example.learned[t] && text_.IsStop(example.ids[t])) return;
  }
  Warn(place, ++report.without_end_token,
       "no token that ends an answer is learned");
}

void Builder::Warn(const RowPlace& place, int64_t count,
                   absl::string_view reason) {
  if (count > static_cast<int64_t>(kMostTold)) return;
  dataset_.report.warnings.push_back({.file = name_,
                                      .row = place.row,
                                      .line = place.line,
                                      .reason = std::string(reason)});
}

Dataset Builder::Take(std::vector<std::string>& faults) {
  DatasetReport& report = dataset_.report;
  ReportLengths(std::move(lengths_), report);
  if (options_.on_bad_row == OnBadRow::kSkip) {
    report.skipped = static_cast<int64_t>(report.bad_rows.size());
  } else {
    for (const BadRow& bad : report.bad_rows) faults.push_back(bad.ToString());
  }
  if (dataset_.train.empty()) {
    faults.push_back("the data hold no example with a target");
  } else if (report.without_end_token == report.examples) {
    faults.push_back(
        "no row teaches an end token, so the model would never stop; check "
        "data.template and the tokenizer's eos_token");
  }
  dataset_.digest = DatasetDigest(options_, text_, file_digests_);
  return std::move(dataset_);
}

}  // namespace

int64_t TokenizedExample::num_targets() const {
  // The first token is nobody's label.
  return std::count(learned.begin() + (learned.empty() ? 0 : 1), learned.end(),
                    true);
}

std::string BadRow::ToString() const {
  std::string place = file;
  if (line > 0) absl::StrAppend(&place, ":", line);
  if (line > 0 && column > 0) absl::StrAppend(&place, ":", column);
  if (row > 0) absl::StrAppend(&place, ": row ", row);
  return absl::StrCat(place, ": ", reason);
}

absl::StatusOr<Dataset> InspectDataset(const DatasetOptions& options,
                                       const ModelText& text,
                                       std::vector<std::string>& faults) {
  Builder builder(options, text);
  for (size_t i = 0; i < options.files.size(); ++i) {
    FT_RETURN_IF_ERROR(builder.AddFile(i));
  }
  return builder.Take(faults);
}

absl::StatusOr<Dataset> LoadDataset(const DatasetOptions& options,
                                    const ModelText& text) {
  std::vector<std::string> faults;
  FT_ASSIGN_OR_RETURN(Dataset dataset, InspectDataset(options, text, faults));
  if (faults.empty()) return dataset;
  const size_t count = faults.size();
  if (count > kMostTold) {
    faults.resize(kMostTold);
    faults.push_back(absl::StrCat("and ", count - kMostTold, " more"));
  }
  return absl::InvalidArgumentError(absl::StrJoin(faults, "\n"));
}

}  // namespace ft
