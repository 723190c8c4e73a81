#!/usr/bin/env bash
# Builds, checks and times the GPU backends on a machine with an NVIDIA card, in under nine minutes; a short table comes
# last. Nothing here is part of `ctest`: continuous integration has no card.
#
#   tests/gpu/run.sh [--vectors FOLDER] [--deps FOLDER] [--out FOLDER] [--quick]
#     --vectors  a folder with checkpoints and their expected numbers, beside the fixtures
#     --deps     what gather.sh put together elsewhere, where nothing can be installed
#     --out      where logs go (gpu-run in the build folder)
#     --quick    conformance alone
# DSV4_CUDA_ARCHITECTURES overrides the card's own, BUILD the build folder.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=${BUILD:-build-gpu} vectors="" deps="" out="" quick=0
while [ $# -gt 0 ]; do
    case $1 in
    --vectors) vectors=$2 && shift 2 ;;
    --deps) deps=$(realpath "$2") && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --quick) quick=1 && shift ;;
    *) echo "usage: $0 [--vectors FOLDER] [--deps FOLDER] [--out FOLDER] [--quick]" >&2 && exit 2 ;;
    esac
done
out=${out:-$build/gpu-run}
mkdir -p "$out"
started=$SECONDS
budget=${DSV4_GPU_BUDGET:-530}
table=()
bad=0

left() { echo $((budget - (SECONDS - started))); }
note() { # name, status, text
    table+=("$(printf '%-34s %-7s %s' "$1" "$2" "$3")")
    case $2 in FAIL | TIMEOUT) bad=1 ;; esac
    printf '== %s: %s %s\n' "$1" "$2" "$3"
}
# step NAME SECONDS COMMAND...: runs it within its own time and what is left of all; its last line goes into the table.
step() {
    local name=$1 most=$2 log status from=$SECONDS
    shift 2
    log="$out/${name//[^a-zA-Z0-9_.-]/_}.log"
    if [ "$(left)" -lt 5 ]; then
        note "$name" SKIPPED "no time left"
        return 1
    fi
    [ "$most" -lt "$(left)" ] || most=$(left)
    timeout "$most" "$@" >"$log" 2>&1
    status=$?
    settle "$name" "$status" $((SECONDS - from)) "$log"
    return $status
}
settle() { # name, status, seconds, log
    case $2 in
    0) note "$1" ok "$3 s; $(grep -v '^ *$' "$4" | tail -n 1 | cut -c1-90)" ;;
    124) note "$1" TIMEOUT "after $3 s, see $4" ;;
    *)
        note "$1" FAIL "status $2 after $3 s, see $4"
        grep -E '^FAIL|error|Error' "$4" | head -n 8 || tail -n 8 "$4"
        ;;
    esac
}
# beside NAME SECONDS COMMAND...: the same, with others at its side; gather waits for them all. Not for what is timed.
waiting=()
beside() {
    local name=$1 most=$2 log
    shift 2
    log="$out/${name//[^a-zA-Z0-9_.-]/_}.log"
    [ "$most" -lt "$(left)" ] || most=$(left)
    (
        from=$SECONDS
        timeout "$most" "$@" >"$log" 2>&1
        echo "$? $((SECONDS - from))" >"$log.status"
    ) &
    waiting+=("$name")
}
gather() {
    local name log status seconds
    wait
    for name in "${waiting[@]}"; do
        log="$out/${name//[^a-zA-Z0-9_.-]/_}.log"
        read -r status seconds <"$log.status"
        settle "$name" "$status" "$seconds" "$log"
    done
    waiting=()
}

command -v nvidia-smi >/dev/null &&
    nvidia-smi --query-gpu=name,memory.total,memory.free,driver_version --format=csv,noheader
export PATH="$PATH:/usr/local/cuda/bin"
if ! command -v nvcc >/dev/null; then
    echo "nvcc was not found; the CUDA toolkit is needed" >&2
    exit 1
fi
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
arch=${DSV4_CUDA_ARCHITECTURES:-$([ "${capability:-90}" = 90 ] && echo 90a || echo "${capability:-90}")}

if [ -n "$deps" ]; then
    export CMAKE_PREFIX_PATH="$deps/usr" PATH="$PATH:$deps/usr/bin" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}:$deps/usr/lib"
    PKG_CONFIG_LIBDIR=$(dirname "$(find "$deps" -name libpcre2-8.pc)")
    export PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR="$deps"
else
    # shellcheck source=/dev/null
    source samples/packages.sh
    ensure_packages build test || exit 1
fi
jobs=$(nproc)
step configure 60 cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDSV4_BUILD_TESTS=ON -DDSV4_CUDA=ON \
    -DDSV4_HIP=NVIDIA "-DDSV4_CUDA_ARCHITECTURES=$arch" || exit 1
step build 300 cmake --build "$build" -j "$jobs" --target dsv4-cuda dsv4-hip dsv4-reference dsv4-cpu dsv4_tool \
    conformance_test gpu_bench gpu_unit_cuda gpu_unit_hip test_conformance_gpu_step_graph test_conformance_gpu_put_off \
    test_unit_device_sampling test_golden_exact test_golden_official test_golden_invariance \
    -- -k 0 # a step whose program is missing says so itself
bin="$build/bin"

step "backends" 20 "$bin/dsv4" backends
for plugin in cuda hip; do
    beside "unit tests, $plugin" 100 "$bin/gpu_unit_$plugin"
    beside "conformance, $plugin" 180 "$bin/conformance_test" "$plugin"
done
beside "step graphs, cuda" 120 env DSV4_TEST_BACKEND=cuda "$bin/test_conformance_gpu_step_graph"
beside "put off, cuda" 60 env DSV4_TEST_BACKEND=cuda "$bin/test_conformance_gpu_put_off"
beside "sampling, cuda" 60 env DSV4_TEST_BACKEND=cuda "$bin/test_unit_device_sampling"
# Whole models through the public API: the oracle's numbers, and that chunks, neighbours and cuts change no bit.
[ -z "$vectors" ] || export DSV4_TEST_VECTORS="$vectors"
beside "exact vectors, cuda" 100 env DSV4_TEST_BACKEND=cuda "$bin/test_golden_exact"
beside "official vectors, cuda" 100 env DSV4_TEST_BACKEND=cuda "$bin/test_golden_official"
beside "agreement, default model" 170 python3 tests/gpu/agreement.py --dsv4 "$bin/dsv4" --first cpu --second cuda --jobs 4
beside "invariance, cuda" 100 env DSV4_TEST_BACKEND=cuda "$bin/test_golden_invariance"
if [ "$quick" = 0 ]; then
    for shape in flash pro; do
        beside "conformance $shape widths, cuda" 180 "$bin/conformance_test" --full "--shape=$shape" cuda
    done
fi
gather
# Operators and whole layers under both tools; the rest of the suite takes them many minutes.
sanitizer=$(command -v compute-sanitizer || true)
if [ -n "$sanitizer" ]; then
    shapes="tiny small odd-a odd-b odd-c"
    [ "$quick" = 0 ] || shapes=odd-c
    for shape in $shapes; do
        for check in operator layer; do
            for tool in memcheck racecheck; do
                beside "$tool, $shape, ${check}s" 200 "$sanitizer" --tool "$tool" --error-exitcode 9 \
                    "$bin/conformance_test" "--shape=$shape" "--check=$check" cuda
            done
        done
    done
    gather
else
    note "compute-sanitizer" SKIPPED "not installed"
fi
if [ "$quick" = 0 ]; then
    step "times, flash" 130 "$bin/gpu_bench" --backend cuda --shape flash --experts 256
    # As many layers as fit: 3.6 GB each, 2.1 GB the ends, the rest for caches and activations.
    memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1)
    layers=$(((memory - 12000) * 105 / 100 / 3600))
    step "generate, synthetic flash" 110 "$bin/dsv4" bench --synthetic "flash:layers=$((layers < 43 ? layers : 43))" \
        --backend cuda --prompt 2048 --decode 64 --chunk 2048
    step "batch 8" 60 "$bin/dsv4" bench --synthetic flash:layers=12 --backend cuda --prompt 512 --decode 64 --batch 8
fi

echo
grep -hE '^(decode|prefill) +[0-9]+ +[0-9.]+ ms' "$out"/times*.log 2>/dev/null
printf '%s\n' "${table[@]}"
echo "$((SECONDS - started)) s in all; logs in $out"
exit $bad
