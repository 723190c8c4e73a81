// Any bytes as a safetensors file: an Error or a table whose every tensor lies inside the file.
#include <cstdlib>

#include "core/error.hpp"
#include "core/model/safetensors.hpp"
#include "tests/fuzz/model/fuzz_target.hpp"
#include "tests/support/checkpoint_writer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dsv4::TensorTable table;
    try {
        dsv4::read_safetensors_header({data, size}, "fuzz", 0, table);
    } catch (const dsv4::Error &e) {
        if (e.status != DSV4_E_MODEL || std::string(e.what()).empty()) std::abort();
        return 0;
    }
    for (const dsv4::TensorEntry &e : table.entries) {
        if (e.begin > size || e.bytes > size - e.begin) std::abort();
        if (table.shape(e).size() != e.rank) std::abort();
    }
    return 0;
}

std::vector<std::string> fuzz_seeds() {
    using dsv4::test::container;
    const std::vector<dsv4::test::FileTensor> tensors{
        {"layers.0.attn.wkv.weight", "F8_E4M3", {4, 4}, {}}, {"a", "F32", {2}, {}}, {"e", "I64", {0, 3}, {}}};
    return {container(header_of(tensors), std::string(24, 'x')), container("{}", ""),
            container("{\"a\\u0041\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", "z")};
}
