// SPDX-License-Identifier: Apache-2.0
//
// One GGUF file, as `ftctl model import` takes it: metadata by every getter,
// config, tokenizer, every block of every tensor, and the folder that is made
// of it all.

#include "formats/gguf.h"

#include "common/file.h"
#include "formats/gguf_import.h"
#include "formats/gguf_tokenizer.h"
#include "formats/json.h"
#include "formats/model_spec.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

// The folder that models are imported into, emptied each time.
const std::string& ImportDir() {
  static const TempDir* const dir =
      new TempDir(TempDir::Create("/dev/shm").value());
  return dir->path();
}

void GetAll(const GgufFile& file) {
  for (const std::string& key : file.keys()) {
    FT_CHECK(file.Has(key));
    const int fits = file.GetInt(key).ok() + file.GetFloat(key).ok() +
                     file.GetBool(key).ok() + file.GetString(key).ok() +
                     file.GetStrings(key).ok() + file.GetInts(key).ok();
    FT_CHECK(fits <= 2);  // An empty array of strings has no integers either.
  }
}

void DecodeAll(const GgufFile& file) {
  for (const GgufTensor& tensor : file.tensors()) {
    FT_CHECK(file.Find(tensor.name) == &tensor);
    std::vector<float> values(tensor.numel());
    DecodeGgufBlocks(tensor.type, tensor.bytes, values);
  }
}

FT_FUZZ_TARGET(gguf) {
  const absl::StatusOr<GgufFile> file = GgufFile::Open(fuzz::InputFile(input));
  if (!file.ok()) return;
  GetAll(*file);
  DecodeAll(*file);
  const absl::StatusOr<std::string> config = MakeConfigJson(*file);
  const absl::StatusOr<TokenizerFiles> tokenizer = MakeTokenizerFiles(*file);
  if (tokenizer.ok()) {
    FT_CHECK(ParseJson(tokenizer->tokenizer_json).ok());
    FT_CHECK(ParseJson(tokenizer->tokenizer_config_json).ok());
  }
  if (!config.ok() || !tokenizer.ok()) return;
  const std::string dir = JoinPath(ImportDir(), "model");
  FT_CHECK(MakeDirs(dir).ok());
  if (WriteHfDirectory(*file, dir, nullptr).ok()) {
    FT_CHECK(ReadModelSpec(JoinPath(dir, "config.json")).ok());
  }
  FT_CHECK(RemoveTree(dir).ok());
}

}  // namespace
}  // namespace ft
