// SPDX-License-Identifier: Apache-2.0

#include "data/digest.h"

#include "common/check.h"
#include "common/digest.h"

namespace ft {
namespace {

// Raise it when the same files begin to mean other tokens.
constexpr int kPreprocessingVersion = 1;

}  // namespace

std::string DatasetDigest(const DatasetOptions& options, const ModelText& text,
                          const std::vector<std::string>& file_sha256) {
  FT_CHECK(file_sha256.size() == options.files.size());
  Json files = Json::array();
  for (size_t i = 0; i < file_sha256.size(); ++i) {
    files.push_back(
        Json::array({file_sha256[i], static_cast<int>(options.files[i].format),
                     options.files[i].max_samples}));
  }
  // JSON, because no two meanings give one text.
  const Json meaning = {
      {"version", kPreprocessingVersion},
      {"files", std::move(files)},
      {"variables", options.variables},
      {"tokenizer", text.tokenizer_sha256},
      {"template", text.template_sha256},
      {"special_tokens", text.special_tokens},
      {"stop_ids", text.stop_ids},
      {"cutoff_len", options.cutoff_len},
      {"over_cutoff", static_cast<int>(options.over_cutoff)},
      {"train_on", static_cast<int>(options.mask.train_on)},
      {"history_rewrite", static_cast<int>(options.mask.history_rewrite)},
      {"learn_tail", options.mask.learn_tail},
      {"on_bad_row", static_cast<int>(options.on_bad_row)},
      {"validation_share", options.validation_share},
      {"seed", options.validation_share > 0 ? options.seed : 0}};
  return Sha256Hex(
      meaning.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace ft
