#!/usr/bin/env bash
# Builds libdsv4 and runs every test that this machine can run: under ASan + UBSan, under TSan, and as released.
# From a bare Debian 12/13 or Ubuntu 22.04/24.04 it installs what is missing first. Ends with ctest's summary.
#
#   tests/run.sh               everything
#   tests/run.sh --fast        the Release tree alone, no sanitizers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. samples/packages.sh

sanitizers=yes
for argument in "$@"; do
    case $argument in
    --fast) sanitizers=no ;;
    *)
        echo "usage: tests/run.sh [--fast]" >&2
        exit 2
        ;;
    esac
done

groups="build test"
if [ "${CI:-}" = true ]; then groups="$groups ci"; fi
ensure_packages $groups # words
jobs=$(nproc)
werror=OFF
if [ "${CI:-}" = true ]; then werror=ON; fi
started=$SECONDS
say() { printf '== [%d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }

build() { # preset, cmake --build arguments ...
    local preset=$1
    shift
    say "Building: $preset"
    mkdir -p "build-$preset"
    # A sanitizer sees nothing of what runs on a card: its plugins are compiled once.
    local gpu=OFF
    if [ "$preset" = release ]; then gpu=AUTO; fi
    if ! cmake --preset "$preset" -DDSV4_BUILD_TESTS=ON -DDSV4_CPU_ONEDNN=ON -DDSV4_WERROR=$werror -DDSV4_CUDA=$gpu \
        -DDSV4_HIP=OFF >"build-$preset/configure.log" 2>&1; then
        cat "build-$preset/configure.log" >&2
        return 1
    fi
    if [ "$gpu" = AUTO ]; then grep -E '^-- CUDA plugin: ' "build-$preset/configure.log" || true; fi
    cmake --build "build-$preset" -j "$jobs" "$@"
}

say "g++ $(c++ -dumpfullversion 2>/dev/null || c++ -dumpversion), $(cmake --version | head -1), $jobs cores"
if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1 && [ ! -e /dev/kfd ]; then
    echo "!! SKIPPED: no GPU on this machine; GPU backends are not tested"
fi
if [ ! -d ../shared ]; then
    echo "!! SKIPPED: ../shared is not there; published reference vectors are not tested, generated ones and fixtures are"
fi

build release
# In a tree of its own: AMD's runtime hides allocations that fail from the test that lets each of them fail.
if command -v hipcc >/dev/null; then
    say "Building: the HIP plugin"
    cmake -S . -B build-hip -G Ninja -DCMAKE_BUILD_TYPE=Release -DDSV4_HIP=ON -DDSV4_HIP_OPTIMIZATION=-O1 \
        -DDSV4_CUDA=OFF -DDSV4_CPU_ONEDNN=OFF >/dev/null
    cmake --build build-hip -j "$jobs" --target dsv4-hip
else
    echo "!! SKIPPED: no hipcc; the HIP plugin is not compiled"
fi
failed=""
if [ $sanitizers = yes ]; then
    # Everything that reads what others wrote, or is called by others.
    build asan --target sanitize-tests
    say "Testing: address and undefined-behaviour sanitizers"
    ctest --test-dir build-asan -L '^(unit|fault|fuzz|sanitize)$' -j "$jobs" --output-on-failure || failed="$failed asan"
    build tsan --target threads-tests
    say "Testing: thread sanitizer"
    # Older libtsan cannot place its shadow where the kernel randomises mappings by 32 bits.
    straight=""
    if setarch "$(uname -m)" -R true 2>/dev/null; then straight="setarch $(uname -m) -R"; fi
    $straight ctest --test-dir build-tsan -L '^threads$' -j "$jobs" --output-on-failure || failed="$failed tsan"
fi
if [ -n "$failed" ]; then
    echo "!! FAILED under a sanitizer:$failed (see above)" >&2
    exit 1
fi
say "Testing: Release"
ctest --test-dir build-release -j "$jobs" --output-on-failure
