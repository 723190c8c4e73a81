#!/usr/bin/env bash
# Compiles the CPU backend's portable path for another processor; nothing is linked or run. Where there is no assembly
# of ours there is nothing for the assembler to find: the compiler stops after the source and its templates.
#
#   cross_compile.sh COMPILER SOURCE_DIR BUILD_DIR
set -euo pipefail
compiler=$1 source=$2 build=$3
objects=$(mktemp -d "$build/cross_compile.XXXXXX")
trap 'rm -rf "$objects"' EXIT
count=0
for file in "$source"/backends/cpu/*.cpp; do
    case $file in */kernels_avx* | */kernels_amx*) continue ;; esac # as backends/cpu/CMakeLists.txt does off x86-64
    stop=-fsyntax-only
    if grep -q '\basm\b' "$file"; then stop=-c; fi
    "$compiler" $stop -std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -I"$source" -I"$source/include" \
        -DDSV4_CPU_BUILD='"portable"' "$file" -o "$objects/$count.o"
    count=$((count + 1))
done
[ $count -gt 0 ] || { echo "no sources in $source/backends/cpu" >&2; exit 1; }
echo "$count files compiled by $compiler"
