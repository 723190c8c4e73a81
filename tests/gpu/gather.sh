#!/usr/bin/env bash
# For a machine with a card that has nvcc, g++, CMake and ninja but can install nothing: gathers there what the build
# takes from Debian's packages otherwise. Run it where they are installed, carry the folder over, and give it to run.sh
# --deps.
#
#   tests/gpu/gather.sh FOLDER      about 10 MB: headers, CMake files, pcre2 as a static library, pkg-config
set -euo pipefail
if [ $# != 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source samples/packages.sh
ensure_packages build test

keep() { # files, by absolute path on standard input
    while read -r file; do
        if [ -f "$file" ]; then install -D -m "$(stat -c %a "$file")" "$file" "$folder$file"; fi
    done
}
for package in nlohmann-json3-dev catch2 libcli11-dev libpcre2-dev; do
    dpkg -L "$package" | grep -E '^/usr/(include|share/(cmake|pkgconfig)|lib)/' |
        grep -vE '\.so$|libpcre2-(16|32|posix)' | keep
done
# Of Boost what our sources reach; all of it would be ten times as much.
grep -rl '#include <boost/' core | grep '\.cpp$' | while read -r source; do
    g++ -std=c++20 -DBOOST_DLL_USE_STD_FS -M -I. -Iinclude "$source"
done | tr ' \\' '\n\n' | grep '^/usr/include/boost/' | sort -u | keep
echo /usr/include/boost/version.hpp | keep
# pkg-config and its library, under the name that the program asks for.
for program in pkgconf pkg-config; do
    if path=$(command -v "$program"); then
        install -D "$(readlink -f "$path")" "$folder/usr/bin/pkg-config"
        ldd "$path" | awk '/pkgconf/ {print $1, $3}' | while read -r name file; do
            install -D "$(readlink -f "$file")" "$folder/usr/lib/$name"
        done
        break
    fi
done
du -sh "$folder"
