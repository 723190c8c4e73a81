// Any bytes as config.json: an Error or a config within bounds, never another exception.
#include <cstdlib>

#include "core/error.hpp"
#include "core/model/config.hpp"
#include "core/model/rope.hpp"
#include "tests/fuzz/model/fuzz_target.hpp"
#include "tests/support/checkpoint_writer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try {
        const dsv4::Config c = dsv4::parse_config({reinterpret_cast<const char *>(data), size}, "config.json");
        const bool sane = c.shape.heads % c.shape.o_groups == 0 && c.shape.rope_dims < c.shape.head_dim &&
                          c.compress_ratios.size() >= static_cast<size_t>(c.shape.layers) && c.shape.experts > 0;
        if (!sane || dsv4::rope_frequencies(c, 4).size() != static_cast<size_t>(c.shape.rope_dims / 2)) std::abort();
    } catch (const dsv4::Error &e) {
        if (e.status != DSV4_E_MODEL && e.status != DSV4_E_UNSUPPORTED) std::abort();
    }
    return 0;
}

std::vector<std::string> fuzz_seeds() {
    auto bf16 = dsv4::test::tiny_config("bf16");
    bf16["eos_token_id"] = {1, 2};
    bf16["dspark_block_size"] = 5;
    return {dsv4::test::tiny_config().dump(), bf16.dump(1)};
}
