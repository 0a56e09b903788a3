#!/bin/bash
# Regenerate everything (about 10 CPU-minutes).  pip install -r requirements.txt first.
#   bash make_all.sh [--out DIR] [--spec SPEC.json] [--text TEXT_SPEC.py]
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=$(dirname "$here"); spec=$here/spec.json; text=$here/text_spec.py
while [ $# -gt 1 ]; do case $1 in --out) out=$2;; --spec) spec=$2;; --text) text=$2;; esac; shift 2; done
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$here"
python convert_smollm2.py --out "$work" --dtype fp32
python make_smollm2.py --out "$out" --spec "$spec" --model "$work/fp32"
for s in models training objectives nf4 nf4_model gguf; do [ -f "make_$s.py" ] || continue; python "make_$s.py" --out "$out" --spec "$spec"; done
[ ! -f make_text.py ] || python make_text.py --out "$out" --spec "$spec" --text "$text" --smol "$work/fp32"
