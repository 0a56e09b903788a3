// SPDX-License-Identifier: Apache-2.0
//
// Brings a model into a model root: a GGUF file is dequantised to fp32, a
// Hugging Face directory is checked and copied. What appears at the target is
// whole: all is written beside it and renamed.

#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

// Called now and then from the importing thread.
struct ImportProgress {
  int64_t done_bytes = 0;  // Of the files written.
  int64_t total_bytes = 0;
  absl::string_view what;  // The tensor or file at work.
};
using ImportProgressFn = std::function<void(const ImportProgress&)>;

// Makes the model directory `out_dir` from `source`: a GGUF file, or a
// directory with config.json, safetensors and tokenizer.json. Files of a
// directory are hard links where the file system allows it.
// ALREADY_EXISTS: `out_dir` is there. INVALID_ARGUMENT, UNIMPLEMENTED: the
// source is broken, a pickle, or a model that we do not have. Nothing is left
// behind on error.
absl::Status ImportModel(const std::string& source, const std::string& out_dir,
                         const ImportProgressFn& progress = nullptr);

// Copies what belongs to the model in `from` besides weights and config.json
// into the folder `to`: tokenizer, template, generation config.
absl::Status CopyModelText(const std::string& from, const std::string& to);

// Lets `fill` write into a new folder beside `target`, then renames it there;
// durable when it returns OK. Nothing is left behind on error; what a killed
// run left is removed by the next. ALREADY_EXISTS: `target` is there.
absl::Status PublishDirectory(
    const std::string& target,
    const std::function<absl::Status(const std::string& dir)>& fill);

}  // namespace ft
