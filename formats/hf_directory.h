// SPDX-License-Identifier: Apache-2.0
//
// A model as Hugging Face lays it out: config.json, safetensors weights,
// tokenizer files. Its digest names it. Pickles (.bin, .pt, .pth, .ckpt) are
// refused and never opened as such: unpickling runs code.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/model_spec.h"
#include "formats/pickle.h"
#include "formats/safetensors.h"

namespace ft {

// What OpenHfDirectory has checked: the config is readable and supported, the
// weights hold exactly the parameters it implies.
struct HfDirectory {
  std::string path;
  ModelSpec spec;
  std::vector<std::string> warnings;
  SafetensorsModel weights;
};

// NOT_FOUND: a file is missing. INVALID_ARGUMENT, UNIMPLEMENTED: as
// ParseModelSpec, and for weights that do not fit the config, every fault
// named.
absl::StatusOr<HfDirectory> OpenHfDirectory(const std::string& dir);

// Checks that `weights` holds each parameter of `spec` with its shape and a
// floating type, or the weight of a linear in 4 bits where spec.quantization
// allows it. A lm_head.weight beside a tied embedding is ignored, as are
// rotary_emb.inv_freq buffers; another unknown tensor is a fault.
absl::Status CheckWeights(const ModelSpec& spec,
                          const SafetensorsModel& weights);

// The names of the files of `dir` that make up the model, sorted: config,
// generation config, weights with their index, tokenizer and template. Other
// files in the folder are not part of it.
absl::StatusOr<std::vector<std::string>> ModelFileNames(const std::string& dir);

// A file of a model and the SHA-256 of its bytes, in hexadecimal.
struct FileDigest {
  std::string name;
  std::string sha256;
};

// SHA-256 over the lines "<sha256>  <name>\n" in order of name. Callers may
// keep the file digests by size and time of change.
std::string ModelDigestOf(std::vector<FileDigest> files);

// Reads all files of the model in `dir`.
absl::StatusOr<std::string> ModelDigest(const std::string& dir);

}  // namespace ft
