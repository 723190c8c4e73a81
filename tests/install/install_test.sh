#!/usr/bin/env bash
# install_test.sh CMAKE BUILD SOURCE WORK CC CXX: installs by components, moves the tree, builds the samples against it
# with find_package and with pkg-config, runs them, and looks for what must not be there.
set -euo pipefail
cmake=$1 build=$2 source=$3 work=$4/tree cc=$5 cxx=$6
rm -rf "$work"
mkdir -p "$work"
unset DSV4_PLUGIN_PATH LD_LIBRARY_PATH

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
step() { echo "-- $*"; }

step "components share nothing and make up the whole"
$cmake --install "$build" --prefix "$work/first" >/dev/null
for component in runtime dev plugin-reference model; do
    $cmake --install "$build" --prefix "$work/$component" --component $component >/dev/null
    (cd "$work/$component" && find . ! -type d | sort) >"$work/$component.files"
    [ -s "$work/$component.files" ] || fail "component $component installs nothing"
done
(cd "$work/first" && find . ! -type d | sort) >"$work/all.files"
sort "$work"/{runtime,dev,plugin-reference,model}.files >"$work/parts.files"
[ -z "$(uniq -d "$work/parts.files")" ] || fail "in two components: $(uniq -d "$work/parts.files")"
left=$(comm -13 "$work/parts.files" "$work/all.files" | grep -v '/dsv4/plugins/' || true)
[ -z "$left" ] || fail "in no component: $left"
if grep -E '/include/|\.pc$|cmake|libdsv4\.so$' "$work/runtime.files"; then fail "the above is for developers"; fi

step "the tree moves"
mv "$work/first" "$work/moved"
prefix=$work/moved
libdir=$(dirname "$(find "$prefix" -name 'libdsv4.so')")
if grep -rlF -e "$source" -e "$build" -e "$work/first" "$prefix" --include='*.cmake' --include='*.pc' --include='*.h*' \
    --include='*.json'; then
    fail "the above name folders of the build"
fi
if grep -rlE 'Boost|nlohmann|PCRE|pcre2|dnnl|dsv4_(core|flags|plugin|text|model)' "$libdir/cmake" "$libdir/pkgconfig"; then
    fail "the above expose private dependencies"
fi
headers=$(cd "$prefix/include" && find . -type f | sort | tr '\n' ' ')
[ "$headers" = "./dsv4/dsv4.h ./dsv4/dsv4.hpp ./dsv4/dsv4_backend.h ./dsv4/export.h " ] || fail "headers: $headers"

cat >"$work/model.json" <<'JSON'
{"model_type": "deepseek_v4", "vocab_size": 96, "hidden_size": 128, "num_hidden_layers": 3,
 "compress_ratios": [0, 4, 128], "num_hash_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1,
 "head_dim": 96, "qk_rope_head_dim": 32, "q_lora_rank": 64, "o_groups": 2, "o_lora_rank": 32, "sliding_window": 16,
 "index_n_heads": 4, "index_head_dim": 32, "index_topk": 8, "n_routed_experts": 8, "n_shared_experts": 1,
 "num_experts_per_tok": 2, "moe_intermediate_size": 64, "routed_scaling_factor": 1.5,
 "scoring_func": "sqrtsoftplus", "norm_topk_prob": true, "swiglu_limit": 10.0, "hc_mult": 4, "hc_eps": 1e-6,
 "hc_sinkhorn_iters": 20, "rms_norm_eps": 1e-6, "max_position_embeddings": 65536, "rope_theta": 10000,
 "compress_rope_theta": 160000, "num_nextn_predict_layers": 0, "bos_token_id": 0, "eos_token_id": 1,
 "expert_dtype": "fp4", "tie_word_embeddings": false,
 "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                  "original_max_position_embeddings": 4096},
 "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128],
                         "activation_scheme": "dynamic"}}
JSON
model=synthetic:$work/model.json
cd / # nothing may depend on where one stands

step "the dsv4 tool finds its library and the library its plugins"
"$prefix/bin/dsv4" backends --json >"$work/backends"
grep -qF "$libdir/dsv4/plugins/dsv4-reference.json" "$work/backends" || fail "plugins found: $(cat "$work/backends")"
tool=$("$prefix/bin/dsv4" generate --model "$model" --ids "5 17 3 29" --max-tokens 32)
[ "$(wc -w <<<"$tool")" -ge 1 ] || fail "dsv4 generate printed nothing"

runs() { # binaries of the samples
    local printed
    printed=$("$1/generate" "$model" 5 17 3 29)
    grep -Eq '[0-9]+ tokens from a prompt of 4' <<<"$printed" || fail "generate printed: $printed"
    [ "$(head -1 <<<"$printed" | xargs)" = "$tool" ] || fail "generate and dsv4 generate differ: $printed / $tool"
    printed=$("$1/npc" "$model" 180)
    grep -Eq '180 frames, [1-9][0-9]* tokens' <<<"$printed" || fail "npc printed: $printed"
    if "$1/generate" /nowhere 1 >"$work/out" 2>&1; then fail "a folder that is not there was loaded"; fi
    grep -q 'error -5: .*/nowhere' "$work/out" || fail "no clear error: $(cat "$work/out")"
}

step "find_package"
CC=$cc CXX=$cxx $cmake -S "$source/samples" -B "$work/by-cmake" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
grep -q "^dsv4_DIR:PATH=$libdir/cmake/dsv4" "$work/by-cmake/CMakeCache.txt" || fail "another dsv4 was found"
$cmake --build "$work/by-cmake" >/dev/null
runs "$work/by-cmake"
mkdir -p "$work/asks"
printf 'cmake_minimum_required(VERSION 3.22)\nproject(asks C)\nfind_package(dsv4 ${WANT} REQUIRED)\nif(NOT EXISTS ${DSV4_PLUGIN_DIR}/dsv4-reference.json)\n  message(FATAL_ERROR "DSV4_PLUGIN_DIR: ${DSV4_PLUGIN_DIR}")\nendif()\n' >"$work/asks/CMakeLists.txt"
for version in 0.1 0.2 1.0; do
    if CC=$cc $cmake -S "$work/asks" -B "$work/asks/$version" -DWANT=$version -DCMAKE_PREFIX_PATH="$prefix" >"$work/out" 2>&1; then
        [ $version = 0.1 ] || fail "0.1 was taken for $version"
    else
        [ $version != 0.1 ] || fail "find_package(dsv4 0.1): $(cat "$work/out")"
    fi
done

if command -v pkg-config >/dev/null; then
    step "pkg-config"
    export PKG_CONFIG_PATH=$libdir/pkgconfig
    mkdir -p "$work/by-pkg-config"
    flags=$(pkg-config --cflags --libs dsv4)
    rpath=-Wl,-rpath,$(pkg-config --variable=libdir dsv4)
    [ -f "$(pkg-config --variable=plugindir dsv4)/dsv4-reference.json" ] || fail "plugindir: $(pkg-config --variable=plugindir dsv4)"
    # shellcheck disable=SC2086
    $cc -std=c99 "$source/samples/generate.c" $flags "$rpath" -o "$work/by-pkg-config/generate"
    # shellcheck disable=SC2086
    $cxx -std=c++17 -pthread "$source/samples/npc.cpp" $flags "$rpath" -o "$work/by-pkg-config/npc"
    runs "$work/by-pkg-config"
else
    echo "!! SKIPPED: no pkg-config on this machine"
fi
rm -rf "$work"
echo "the install tree works from $prefix"
