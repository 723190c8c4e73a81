// Why a call cannot go on; boundary.hpp turns it into a status.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include "dsv4/dsv4_backend.h"

namespace dsv4::gpu {

struct Failure : std::runtime_error {
    Failure(dsv4_status s, const std::string &what, int32_t native = 0)
        : std::runtime_error(what), status(s), native_code(native) {}
    dsv4_status status;
    int32_t native_code; // cudaError_t or hipError_t, 0 if none
};

} // namespace dsv4::gpu
