// The one exception type inside the library. It never crosses the C ABI: capi/boundary.hpp turns it into a status.
#pragma once
#include <stdexcept>
#include <string>
#include "dsv4/dsv4.h"

namespace dsv4 {

/// Thrown where the reason is known, stated once ("layers.7.attn.wq_a.weight: expected [1024, 4096], file has
/// [512, 4096]"), and passed on untouched.
struct Error : std::runtime_error {
    Error(dsv4_status s, const std::string &what, int32_t native = 0)
        : std::runtime_error(what), status(s), native_code(native) {}
    dsv4_status status;
    int32_t native_code;
};

/// A field that has no meaning yet: an option we cannot honour must not look honoured.
inline void expect_unused(uint32_t reserved, const char *where) {
    if (reserved)
        throw Error(DSV4_E_UNSUPPORTED, std::string(where) + ": reserved: expected 0, found " + std::to_string(reserved) +
                                            "; set the struct with DSV4_INIT");
}

}  // namespace dsv4
