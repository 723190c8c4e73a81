// A loaded tiny model for each test case that asks for one.
#pragma once
#include "dsv4/dsv4.hpp"
#include "tests/support/tiny_models.hpp"
#include <vector>

struct Tiny {
    dsv4::test::TempDir folder;
    std::string path = dsv4::test::synthetic_model(folder);
    dsv4::Runtime runtime;
    dsv4::Model model = runtime.load(path, reference());

    static dsv4::ModelOptions reference() {
        dsv4::ModelOptions options;
        options.backend = dsv4::str("reference");
        options.cache_tokens = 1024;
        options.max_batch_tokens = 16;
        return options;
    }
    static dsv4::GenerateOptions tokens(std::uint32_t most) {
        dsv4::GenerateOptions options;
        options.flags = DSV4_GENERATE_IGNORE_EOS;
        options.max_tokens = most;
        return options;
    }
    static std::vector<std::int32_t> collect(dsv4::Stream stream) {
        std::vector<std::int32_t> ids;
        for (const dsv4::Event &event : stream)
            if (event.kind == DSV4_EVENT_TOKEN) ids.push_back(event.token);
        return ids;
    }
};

/// The status that `call` throws; 0 when it does not.
template <class Call> dsv4_status thrown(Call &&call) {
    try {
        call();
    } catch (const dsv4::Error &error) {
        return error.what()[0] ? error.status() : 0;
    }
    return 0;
}
