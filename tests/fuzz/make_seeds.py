#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of tests/fuzz/corpus: small valid inputs, and one
for each class of bug that parsers of the same formats are known for. Findings
and what libFuzzer adds have other names and are never touched.

    tests/fuzz/make_seeds.py
"""
import hashlib
import json
import pathlib
import struct
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDEN = ROOT / "tests/golden"


def put(target, name, content):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    (folder / f"seed-{name}").write_bytes(content)


def proto(message, text):
    """The bytes of a message in protobuf's text format."""
    return subprocess.run(
        ["protoc", f"--proto_path={ROOT / 'proto'}", f"--encode=ft.v1.{message}",
         *(f"ft/v1/{f}.proto" for f in ("artifacts", "jobs", "ranks", "workers"))],
        input=text.encode(), capture_output=True, check=True, cwd=ROOT / "proto").stdout


# --- job.yaml ----------------------------------------------------------------

JOB = """schema: ft.v1
name: hotel-bot
model: {base: tiny}
data: {train: {path: train.json, format: alpaca}}
stage: sft
adaptation: {lora: {rank: 8}}
"""


def job_yaml():
    put("job_yaml", "small", JOB)
    for example in sorted((ROOT / "examples").glob("*.yaml")):
        put("job_yaml", example.stem, example.read_bytes())
    put("job_yaml", "long", JOB + """optimizer: {adamw: {beta1: 0.9}}
schedule: {learning_rate: 1e-4, steps: 20, kind: cosine}
batch: {sequences: 16, micro: auto}
resources: {ranks: {min: 1, max: 4}}
checkpointing: {every_steps: 50, keep: {last: 2, ttl: 7d}}
retry: {max_without_progress: 3}
""")
    put("job_yaml", "aliases", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    put("job_yaml", "alias_of_itself", "a: &a [*a]\n")
    put("job_yaml", "merge_key", "a: {<<: {name: x}}\n")
    put("job_yaml", "tag", "schema: !!python/object/apply:os.system [id]\n")
    put("job_yaml", "deep_lists", "[" * 200 + "]" * 200)
    put("job_yaml", "deep_maps", "{a: " * 100)
    put("job_yaml", "key_twice", JOB + "name: other\n")
    put("job_yaml", "two_documents", JOB + "---\n" + JOB)
    put("job_yaml", "key_is_a_list", "[a, b]: c\n? {x: y}\n: z\n")
    put("job_yaml", "tabs", "schema:\tft.v1\n\tname: x\n")
    put("job_yaml", "utf16", ("\ufeff" + JOB).encode("utf-16-le"))
    put("job_yaml", "no_utf8", b"name: \xff\xfe\x80\n")
    put("job_yaml", "nul", b"name: a\0b\n")
    put("job_yaml", "escapes", 'name: "\\U0010ffff\\x00\\uD800"\n')
    put("job_yaml", "numbers", JOB + "seed: 99999999999999999999\n"
        "schedule: {learning_rate: .nan, warmup: .inf, steps: 0x10}\n")
    put("job_yaml", "block_scalars", "name: |+9\n  a\n  b\nproject: >-\n x\n")


# --- model files -------------------------------------------------------------

def tensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors():
    def one(dtype="F32", shape=(2,), offsets=(0, 8)):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}

    def seed(name, *args, **kwargs):
        put("safetensors", name, tensors(*args, **kwargs))

    seed("one", {"w": one()}, b"\0" * 8)
    seed("many", {"__metadata__": {"format": "pt"},
                  "a": one("BF16", (2, 2), (0, 8)), "b": one("F16", (1, 1, 1), (8, 10)),
                  "c": one("I64", (), (10, 18)), "d": one("F64", (1,), (18, 26)),
                  "e": one("U8", (0, 7), (26, 26))}, b"\1" * 26)
    seed("empty", {})
    seed("header_is_too_long", b"{}", length=2**63 - 1)
    seed("header_wraps", b"{}", length=2**64 - 8)
    seed("header_over_the_limit", b"{}", length=20_000_001)
    seed("overlap", {"a": one(), "b": one(offsets=(4, 12))}, b"\0" * 12)
    seed("hole", {"a": one(), "b": one(offsets=(16, 24))}, b"\0" * 24)
    seed("bytes_behind", {"a": one()}, b"\0" * 9)
    seed("cut", {"a": one()}, b"\0" * 7)
    seed("name_twice", b'{"a":%s,"a":%s}' % ((json.dumps(one()).encode(),) * 2), b"\0" * 8)
    seed("metadata_twice", b'{"__metadata__":{"a":"1"},"__metadata__":{"a":"1"}}')
    seed("product_wraps", {"a": one(shape=(2**32, 2**32, 2**32), offsets=(0, 0))})
    seed("product_of_zero", {"a": one(shape=(2**62, 2**62, 0), offsets=(0, 0))})
    seed("negative", b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[-4,0]}}')
    seed("offsets_backwards", {"a": one(offsets=(8, 0))}, b"\0" * 8)
    seed("nine_dims", {"a": one(shape=(1,) * 9, offsets=(0, 4))}, b"\0" * 4)
    seed("metadata_no_text", {"__metadata__": {"a": {"b": 1}}})
    seed("deep", b'{"a":' * 1000)
    seed("spaces_behind", b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}' + b" " * 99, b"x")
    seed("no_utf8", b'{"\xff":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x")
    seed("number_overflows", b'{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}}', b"x")
    put("safetensors", "pickle", b"\x80\x02}q\0.")
    put("safetensors", "zip", b"PK\3\4" + b"\0" * 30)


def stored_nf4():
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [8, 18]}
    nested = {**state, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}
    ascending = struct.pack("<16f", *(i / 8 - 1 for i in range(16)))
    nested_map = struct.pack("<256f", *(i / 128 - 1 for i in range(256)))

    def seed(name, said=nested, state_bytes=None, **changes):
        text = json.dumps(said).encode() if state_bytes is None else state_bytes
        parts = {"w": ("U8", [72, 1], b"\x7a" * 72), "w.quant_map": ("F32", [16], ascending),
                 "w.absmax": ("U8", [3], b"\1\2\3"), "w.nested_absmax": ("F32", [1], struct.pack("<f", 0.5)),
                 "w.nested_quant_map": ("F32", [256], nested_map),
                 "w.quant_state.bitsandbytes__nf4": ("U8", [len(text)], text)}
        parts.update({key.replace("__", "."): value for key, value in changes.items()})
        header, data = {}, b""
        for key, value in parts.items():
            if value is None:
                continue
            dtype, shape, bytes_ = value
            header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(bytes_)]}
            data += bytes_
        put("stored_nf4", name, tensors(header, data))

    seed("nested")
    plain = {"w__nested_absmax": None, "w__nested_quant_map": None}
    seed("plain", state, w__absmax=("F32", [3], struct.pack("<3f", 1, 2, 3)), **plain)
    seed("codes_as_bf16", w=("BF16", [36, 1], b"\x7a" * 72))
    seed("scales_of_another_type", w__absmax=("F32", [3], b"\0" * 12))
    seed("no_nested_map", w__nested_quant_map=None)
    seed("no_nested_absmax", w__nested_absmax=None)
    seed("few_codes", w=("U8", [71, 1], b"\0" * 71))
    seed("few_scales", w__absmax=("U8", [2], b"\0" * 2))
    seed("map_descends", w__quant_map=("F32", [16], ascending[::-1]))
    seed("map_not_finite", w__nested_quant_map=("F32", [256], b"\xff" * 1024))
    seed("offset_too_large", {**nested, "nested_offset": 1e300})
    seed("offset_is_text", {**nested, "nested_offset": "nan"})
    seed("shape_wraps", {**nested, "shape": [2**63, 2**63]})
    seed("shape_negative", {**nested, "shape": [-8, -18]})
    seed("blocksize_zero", {**nested, "blocksize": 0})
    seed("state_deep", state_bytes=b'{"a":' * 700)
    seed("state_empty", state_bytes=b"")


GGUF_PACK = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def gstring(text):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text


def gvalue(kind, value):
    if kind == 8:
        return gstring(value)
    if kind == 9:
        element, values = value
        return struct.pack("<IQ", element, len(values)) + b"".join(gvalue(element, v) for v in values)
    return struct.pack("<" + GGUF_PACK[kind], value)


def gguf_file(keys, infos=(), data=b"", counts=None, version=3, magic=b"GGUF"):
    n_tensors, n_keys = counts or (len(infos), len(keys))
    head = magic + struct.pack("<IQQ", version, n_tensors, n_keys)
    for key, kind, value in keys:
        head += gstring(key) + struct.pack("<I", kind) + (value if kind > 12 else gvalue(kind, value))
    for name, dims, kind, offset in infos:
        head += gstring(name) + struct.pack("<I", len(dims))
        head += b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, offset)
    return head + b"\0" * (-len(head) % 32) + data


def tiny_llama():
    """The smallest llama that imports: one layer of width 2, three tokens."""
    keys = [("general.architecture", 8, "llama"), ("general.alignment", 4, 32),
            ("llama.block_count", 4, 1), ("llama.context_length", 4, 16),
            ("llama.embedding_length", 4, 2), ("llama.feed_forward_length", 4, 2),
            ("llama.attention.head_count", 4, 1), ("llama.attention.head_count_kv", 4, 1),
            ("llama.attention.layer_norm_rms_epsilon", 6, 1e-5),
            ("llama.rope.freq_base", 6, 10000.0), ("llama.vocab_size", 4, 3),
            ("tokenizer.ggml.model", 8, "gpt2"), ("tokenizer.ggml.pre", 8, "smollm"),
            ("tokenizer.ggml.tokens", 9, (8, ["a", "b", "ab"])),
            ("tokenizer.ggml.token_type", 9, (5, [1, 3, 1])),
            ("tokenizer.ggml.merges", 9, (8, ["a b"])),
            ("tokenizer.ggml.eos_token_id", 4, 1), ("tokenizer.ggml.add_bos_token", 7, False),
            ("tokenizer.chat_template", 8, "{{ messages }}")]
    names = [("token_embd.weight", [2, 3])]
    for part, dims in [("attn_norm", [2]), ("attn_q", [2, 2]), ("attn_k", [2, 2]), ("attn_v", [2, 2]),
                       ("attn_output", [2, 2]), ("ffn_norm", [2]), ("ffn_gate", [2, 2]),
                       ("ffn_up", [2, 2]), ("ffn_down", [2, 2])]:
        names.append((f"blk.0.{part}.weight", dims))
    names.append(("output_norm.weight", [2]))
    infos = [(name, dims, 0, 32 * i) for i, (name, dims) in enumerate(names)]
    return keys, infos, b"\0" * 32 * len(infos)


def gguf():
    def seed(name, *args, **kwargs):
        put("gguf", name, gguf_file(*args, **kwargs))

    keys, infos, data = tiny_llama()
    seed("llama", keys, infos, data)
    seed("yarn", keys + [("llama.rope.scaling.type", 8, "yarn"), ("llama.rope.scaling.factor", 6, 4.0),
                         ("llama.rope.scaling.original_context_length", 4, 8)], infos, data)
    seed("rope_freqs", keys, infos + [("rope_freqs.weight", [1], 0, 32 * len(infos))], data + b"\0" * 32)
    blocks = [(i, n, b) for i, n, b in [(1, 1, 2), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24),
                                        (8, 32, 34), (12, 256, 144), (13, 256, 176), (14, 256, 210),
                                        (30, 1, 2)]]
    seed("block_types", [], [(f"t{i}", [n], i, 256 * k) for k, (i, n, _) in enumerate(blocks)],
         bytes(range(256)) * len(blocks))
    seed("value_types", [(f"k{kind}", kind, 1) for kind in GGUF_PACK] +
         [(f"a{kind}", 9, (kind, [1, 0])) for kind in GGUF_PACK] + [("s", 9, (8, ["", "x"]))])
    seed("too_many_keys", [], counts=(0, 2**64 - 1))
    seed("too_many_tensors", [], counts=(2**63, 0))
    seed("keys_over_the_limit", [], counts=(0, 2**16 + 1))
    put("gguf", "string_wraps", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**64 - 1))
    put("gguf", "array_wraps", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gstring("a") +
        struct.pack("<IIQ", 9, 10, 2**61))
    put("gguf", "array_over_the_limit", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gstring("a") +
        struct.pack("<IIQ", 9, 0, 2**24 + 1))
    put("gguf", "array_of_arrays", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gstring("a") +
        struct.pack("<IIQ", 9, 9, 2) * 2)
    seed("unknown_value_type", [("a", 4000, b"\0" * 8)])
    seed("key_twice", [("a", 4, 1), ("a", 4, 2)])
    seed("alignment_zero", [("general.alignment", 4, 0)], [("a", [1], 0, 0)], b"\0" * 4)
    seed("alignment_no_number", [("general.alignment", 8, "x")])
    seed("dims_wrap", [], [("a", [2**32, 2**32, 2], 0, 0)], b"\0" * 4)
    seed("dim_zero", [], [("a", [0], 0, 0)])
    seed("five_dims", [], [("a", [1] * 5, 0, 0)], b"\0" * 4)
    seed("offset_wraps", [], [("a", [1], 0, 2**64 - 32)], b"\0" * 4)
    seed("overlap", [], [("a", [16], 0, 0), ("b", [16], 0, 32)], b"\0" * 96)
    seed("half_a_block", [], [("a", [33], 2, 0)], b"\0" * 64)
    seed("unknown_block_type", [], [("a", [1], 99, 0)], b"\0" * 64)
    seed("version_2", [], version=2)
    seed("big_endian", [], version=0x03000000)
    seed("magic", [], magic=b"GGML")
    seed("token_no_utf8", [(k, t, (8, [b"\xff", "b", "ab"]) if k.endswith("tokens") else v)
                           for k, t, v in keys], infos, data)


def config_json():
    for config in sorted((GOLDEN / "models").glob("*/config*.json")):
        put("config_json", f"{config.parent.name}_{config.stem}", config.read_bytes())
    base = json.loads((GOLDEN / "models/llama_tied/config.json").read_text())

    def seed(name, **changes):
        put("config_json", name, json.dumps({**base, **changes}))

    seed("heads_zero", num_attention_heads=0, num_key_value_heads=0)
    seed("kv_heads_do_not_divide", num_key_value_heads=3)
    seed("odd_head_dim", head_dim=7)
    seed("layers_bomb", num_hidden_layers=1024)
    seed("largest", num_hidden_layers=1024, hidden_size=2**20, intermediate_size=2**20, vocab_size=2**22,
         num_attention_heads=4096, num_key_value_heads=4096, head_dim=4096)
    seed("over_int64", vocab_size=2**64)
    seed("negative", hidden_size=-1, vocab_size=-2**63)
    seed("wrong_types", hidden_size="64", eos_token_id=[[1]], tie_word_embeddings=1, rope_scaling=[1])
    seed("code", auto_map={"AutoModel": "evil.Model"}, architectures=["Evil"], model_type="evil")
    seed("eos_list", eos_token_id=[1, 2, 3], bos_token_id=-1)
    seed("yarn", rope_scaling={"rope_type": "yarn", "factor": 0, "mscale": 1e308, "beta_fast": -1})
    seed("quantized", quantization_config={"bits": 4})
    put("config_json", "deep", "[" * 20_000)
    put("config_json", "key_twice", '{"model_type":"llama","model_type":"llama"}')
    put("config_json", "number_overflows", '{"rms_norm_eps":1e999}')
    put("config_json", "surrogate", '{"model_type":"\\ud800"}')
    put("config_json", "no_utf8", b'{"model_type":"\xff"}')
    put("config_json", "nan", '{"rms_norm_eps":NaN}')


# --- text --------------------------------------------------------------------

def tokenizer(model, **parts):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None, **parts, "model": model}


def tokenizer_json():
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
           "vocab": {"H": 0, "e": 1, "l": 2, "o": 3, "ll": 4, "llo": 5, "\u0120": 6},
           "merges": [["l", "l"], ["ll", "o"]]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    unigram = {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
               "vocab": [["<unk>", 0.0], ["\u2581", -1.0], ["a", -2.0], ["Hello", -3.0]]}
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    special = {"id": 7, "content": "<s>", "single_word": False, "lstrip": True, "rstrip": False,
               "normalized": False, "special": True}

    def seed(name, model, text=None, **parts):
        body = json.dumps(tokenizer(model, **parts), ensure_ascii=False).encode()
        put("tokenizer_json", name, body + (b"" if text is None else b"\xff" + text.encode()))

    seed("bpe", bpe, pre_tokenizer=byte_level, decoder=byte_level, added_tokens=[special],
         post_processor={"type": "TemplateProcessing", "single": [
             {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}})
    seed("unigram", unigram, pre_tokenizer=metaspace, decoder=metaspace)
    seed("wordpiece", {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                       "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "he": 1, "##llo": 2}},
         normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                     "strip_accents": None, "lowercase": True},
         pre_tokenizer={"type": "BertPreTokenizer"}, decoder={"type": "WordPiece", "prefix": "##",
                                                              "cleanup": True})
    seed("wordlevel", {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"},
         pre_tokenizer={"type": "Whitespace"})
    seed("normalizers", bpe, normalizer={"type": "Sequence", "normalizers": [
        {"type": n} for n in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents")] + [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]})
    seed("decoders", unigram, decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True}]})
    seed("splits", bpe, pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+"}, "behavior": "Isolated", "invert": False},
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "CharDelimiterSplit", "delimiter": "x"}, {"type": "UnicodeScripts"}]})
    seed("charsmap_cut", unigram, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAQ=="})
    seed("regex_catastrophe", bpe, text="a" * 40 + "!", pre_tokenizer={
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False})
    seed("replace_grows", bpe, text="aaaa", normalizer={"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 8})
    seed("replace_empty", bpe, normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "x"})
    seed("merge_of_unknown", {**bpe, "merges": [["x", "y"]]})
    seed("old_merges", {**bpe, "merges": ["l l", "ll o"]})
    seed("ids_collide", {**bpe, "vocab": {"a": 0, "b": 0, "c": 4294967295}})
    seed("id_is_huge", bpe, added_tokens=[{**special, "id": 4294967295}])
    seed("unknown_id_outside", {**unigram, "unk_id": 99})
    seed("scores", {**unigram, "vocab": [["a", 1e308], ["b", -1e308], ["", 0.0]]})
    seed("byte_fallback", {**unigram, "byte_fallback": True,
                           "vocab": [["<unk>", 0]] + [[f"<0x{b:02X}>", -1] for b in range(256)]})
    seed("truncates", bpe, truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst",
                                       "stride": 5}, padding={"strategy": {"Fixed": 1 << 40},
                                                              "direction": "Right",
                                                              "pad_to_multiple_of": 0, "pad_id": 0,
                                                              "pad_type_id": 0, "pad_token": "x"})
    put("tokenizer_json", "deep", '{"model":' + '{"a":' * 10_000)
    put("tokenizer_json", "empty", "{}")


def sentencepiece():
    def field(number, body):
        return bytes([number << 3 | 2]) + varint(len(body)) + body

    def piece(text, score=-1.0, kind=1):
        return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))

    pieces = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("\u2581") + piece("Hello") + piece("x", kind=4)
    trainer, normalizer = field(2, b"\x18\x01\x98\x02\x00"), field(3, b"\x18\x01\x20\x01\x28\x01")
    put("sentencepiece", "unigram", pieces + trainer + normalizer)
    put("sentencepiece", "bpe", pieces + field(2, b"\x18\x02"))
    put("sentencepiece", "bytes", pieces + b"".join(piece(f"<0x{b:02X}>", kind=6) for b in range(256)) + field(
        2, b"\x98\x02\x01"))
    put("sentencepiece", "score_is_nan", piece("a", float("nan")) + piece("b", float("inf")))
    put("sentencepiece", "charsmap", pieces + field(3, field(2, b"\4\0\0\0\0\1\0\0abc\0")))
    put("sentencepiece", "no_utf8", field(1, field(1, b"\xff\xfe")))
    put("sentencepiece", "length_wraps", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    put("sentencepiece", "varint_endless", b"\xff" * 30)
    put("sentencepiece", "cut", pieces[:-2])


def chat_template():
    for template in sorted((GOLDEN / "text/templates").glob("*.jinja")):
        if template.stat().st_size <= 4096:
            put("chat_template", template.stem, template.read_bytes())
    for name, text in {
            "endless": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "macro_calls_itself": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
            "repeat": "{{ 'a' * 1000000000 }}",
            "range": "{{ range(1000000000)|list }}{{ range(10**18) }}",
            "power": "{{ 9**9**9**9 }}{{ 2 ** -1 }}{{ 1 // 0 }}{{ 1 % 0 }}",
            "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
            "include": "{% include '/etc/passwd' %}{% import 'x' as y %}{% extends 'z' %}",
            "deep_lists": "{{ " + "[" * 500 + "]" * 500 + " }}",
            "deep_parens": "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
            "deep_nots": "{{ " + "not " * 3000 + "1 }}",
            "deep_ifs": "{% if 1 %}" * 300 + "{% endif %}" * 300,
            "open": "{% generation %}{% for x in y %}{{",
            "generation": "{%- generation -%}x{%- endgeneration -%}{% generation %}{% endgeneration %}",
            "generation_twice": "{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}",
            "generation_upper": "{% set x %}{% generation %}ab{% endgeneration %}{% endset %}{{ x|upper }}{{ x[1:] }}",
            "slices": "{{ messages[::-1][:0] }}{{ 'abc'[::0] }}{{ 'abc'[-9:9:2] }}",
            "strftime": "{{ strftime_now('%Y %m %d') }}{{ strftime_now('%' * 1000) }}",
            "tojson": "{{ tools|tojson(indent=4) }}{{ messages|tojson(indent=-1) }}{{ tools|tojson(indent=99999999) }}",
            "raise": "{{ raise_exception('no') }}",
            "sort": "{{ messages|sort(attribute='role') }}{{ messages|groupby('role') }}{{ messages|map('upper')|list }}",
            "pycompat": "{{ 'a-b'.split('-')|join }}{{ {'a': 1}.items()|list }}{{ 'x'.replace('', 'y' * 99) }}",
    }.items():
        put("chat_template", name, text)
    put("chat_template", "context", b'{{ messages[0].content }}\xff{"messages": [{"content": 1e999}]}')
    put("chat_template", "context_deep", b"{{ m }}\xff{\"m\":" + b"[" * 200)
    put("chat_template", "context_nonce", b"{{ ft_nonce }}{% generation %}x{% endgeneration %}\xff{\"ft_nonce\": \"a\"}")


def dataset_rows():
    alpaca = {"instruction": "hi {{name}}", "input": "x", "output": "hello", "history": [["a", "b"]],
              "system": "s"}
    sharegpt = {"conversations": [{"from": "human", "value": "hi"},
                                  {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                                  {"from": "observation", "value": "2"}, {"from": "gpt", "value": "bye"}],
                "system": "s", "tools": '[{"name": "f", "parameters": {}}]'}
    openai = {"messages": [{"role": "system", "content": "s"},
                           {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                           {"role": "assistant", "content": [{"type": "reasoning", "value": "r"},
                                                             {"type": "tool_call", "value": '{"name": "f", "arguments": "{}"}'}]},
                           {"role": "tool", "content": "2"},
                           {"role": "assistant", "content": "bye", "loss_weight": 0},
                           {"role": "user", "content": "and?"}, {"role": "assistant", "content": "ok"}],
              "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}

    def seed(name, kind, body):
        put("dataset_rows", name, bytes([kind]) + (body if isinstance(body, bytes) else body.encode()))

    for kind, (name, row) in enumerate([("alpaca", alpaca), ("sharegpt", sharegpt), ("openai", openai)]):
        seed(f"{name}_array", kind, json.dumps([row, row], indent=1))
        seed(f"{name}_lines", kind, json.dumps(row) + "\n\n" + json.dumps(row))
        seed(f"{name}_long", kind, json.dumps(row).replace("hi", "word " * 200))
        seed(f"{name}_empty", kind, "[{}, [], 1, null, \"\", {\"messages\": []}]")
    seed("tools_deep", 1, json.dumps({**sharegpt, "tools": "[" * 20_000}))
    seed("tools_deep_closed", 2, json.dumps({**openai, "tools": "[" * 5_000 + "]" * 5_000}))
    seed("call_deep", 1, json.dumps({"conversations": [
        {"from": "human", "value": "x"}, {"from": "function_call", "value": '{"a":' * 20_000}]}))
    seed("deep", 0, "[" + "[" * 70 + "]" * 70 + "]")
    seed("deep_open", 0, "[" * 20_000)
    seed("many_keys", 0, "{" + ",".join(f'"k{i}":{i}' for i in range(3000)) + "}")
    seed("key_twice", 0, '{"output":"a","output":"b","instruction":"x","instruction":1}')
    seed("number_overflows", 0, '[{"instruction": 1e999, "output": -1e999}]')
    seed("no_utf8", 0, b'{"instruction": "\xff", "output": "\xc0\x80\xed\xa0\x80"}')
    seed("surrogates", 0, '{"instruction": "\\ud800", "output": "\\udc00\\ud800x"}')
    seed("byte_order_mark", 0, b"\xef\xbb\xbf[]")
    seed("nul", 0, b'{"instruction": "a\0b", "output": "\\u0000"}')
    seed("array_open", 0, '[{"output": "a"}, {"output": "')
    seed("commas", 0, "[,,1,,]")
    seed("behind", 0, "[] []")
    seed("variables", 0, json.dumps([{**alpaca, "instruction": "{{" * 50 + "name}}{{}}{{ name }}{{n}}"}]))
    seed("turns_out_of_order", 1, json.dumps([{"conversations": [{"from": "gpt", "value": "x"}]}]))


# --- control plane -----------------------------------------------------------

A, B = "a" * 64, "b" * 64
FILE = 'files {path: "%s" bytes: %d sha256: "' + A + '"}'


def manifest():
    def seed(name, text):
        put("manifest", name, proto("Manifest", text))

    seed("adapter", "kind: ARTIFACT_KIND_ADAPTER job_id: 'job-000000000001' epoch: 1 step: 4 " +
         FILE % ("adapter_config.json", 7) + FILE % ("a/b.safetensors", 9) + f"parents: '{B}'")
    seed("pieces", 'files {path: "w" bytes: 9 sha256: "%s" piece_sha256: ["%s", "x"]}' % (A, B))
    for name, path in {"up": "../x", "absolute": "/etc/passwd", "dot": "a/./b", "backslash": "a\\\\..\\\\b",
                       "nul": "a\\000b", "empty": "", "long": "x" * 1025, "newline": "a\\nb"}.items():
        seed(f"path_{name}", FILE % (path, 1))
    seed("twice", FILE % ("a", 1) + FILE % ("a", 2))
    seed("sizes_wrap", FILE % ("a", 2**63 - 1) + FILE % ("b", 2**63 - 1) + FILE % ("c", 2**63 - 1))
    seed("negative", FILE % ("a", -1))
    seed("negative_step", "step: -1")
    put("manifest", "length_wraps", b"\x12\xff\xff\xff\xff\x0f")
    put("manifest", "groups", b"\x0b" * 1000)


def checkpoint_json():
    good = {"format_version": 1, "job_id": "job-000000000001", "step": 4, "ranks": 2, "zero_stage": 1, "lanes": 4,
            "seed": 7, "cursor": {"pass": 0, "index": 3}, "model_digest": A, "dataset_digest": B,
            "layout_sha256": A, "fingerprint": {"isa": "avx2", "threads": "1"},
            "tensors": {"lora_A": {"shape": [2, 3], "dtype": "F32", "kinds": ["master"]}},
            "files": [{"name": "shard-00000-of-00002.safetensors", "size": 9, "sha256": A}]}

    def seed(name, **changes):
        value = {**good, **changes}
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        put("checkpoint_json", name, json.dumps({**value, "sha256": hashlib.sha256(text.encode()).hexdigest()}))

    seed("good")
    seed("huge_numbers", step=2**63, seed=2**64 - 1, lanes=-1)
    seed("many_ranks", ranks=2**31)
    seed("other_version", format_version=2)
    seed("path_up", files=[{"name": "../x", "size": 1, "sha256": A}])
    seed("files_of_no_object", files=[1, [], None])
    seed("cursor_wrong", cursor={"pass": 1.5, "index": "x"})
    seed("no_texts", job_id=1, fingerprint={"a": [1]})
    seed("float", step=4.0, seed=1e300)
    put("checkpoint_json", "deep", '{"a":' + "[" * 20_000)
    put("checkpoint_json", "deep_closed", '{"tensors":' + "[" * 5000 + "]" * 5000 + "}")
    put("checkpoint_json", "digest_no_text", '{"sha256": [1]}')
    put("checkpoint_json", "cut", json.dumps(good)[:100])


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def rank_frames():
    def frame(message):
        return varint(len(message)) + message

    life = b"".join(frame(proto("FromRank", text)) for text in (
        "rendezvous_set {key: 'tcp/0' value: '127.0.0.1:1'}", "rendezvous_get {key: 'tcp/1'}",
        f"ready {{model_digest: '{A}' completed_steps: 0 total_steps: 4}}", "step {step: 1 loss: 2.5}",
        f"checkpoint_files {{step: 2 dir: '/w/step-000002' own {{path: 's' bytes: 3 sha256: '{A}'}}}}",
        "exit {code: 0 yielded: true last_step: 2}"))
    put("rank_frames", "life", life)
    put("rank_frames", "orders", b"".join(frame(proto("ToRank", text)) for text in (
        "start {job_id: 'job-000000000001' epoch: 1 world: 2 secret: 'x'}", "begin {}", "checkpoint {}", "yield {}")))
    put("rank_frames", "cut", life[:-3])
    put("rank_frames", "empty_frames", b"\0" * 1000)
    put("rank_frames", "too_long", varint((4 << 20) + 1) + b"x")
    put("rank_frames", "longest", varint(4 << 20) + b"x" * 100)
    put("rank_frames", "varint_of_five", b"\x80\x80\x80\x80\x01")
    put("rank_frames", "varint_padded", b"\x81\x80\x00x")
    put("rank_frames", "varint_endless", b"\xff" * 100)
    put("rank_frames", "deep", frame(b"\x3a\x7e" * 60))
    put("rank_frames", "large", varint(70_000) + b"\0" * 70_000 + life)


def collective_frames():
    job = struct.unpack("<Q", hashlib.sha256(b"job-0123456789ab").digest()[:8])[0]
    all_gather, all_to_all, broadcast, barrier, abort = range(1, 6)

    def sequence(calls):
        value = 0xCBF29CE484222325
        for op, size in calls:
            for word in (op, size):
                value = ((value ^ word) * 0x100000001B3) & (2**64 - 1)
                value ^= value >> 29
        return value

    def header(op, calls, size, epoch=7, magic=0x31437466, tag=job):
        return struct.pack("<IIQQQQ", magic, op, tag, epoch, sequence(calls), size)

    def seed(name, calls, sent):
        put("collective_frames", name, b"\1" + bytes(calls + [3] * (4 - len(calls))) + sent)

    gather = [(all_gather, 8)]
    seed("gather", [16], header(all_gather, gather, 8) + b"x" * 8)
    four = [(all_gather, 8), (all_to_all, 8), (broadcast, 8), (barrier, 0)]
    seed("four_calls", [16, 17, 18, 3],
         header(all_gather, four[:1], 8) + b"x" * 8 + header(all_to_all, four[:2], 8) + b"y" * 4 +
         header(broadcast, four[:3], 8) + b"z" * 8 + header(barrier, four, 0))
    seed("other_size", [16], header(all_gather, gather, 2**63) + b"x" * 8)
    seed("other_call", [16], header(barrier, [(barrier, 0)], 0))
    seed("other_epoch", [16], header(all_gather, gather, 8, epoch=6))
    seed("other_job", [16], header(all_gather, gather, 8, tag=1))
    seed("other_magic", [16], header(all_gather, gather, 8, magic=0))
    seed("abort", [16], header(abort, gather, 3) + b"why")
    seed("abort_is_long", [16], header(abort, gather, 2**64 - 1) + b"w" * 2000)
    seed("cut", [16], header(all_gather, gather, 8)[:39])
    seed("nothing", [16], b"")
    put("collective_frames", "hello", b"\0\0")
    put("collective_frames", "proof_is_wrong", b"\0\1")
    for name, at in {"magic": 0, "job": 8, "epoch": 40, "rank": 48, "size": 52, "nonce": 56}.items():
        put("collective_frames", f"hello_{name}", b"\0\0" + bytes([at, 1]))
    put("collective_frames", "hello_rank_is_mine", b"\0\0" + bytes([48, 1]))
    put("collective_frames", "hello_rank_is_huge", b"\0\0" + bytes([51, 255]))


def rpc_requests():
    kinds = ["create", "cancel", "delete", "manifest", "commit", "delete_artifact", "w0", "w1", "w2",
             "detach", "time", "reload", "restart"]

    def step(kind, body):
        return bytes([kinds.index(kind)]) + struct.pack("<H", len(body)) + body

    def create(request_id, extra="", ranks=1):
        return step("create", proto("CreateJobRequest", f"""request_id: '{request_id}' spec {{
            schema: 'ft.v1' name: 'hotel-bot' model {{base: 'tiny'}} stage {{sft {{}}}} adaptation {{lora {{}}}}
            data {{train {{path: 'train.json' format: DATA_FORMAT_ALPACA sha256: '{A}' bytes: 44}}}}
            resources {{ranks {{max: {ranks}}}}} {extra} }}"""))

    def say(worker, text):
        return step(worker, proto("ConnectRequest", text))

    def attach(worker, held="", slots="slots {}"):
        return say(worker, f"""attach {{worker_id: '{worker}' instance_id: 'i0' inventory {{{slots} isa_class: 'avx2'}}
            models {{name: 'tiny' digest: 'd1'}} {held}}}""")

    def update(worker, text, epoch=1):
        return say(worker, f"attempt_update {{job_id: '$0' epoch: {epoch} {text}}}")

    def commit(request_id, kind, epoch=1, step_number=2, name=""):
        return step("manifest", proto("Manifest", f"""kind: ARTIFACT_KIND_{kind} job_id: '$0' epoch: {epoch}
            step: {step_number} files {{path: 'weights' bytes: 7 sha256: '{A}'}}""")) + step(
            "commit", proto("CommitArtifactRequest", f"""job_id: '$0' epoch: {epoch}
            request_id: '{request_id}' name: '{name}'"""))

    running = attach("w0") + create("r0", "export {name: 'adapter'}") + update("w0", "accepted {}") + update(
        "w0", "rank_ready {rank: 0}")
    put("rpc_requests", "whole_life", running + say("w0", "heartbeat {seq: 1 epochs: 1}") +
        commit("c0", "CHECKPOINT") + say("w0", """event {job_id: '$0' epoch: 1 seq: 1 event {
            kind: EVENT_KIND_JOB_CREATED message: 'm' fields {key: 'a' value: 'b'}}}""") +
        update("w0", "ranks_done {}") + commit("c1", "ADAPTER", name="adapter") +
        step("delete", proto("DeleteJobRequest", "job_id: '$0' request_id: 'r9'")))
    put("rpc_requests", "rank_dies", running + update("w0", "ended {cause: ATTEMPT_CAUSE_RANK_SIGNAL signal: 9}") +
        step("time", b"\x64") + update("w0", "accepted {}", epoch=2))
    put("rpc_requests", "worker_lost", running + step("detach", b"\0") + step("time", b"\xff") * 4 + attach("w1") +
        attach("w0", "attempts {job_id: '$0' epoch: 1 state: ATTEMPT_STATE_RUNNING}"))
    put("rpc_requests", "cancel", running + step("cancel", proto(
        "CancelJobRequest", "job_id: '$0' request_id: 'r1'")) + step("time", b"\xff") + update(
            "w0", "ended {cause: ATTEMPT_CAUSE_STOPPED}"))
    put("rpc_requests", "drain", running + say("w0", "drain {}") + step("time", b"\xff"))
    put("rpc_requests", "restart", running + step("restart", b"") + attach(
        "w0", "attempts {job_id: '$0' epoch: 1 state: ATTEMPT_STATE_RUNNING}") + step("reload", b"") +
        say("w0", "heartbeat {seq: 2 epochs: 1}"))
    put("rpc_requests", "two_ranks", attach("w0") + attach("w1") + create("r0", ranks=2) +
        update("w0", "accepted {}") + update("w1", "accepted {}") +
        say("w0", "rendezvous_set {job_id: '$0' epoch: 1 key: 'tcp/0' value: 'x'}") +
        say("w1", "rendezvous_get {job_id: '$0' epoch: 1 rank: 1 key: 'tcp/0'}") +
        say("w1", "rendezvous_set {job_id: '$0' epoch: 1 key: 'tcp/0' value: 'y'}"))
    put("rpc_requests", "same_request_id", create("r0") * 2 + create("r0", "priority: 1"))
    put("rpc_requests", "stale_epoch", running + commit("c0", "CHECKPOINT", epoch=9) + update("w0", "accepted {}", 0))
    put("rpc_requests", "negative_step", running + commit("c0", "CHECKPOINT", step_number=-5))
    put("rpc_requests", "steps_back", running + commit("c0", "CHECKPOINT", step_number=5) +
        commit("c1", "CHECKPOINT", step_number=3) + commit("c2", "CHECKPOINT", step_number=7))
    put("rpc_requests", "slots_twice", attach("w0", slots="slots {} slots {}") + create("r0"))
    put("rpc_requests", "attach_twice", attach("w0") + attach("w0"))
    put("rpc_requests", "strange_enums", running + update("w0", "ended {cause: 1000 status_code: -1 rank: -1}"))


def page_tokens():
    for kind in range(3):
        for name, token in {"first": b"", "third": b"3", "zero": b"0", "negative": b"-1", "spaces": b" 3 ",
                            "huge": b"99999999999999999999", "most": b"9223372036854775807", "hex": b"0x3",
                            "name": b"adapter-2", "quote": b"' OR 1=1 --", "nul": b"adapter-2\0x",
                            "no_utf8": b"\xff\xfe", "long": b"a" * 3000}.items():
            put("page_tokens", f"{name}_{kind}", bytes([kind, 2]) + token)
        put("page_tokens", f"negative_size_{kind}", bytes([kind, 0xFF]))
        put("page_tokens", f"default_size_{kind}", bytes([kind, 0]))


def http2_opening():
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def header(name, value):
        return bytes([0, len(name)]) + name + bytes([len(value)]) + value

    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 65535))
    ack = frame(4, 1, 0)
    block = header(b":method", b"POST") + header(b":path", b"/ft.v1.JobService/ListJobs") + \
        header(b"authorization", b"Bearer ft_nobody")
    indexed = bytes([0x40, 1]) + b"x" + bytes([127, 1]) + b"y" * 128 + bytes([0xBE] * 40)
    for name, bytes_ in {
            "call": begin + ack + frame(1, 5, 1, block),
            "data_before_ack": begin + frame(1, 4, 1, block) + frame(0, 1, 1, b"message") + ack,
            "padded": begin + frame(1, 0x2C, 1, b"\x03" + b"\0" * 5 + block + b"\0" * 3),
            "continued": begin + frame(1, 0, 1, block[:9]) + frame(9, 0, 1, block[9:20]) + frame(9, 4, 1, block[20:]),
            "interrupted": begin + frame(1, 0, 1, block) + ack,
            "indexed": begin + frame(1, 4, 1, indexed),
            "table_size": begin + frame(1, 4, 1, b"\x3f\xff\xff\xff\x7f" + block),
            "pings": begin + frame(6, 0, 0, b"12345678") * 20 + frame(8, 0, 0, b"\0\0\xff\xff"),
            "reset_of_nothing": begin + frame(3, 0, 1, b"\0\0\0\x08"),
            "long_frame": begin + b"\xff\xff\xff\x01\x04\0\0\0\x01",
            "http1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"}.items():
        for cut in (0, 12):
            put("http2_opening", f"{name}_{cut}", bytes([cut]) + bytes_)


if __name__ == "__main__":
    for write in (job_yaml, safetensors, stored_nf4, gguf, config_json, tokenizer_json, sentencepiece, chat_template, dataset_rows,
                  manifest, checkpoint_json, rank_frames, collective_frames, rpc_requests, page_tokens,
                  http2_opening):
        write()
