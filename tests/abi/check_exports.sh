#!/bin/sh
# check_exports.sh HEADER LIBRARY [EXPORT_MAP]: the functions marked DSV4_API in the header are what the library exports,
# no more and no fewer; and every pattern of the export map's global part stands for at least one of them, and each of
# them for a pattern.
set -eu
header=$1 library=$2 map=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Comments and preprocessor lines away, one declaration to a line; the name is what stands before the first bracket.
sed -e 's:/\*.*\*/::g' "$header" | sed -e '/\/\*/,/\*\//d' -e '/^[[:space:]]*#/d' | tr '\n' ' ' | tr ';{}' '\n\n\n' |
    sed -n 's/.*DSV4_API[^(]*[^A-Za-z0-9_(]\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*(.*/\1/p' | sort >"$work/declared"
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/exported"

[ -s "$work/declared" ] || { echo "$header: no function is marked DSV4_API"; exit 1; }
status=0
if ! diff "$work/declared" "$work/exported" >"$work/difference"; then
    echo "declared in $header (<) and exported by $library (>) differ:"
    grep '^[<>]' "$work/difference"
    status=1
fi
if [ -n "$map" ]; then
    tr '\n' ' ' <"$map" | sed -e 's:/\*[^*]*\*/::g' -e 's/.*global:\(.*\)local:.*/\1/' | tr -d ' \t' | tr ';' '\n' |
        sed '/^$/d' >"$work/patterns"
    : >"$work/matched"
    set -f # the patterns are for `case`, not for the shell's own globbing
    while read -r pattern; do
        before=$(wc -l <"$work/matched")
        while read -r name; do
            case $name in $pattern) echo "$name" >>"$work/matched" ;; esac
        done <"$work/exported"
        if [ "$(wc -l <"$work/matched")" = "$before" ]; then
            echo "$map: nothing exported matches $pattern"
            status=1
        fi
    done <"$work/patterns"
    sort -u "$work/matched" | comm -13 - "$work/exported" >"$work/stray"
    if [ -s "$work/stray" ]; then
        echo "exported, but not by $map:"
        cat "$work/stray"
        status=1
    fi
fi
[ $status = 0 ] && echo "$(wc -l <"$work/exported") functions, as declared"
exit $status
