#!/usr/bin/env bash
# The conformance suite on one instruction set under valgrind: memory that was never written, reads past an end.
# Valgrind knows neither AVX-512 nor AMX. The smallest shape: minutes, not seconds, so CI does not run it.
#
#   valgrind.sh CONFORMANCE_TEST portable|avx2 [SHAPE]
set -euo pipefail
exec valgrind --quiet --error-exitcode=9 --exit-on-first-error=no --undef-value-errors=yes \
    "$1" --shape="${3:-odd-c}" --variant="$2" cpu
