// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 of what a cursor into a data set means. A resumed run compares it: if
// anything in it has changed, the same cursor would point at other tokens.

#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "text/model_text.h"

namespace ft {

// `file_sha256[i]` is the digest of the content of options.files[i]; where it
// lies does not matter. Covers the files with their formats, the options that
// change examples or their split, tokenizer, template, special tokens and the
// version of this code.
// REQUIRES: file_sha256.size() == options.files.size()
std::string DatasetDigest(const DatasetOptions& options, const ModelText& text,
                          const std::vector<std::string>& file_sha256);

}  // namespace ft
