#!/usr/bin/env bash
# From a fresh clone to a DeepSeek-V4 checkpoint generating through libdsv4, in one command. On Debian 12/13 and Ubuntu
# 22.04/24.04 it installs what is missing (as root, or through sudo), builds Release and runs.
#
#   samples/quickstart.sh                  with the checkpoint that comes with the sources
#   samples/quickstart.sh FOLDER [TEXT]    with yours: config.json, tokenizer.json, *.safetensors
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=${1:+$(realpath -m -- "$1")}
if [ -n "$model" ] && [ ! -f "$model/config.json" ]; then
    echo "$model: expected a folder with config.json and *.safetensors" >&2
    exit 1
fi
cd "$root"
. samples/packages.sh

ensure_packages build
echo "== Building libdsv4, its plugins and the dsv4 tool (build-release)"
mkdir -p build-release
if ! cmake --preset release -DDSV4_BUILD_TESTS=OFF -DDSV4_CPU_ONEDNN=OFF >build-release/configure.log 2>&1; then
    cat build-release/configure.log >&2
    exit 1
fi
cmake --build build-release -j "$(nproc)"
dsv4=build-release/bin/dsv4

# The trained model where it is there; else the smallest checkpoint of the golden tests: published layout, random
# weights, no tokenizer, so it is given token ids.
if [ -z "$model" ]; then
    for folder in samples/tiny-model tests/golden/fixtures/*; do
        if [ -f "$folder/config.json" ] && ls "$folder"/*.safetensors >/dev/null 2>&1; then
            model=$folder
            break
        fi
    done
fi
if [ -z "$model" ]; then
    echo "No checkpoint in samples/tiny-model or tests/golden/fixtures. Name a folder: samples/quickstart.sh FOLDER" >&2
    exit 1
fi

run() {
    echo
    printf '$'
    printf ' %q' "$@"
    echo
    "$@"
}
echo
echo "== Backends that this machine can load"
run $dsv4 backends
echo
echo "== $model: $(du -shL "$model" | cut -f1) on disk"
if [ -n "${2:-}" ]; then
    run $dsv4 generate --model "$model" -p "$2" --max-tokens 100 --stream
elif [ "$model" = samples/tiny-model ]; then
    echo "   An agent: the model asks for tools, the program runs them (samples/agent.cpp)"
    run build-release/bin/agent "$model"
elif [ -f "$model/tokenizer.json" ]; then
    run $dsv4 generate --model "$model" -p "Hello!" --max-tokens 100 --stream
else
    run $dsv4 generate --model "$model" --ids "5 17 3 29 11" --max-tokens 24 --stream
fi
echo
echo "== What ran: $dsv4 loaded build-release/lib/libdsv4.so; the library read the plugin manifests in"
echo "   build-release/lib/dsv4/plugins, opened the best backend, mapped the checkpoint and generated with it."
echo "   Next: $dsv4 --help, samples/chat.c, include/dsv4/dsv4.h"
