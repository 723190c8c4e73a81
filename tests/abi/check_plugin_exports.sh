#!/bin/sh
# check_plugin_exports.sh FOLDER: every plugin in it exports dsv4_backend_entry and nothing else.
set -eu
found=0
for library in "$1"/*.so; do
    [ -e "$library" ] || break
    found=1
    # ELF symbol types that others can bind to; version nodes (A) are not symbols.
    exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
    if [ "$exported" != dsv4_backend_entry ]; then
        echo "$library: expected to export dsv4_backend_entry alone, exports:"
        echo "${exported:-nothing}"
        exit 1
    fi
    echo "$library: ok"
done
[ $found = 1 ] || { echo "no plugins in $1"; exit 1; }
