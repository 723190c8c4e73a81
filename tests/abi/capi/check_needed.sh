#!/bin/sh
# check_needed.sh LIBRARY: what libdsv4 drags into a host's process is the C and C++ runtimes and the few libraries named
# here; our own static parts, Boost and the test tools are inside or absent.
set -eu
library=$1
status=0
for needed in $(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    case $needed in
    libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux*.so.* | libgcc_s.so.* | libstdc++.so.*) ;;
    libasan.so.* | libubsan.so.* | libtsan.so.*) ;; # a sanitized build
    libpcre2-8.so.*) ;;                             # the tokenizer's pattern
    *)
        echo "$library needs $needed: link it statically, or add it here with a reason"
        status=1
        ;;
    esac
done
if ! readelf -d "$library" | grep -q 'SONAME.*\[libdsv4\.so\.[0-9]*\]'; then
    echo "$library: expected the SONAME libdsv4.so.<major>"
    status=1
fi
exit $status
