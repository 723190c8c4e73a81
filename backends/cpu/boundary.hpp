// Errors at the plugin ABI. A backend sees only include/dsv4, so this is its own copy of the idea in core/capi.
#pragma once
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include "dsv4/dsv4_backend.h"

namespace dsv4::cpu {

struct Error : std::runtime_error {
    Error(dsv4_status s, const std::string &what, int32_t native = 0)
        : std::runtime_error(what), status(s), native_code(native) {}
    dsv4_status status;
    int32_t native_code;
};

inline dsv4_status report(dsv4_error *err, dsv4_status status, int32_t native, const char *what) noexcept {
    if (err && err->struct_size >= sizeof *err) {
        err->status = status;
        err->native_code = native;
        std::snprintf(err->message, sizeof err->message, "%s", what);
    }
    return status;
}

template <class Body> dsv4_status boundary(dsv4_error *err, Body &&body) noexcept {
    try {
        body();
        return DSV4_OK;
    } catch (const Error &e) {
        return report(err, e.status, e.native_code, e.what());
    } catch (const std::bad_alloc &) {
        return report(err, DSV4_E_NO_MEMORY, 0, "cpu: out of memory");
    } catch (const std::exception &e) {
        return report(err, DSV4_E_INTERNAL, 0, e.what());
    } catch (...) {
        return report(err, DSV4_E_INTERNAL, 0, "cpu: unknown exception");
    }
}

/// A caller's struct of whatever version as ours: what an older caller has not is zero, what a newer one has and we
/// do not know must be zero.
template <class T> T read_sized(const T *given, const char *name) {
    T known{};
    if (!given || given->struct_size < sizeof(uint32_t))
        throw Error(DSV4_E_INVALID, std::string(name) + ": NULL or struct_size not set; use DSV4_INIT");
    const size_t size = given->struct_size, shared = size < sizeof(T) ? size : sizeof(T);
    std::memcpy(static_cast<void *>(&known), given, shared);
    const auto *bytes = reinterpret_cast<const unsigned char *>(given);
    for (size_t i = shared; i < size; ++i)
        if (bytes[i]) throw Error(DSV4_E_UNSUPPORTED, std::string(name) + ": has fields newer than this plugin");
    known.struct_size = sizeof(T);
    return known;
}

template <class T> void write_sized(T *given, T ours, const char *name) {
    if (!given || given->struct_size < sizeof(uint32_t))
        throw Error(DSV4_E_INVALID, std::string(name) + ": NULL or struct_size not set; use DSV4_INIT");
    const uint32_t size = given->struct_size;
    ours.struct_size = size;
    std::memcpy(static_cast<void *>(given), &ours, size < sizeof(T) ? size : sizeof(T));
}

} // namespace dsv4::cpu
