// SPDX-License-Identifier: Apache-2.0

#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"
#include "data/json_rows.h"
#include "data/row_formats.h"
#include "data/variables.h"

namespace ft {
namespace {

// Part of every digest: raise it when the same files begin to mean other
// tokens.
constexpr int kPreprocessingVersion = 1;

// Without the oldest exchange: the messages from the first user turn up to the
// second. False: there is only one.
bool DropOldestTurn(Example& example) {
  std::vector<size_t> asking;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (example.messages[i].value("role", "") == "user") asking.push_back(i);
  }
  if (asking.size() < 2) return false;
  Json messages = Json::array();
  std::vector<bool> may_learn;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (i >= asking[0] && i < asking[1]) continue;
    messages.push_back(example.messages[i]);
    may_learn.push_back(example.may_learn[i]);
  }
  example.messages = std::move(messages);
  example.may_learn = std::move(may_learn);
  return true;
}

// The example with only the last `bytes` bytes of its last user text (to a
// character's boundary).
Example KeepTailOfQuestion(const Example& example, size_t bytes) {
  Example cut = example;
  for (size_t i = cut.messages.size(); i-- > 0;) {
    if (cut.messages[i].value("role", "") != "user") continue;
    const std::string text = cut.messages[i]["content"];
    size_t begin = text.size() - std::min(bytes, text.size());
    while (begin < text.size() &&
           (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
      ++begin;
    }
    cut.messages[i]["content"] = text.substr(begin);
    break;
  }
  return cut;
}

class Builder {
 public:
  Builder(const DatasetOptions& options, const ModelText& text)
      : options_(options), text_(text) {}

  absl::Status AddFile(const DatasetFile& file);
  Dataset Take(std::vector<std::string>& faults);

 private:
  void AddRow(const DatasetFile& file, int64_t row, const Json& value);
  void Bad(const Example& example, absl::string_view reason) {
    dataset_.report.bad_rows.push_back(
        {example.file, example.row, std::string(reason)});
  }
  absl::StatusOr<std::vector<TokenizedExample>> Fit(Example example,
                                                    bool& was_cut);
  bool Fits(const std::vector<TokenizedExample>& examples) const;
  void Count(const TokenizedExample& example);

  const DatasetOptions& options_;
  const ModelText& text_;
  Dataset dataset_;
  std::vector<std::string> file_digests_;
  std::set<std::string> seen_;
  std::vector<int64_t> lengths_;
  bool end_token_learned_ = false;
};

absl::Status Builder::AddFile(const DatasetFile& file) {
  FT_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(file.path));
  file_digests_.push_back(absl::StrCat(
      sha256, " ", static_cast<int>(file.format), " ", file.max_samples));
  int64_t taken = 0;
  return ReadJsonRows(
      file.path,
      [&](int64_t row, const Json& value) {
        if (file.max_samples == 0 || taken < file.max_samples) {
          ++taken;
          AddRow(file, row, value);
        }
        return absl::OkStatus();
      },
      [&](BadRow bad) { dataset_.report.bad_rows.push_back(std::move(bad)); });
}

void Builder::AddRow(const DatasetFile& file, int64_t row, const Json& value) {
  ++dataset_.report.rows;
  absl::StatusOr<Example> example = ExampleFromRow(file.format, value);
  Example place;
  place.file = BaseName(file.path);
  place.row = row;
  if (!example.ok()) return Bad(place, example.status().message());
  example->file = place.file;
  example->row = row;

  const std::set<std::string> unfilled =
      FillVariables(options_.variables, *example);
  if (!unfilled.empty()) {
    return Bad(*example, absl::StrCat("{{", absl::StrJoin(unfilled, "}}, {{"),
                                      "}} has no value; set it under "
                                      "data.variables"));
  }
  const std::string row_digest =
      Sha256Hex(absl::StrCat(example->messages.dump(), example->tools.dump()));
  if (!seen_.insert(row_digest).second) ++dataset_.report.duplicates;

  bool was_cut = false;
  absl::StatusOr<std::vector<TokenizedExample>> examples =
      Fit(*example, was_cut);
  if (!examples.ok()) return Bad(*example, examples.status().message());
  if (was_cut && options_.over_cutoff == OverCutoff::kDrop) {
    ++dataset_.report.dropped;
    return;
  }
  dataset_.report.truncated += was_cut;

  // The first 52 bits of a digest as a share of all rows.
  const std::string place_digest =
      Sha256Hex(absl::StrCat(row_digest, " ", options_.seed));
  const double share = static_cast<double>(std::stoull(
                           place_digest.substr(0, 13), nullptr, 16)) *
                       0x1p-52;
  for (TokenizedExample& tokenized : *examples) {
    Count(tokenized);
    if (tokenized.num_targets() == 0) continue;
    (share < options_.validation_share ? dataset_.validation : dataset_.train)
        .push_back(std::move(tokenized));
  }
}

bool Builder::Fits(const std::vector<TokenizedExample>& examples) const {
  return std::all_of(examples.begin(), examples.end(),
                     [&](const TokenizedExample& example) {
                       return example.size() <= options_.cutoff_len;
                     });
}

absl::StatusOr<std::vector<TokenizedExample>> Builder::Fit(Example example,
                                                           bool& was_cut) {
  FT_ASSIGN_OR_RETURN(std::vector<TokenizedExample> whole,
                      TokenizeConversation(example, text_, options_.mask));
  if (Fits(whole)) return whole;
  was_cut = true;
  if (options_.over_cutoff == OverCutoff::kDrop) return whole;
  if (options_.over_cutoff == OverCutoff::kError) {
    return absl::InvalidArgumentError(
        absl::StrCat(whole[0].size(), " tokens are more than data.cutoff_len ",
                     options_.cutoff_len));
  }
  while (DropOldestTurn(example)) {
    FT_ASSIGN_OR_RETURN(whole,
                        TokenizeConversation(example, text_, options_.mask));
    if (Fits(whole)) return whole;
  }
  // The longest tail of the question that fits, by halving.
  std::vector<TokenizedExample> best;
  size_t low = 0, high = example.messages.dump().size();
  while (low < high) {
    const size_t middle = low + (high - low + 1) / 2;
    FT_ASSIGN_OR_RETURN(
        std::vector<TokenizedExample> cut,
        TokenizeConversation(KeepTailOfQuestion(example, middle), text_,
                             options_.mask));
    if (Fits(cut)) {
      best = std::move(cut);
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  if (best.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the answer alone is longer than data.cutoff_len ",
                     options_.cutoff_len));
  }
  return best;
}

void Builder::Count(const TokenizedExample& example) {
  DatasetReport& report = dataset_.report;
  ++report.examples;
  report.tokens += example.size();
  report.targets += example.num_targets();
  lengths_.push_back(example.size());
  if (example.num_targets() == 0) ++report.without_target;
  bool learns_end = false;
  for (size_t t = 0; t < example.ids.size(); ++t) {
    learns_end |= example.learned[t] &&
                  std::count(text_.stop_ids.begin(), text_.stop_ids.end(),
                             example.ids[t]) > 0;
  }
  if (!learns_end) ++report.without_end_token;
  end_token_learned_ |= learns_end;
}

Dataset Builder::Take(std::vector<std::string>& faults) {
  DatasetReport& report = dataset_.report;
  if (!lengths_.empty()) {
    std::sort(lengths_.begin(), lengths_.end());
    report.shortest = lengths_.front();
    report.median = lengths_[lengths_.size() / 2];
    report.longest = lengths_.back();
  }
  if (options_.on_bad_row == OnBadRow::kSkip) {
    report.skipped = static_cast<int64_t>(report.bad_rows.size());
  } else {
    for (const BadRow& bad : report.bad_rows) faults.push_back(bad.ToString());
  }
  if (dataset_.train.empty()) {
    faults.push_back("the data hold no example with a target");
  } else if (!end_token_learned_) {
    faults.push_back(
        "no row teaches an end token, so the model would never stop; check "
        "data.template and the tokenizer's eos_token");
  }

  std::string meaning = absl::StrCat(
      "version ", kPreprocessingVersion, "\ntokenizer ", text_.tokenizer_sha256,
      "\ntemplate ", text_.template_sha256, "\nbos ", text_.bos_token, "\neos ",
      text_.eos_token, "\ncutoff ", options_.cutoff_len, " ",
      static_cast<int>(options_.over_cutoff), "\nmask ",
      static_cast<int>(options_.mask.train_on), " ",
      static_cast<int>(options_.mask.history_rewrite), " ",
      options_.mask.learn_tail, "\nbad ", static_cast<int>(options_.on_bad_row),
      "\nshare ", options_.validation_share, " ", options_.seed, "\n");
  for (const std::string& digest : file_digests_) {
    absl::StrAppend(&meaning, digest, "\n");
  }
  for (const auto& [name, value] : options_.variables) {
    absl::StrAppend(&meaning, name, "=", value, "\n");
  }
  dataset_.digest = Sha256Hex(meaning);
  return std::move(dataset_);
}

}  // namespace

int64_t TokenizedExample::num_targets() const {
  // The first token is nobody's label.
  return std::count(learned.begin() + (learned.empty() ? 0 : 1), learned.end(),
                    true);
}

std::string BadRow::ToString() const {
  return row == 0 ? absl::StrCat(file, ": ", reason)
                  : absl::StrCat(file, ": row ", row, ": ", reason);
}

absl::StatusOr<Dataset> InspectDataset(const DatasetOptions& options,
                                       const ModelText& text,
                                       std::vector<std::string>& faults) {
  Builder builder(options, text);
  for (const DatasetFile& file : options.files) {
    FT_RETURN_IF_ERROR(builder.AddFile(file));
  }
  return builder.Take(faults);
}

absl::StatusOr<Dataset> LoadDataset(const DatasetOptions& options,
                                    const ModelText& text) {
  constexpr size_t kMostTold = 20;
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
