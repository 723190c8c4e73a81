#!/usr/bin/env bash
# The conformance suite on one instruction set under valgrind: memory that was never written, reads past an end.
# Valgrind knows neither AVX-512 nor AMX. Minutes, not seconds, so CI does not run it. `small` has the published formats;
# odd-a (float32 scales), odd-b and odd-c (no quantization) take less.
#
#   valgrind.sh CONFORMANCE_TEST portable|avx2 [SHAPE]
set -euo pipefail
exec valgrind --quiet --error-exitcode=9 \
    "$1" --shape="${3:-small}" --variant="$2" cpu
