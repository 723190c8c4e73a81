// Checks that every entry point makes of its pointers.
#pragma once
#include <string>
#include "core/error.hpp"
#include "dsv4/dsv4.h"

namespace dsv4 {

inline void require(const void *pointer, const char *name) {
    if (!pointer) throw Error(DSV4_E_INVALID, std::string(name) + ": expected an object, found NULL");
}

/// *out is NULL whenever a call fails.
template <class T> void clear_out(T **out) {
    require(out, "out");
    *out = nullptr;
}

inline std::string text(dsv4_str s, const char *name) {
    if (!s.data && s.size) throw Error(DSV4_E_INVALID, std::string(name) + ": NULL with a size of " + std::to_string(s.size));
    std::string out = s.size ? std::string(s.data, s.size) : std::string();
    // Names of files and backends: what follows a NUL would be dropped without a word.
    if (const size_t nul = out.find('\0'); nul != std::string::npos)
        throw Error(DSV4_E_INVALID, std::string(name) + ": NUL byte at " + std::to_string(nul) + " of " + std::to_string(s.size));
    return out;
}

}  // namespace dsv4
