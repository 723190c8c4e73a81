// Errors and sized structs at the C ABI: every extern "C" function is `return boundary(err, [&] { ... });`.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include "core/error.hpp"
#include "dsv4/dsv4.h"

namespace dsv4 {

/// Copies a caller's struct of whatever version into ours: an older caller's missing fields become zero; a newer
/// caller's extra fields must be zero, because an option we cannot honour must not look honoured.
template <class T> T read_sized(const T *given, const std::string &name) {
    T known{};
    const size_t size = given ? given->struct_size : sizeof(T);
    if (size < sizeof(uint32_t))
        throw Error(DSV4_E_INVALID, name + ": struct_size is " + std::to_string(size) + "; set it with DSV4_INIT");
    if (size > 65536) throw Error(DSV4_E_INVALID, name + ": struct_size " + std::to_string(size) + " is not plausible");
    if (given) std::memcpy(static_cast<void *>(&known), given, std::min(size, sizeof(T)));
    const auto *bytes = reinterpret_cast<const unsigned char *>(given);
    if (size > sizeof(T) && std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char b) { return b != 0; }))
        throw Error(DSV4_E_UNSUPPORTED, name + ": has fields newer than this library");
    known.struct_size = sizeof(T);
    return known;
}

/// Whether a caller's struct can be written to.
template <class T> void check_sized(const T *given, const std::string &name) {
    if (!given) throw Error(DSV4_E_INVALID, name + ": expected a struct to fill, found NULL");
    if (given->struct_size < sizeof(uint32_t))
        throw Error(DSV4_E_INVALID, name + ": struct_size is " + std::to_string(given->struct_size) + "; set it with DSV4_INIT");
}

/// Writes one of our structs into a caller's of whatever version: no byte beyond what the caller said it has.
template <class T> void write_sized(T *given, T ours, const std::string &name) {
    check_sized(given, name);
    const uint32_t size = given->struct_size;
    ours.struct_size = size;
    std::memcpy(static_cast<void *>(given), &ours, std::min<size_t>(size, sizeof(T)));
}

/// Copies what fits of a UTF-8 text: whole code points, and blanks for the control characters that a path or a backend's
/// message may hold.
inline void one_line(const char *text, char *out, size_t size) noexcept {
    size_t n = 0;
    for (; text[n] && n + 1 < size; ++n) {
        const auto c = static_cast<unsigned char>(text[n]);
        out[n] = c < 0x20 || c == 0x7F ? ' ' : text[n];
    }
    if (text[n])
        while (n && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) --n;  // never the first part of a code point
    out[n] = '\0';
}

inline dsv4_status report(dsv4_error *err, dsv4_status status, int32_t native, const char *what) noexcept {
    if (err && err->struct_size >= sizeof *err) {
        err->status = status;
        err->native_code = native;
        one_line(what, err->message, sizeof err->message);
    }
    return status;
}

template <class Body> dsv4_status boundary(dsv4_error *err, Body &&body) noexcept {
    try {
        return body();
    } catch (const Error &e) {
        return report(err, e.status, e.native_code, e.what());
    } catch (const std::bad_alloc &) {
        return report(err, DSV4_E_NO_MEMORY, 0, "out of memory");
    } catch (const std::exception &e) {
        return report(err, DSV4_E_INTERNAL, 0, e.what());
    } catch (...) {
        return report(err, DSV4_E_INTERNAL, 0, "unknown exception");
    }
}

}  // namespace dsv4
