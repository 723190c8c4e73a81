// Errors at the plugin ABI: every function of the tables is `return boundary(err, [&] { ... });`. A backend sees only
// include/dsv4, so this is its own copy of the idea in core/capi.
#pragma once
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include "backends/gpu/failure.hpp"

namespace dsv4::gpu {

/// "cuda", "hip" or "gpu_emulated": the plugin's name, before every message.
extern const char *const backend_name;

inline dsv4_status report(dsv4_error *err, dsv4_status status, int32_t native, const char *what) noexcept {
    if (err && err->struct_size >= sizeof *err) {
        err->status = status;
        err->native_code = native;
        std::snprintf(err->message, sizeof err->message, "%s: %s", backend_name, what);
    }
    return status;
}

template <class Body> dsv4_status boundary(dsv4_error *err, Body &&body) noexcept {
    try {
        body();
        return DSV4_OK;
    } catch (const Failure &f) {
        return report(err, f.status, f.native_code, f.what());
    } catch (const std::bad_alloc &) {
        return report(err, DSV4_E_NO_MEMORY, 0, "out of host memory");
    } catch (const std::exception &e) {
        return report(err, DSV4_E_INTERNAL, 0, e.what());
    } catch (...) {
        return report(err, DSV4_E_INTERNAL, 0, "unknown exception");
    }
}

/// A caller's struct of whatever version as ours: what an older caller has not is zero, what a newer one has and we
/// do not know must be zero.
template <class T> T read_sized(const T *given, const char *name) {
    T known{};
    if (!given || given->struct_size < sizeof(uint32_t))
        throw Failure(DSV4_E_INVALID, std::string(name) + ": NULL or struct_size not set; use DSV4_INIT");
    const size_t size = given->struct_size, shared = size < sizeof(T) ? size : sizeof(T);
    std::memcpy(static_cast<void *>(&known), given, shared);
    const auto *bytes = reinterpret_cast<const unsigned char *>(given);
    for (size_t i = shared; i < size; ++i)
        if (bytes[i]) throw Failure(DSV4_E_UNSUPPORTED, std::string(name) + ": has fields newer than this plugin");
    known.struct_size = sizeof(T);
    return known;
}

template <class T> void write_sized(T *given, T ours, const char *name) {
    if (!given || given->struct_size < sizeof(uint32_t))
        throw Failure(DSV4_E_INVALID, std::string(name) + ": NULL or struct_size not set; use DSV4_INIT");
    const uint32_t size = given->struct_size;
    ours.struct_size = size;
    std::memcpy(static_cast<void *>(given), &ours, size < sizeof(T) ? size : sizeof(T));
}

} // namespace dsv4::gpu
