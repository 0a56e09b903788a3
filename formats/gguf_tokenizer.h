// SPDX-License-Identifier: Apache-2.0
//
// tokenizer.ggml.* of a GGUF file -> the tokenizer files of a Hugging Face
// directory. How text is cut before the merges is not in the file, only its
// name (tokenizer.ggml.pre): a table knows some, others are refused by name.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "formats/gguf.h"

namespace ft {

// The contents of the files.
struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::string special_tokens_map_json;
  std::string generation_config_json;
};

// INVALID_ARGUMENT: the metadata contradict themselves. UNIMPLEMENTED: a
// tokenizer model or pre-tokenizer that we do not know; the message says which
// we do.
absl::StatusOr<TokenizerFiles> MakeTokenizerFiles(const GgufFile& file);

}  // namespace ft
