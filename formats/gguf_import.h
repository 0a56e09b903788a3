// SPDX-License-Identifier: Apache-2.0
//
// A GGUF file of architecture `llama` -> a Hugging Face directory in fp32.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/gguf.h"
#include "formats/model_import.h"

namespace ft {

// The config.json of the model in `file`.
absl::StatusOr<std::string> MakeConfigJson(const GgufFile& file);

// Writes config.json, generation_config.json, model.safetensors and the
// tokenizer files into the existing folder `dir`. Every tensor of the file must
// find its place, and every parameter its tensor; a value that is not finite is
// an error. Peak memory is a few MiB beside the mapping.
absl::Status WriteHfDirectory(const GgufFile& file, const std::string& dir,
                              const ImportProgressFn& progress);

// ImportModel for a GGUF file.
absl::Status ImportGguf(const std::string& path, const std::string& out_dir,
                        const ImportProgressFn& progress = nullptr);

}  // namespace ft
