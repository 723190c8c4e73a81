// What a refused call owes its caller.
#pragma once
#include <cstring>
#include <string>

#include "tests/catch.hpp"
#include "tests/support/api.hpp"

namespace dsv4::test {

/// The status, in both places; and one line that says something, within its array.
inline void check_refusal(dsv4_status status, dsv4_status wanted, const ErrorBox &error) {
    INFO("message: " << std::string(error.message, strnlen(error.message, sizeof error.message)));
    CHECK(status == wanted);
    CHECK(error.status == status);
    const size_t length = strnlen(error.message, sizeof error.message);
    CHECK(length >= 8);
    CHECK(length < sizeof error.message);
    for (size_t i = 0; i < length; ++i) CHECK(static_cast<unsigned char>(error.message[i]) >= 0x20);
}

/// call(err) twice: with an error to fill, and without.
template <class Call> void refused(dsv4_status wanted, const Call &call) {
    ErrorBox error;
    check_refusal(call(&error), wanted, error);
    CHECK(call(nullptr) == wanted);
}

} // namespace dsv4::test
