// The plugin's one export.
#include "backends/reference/ops.hpp"

namespace {

dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *) {
    *devices = 1;
    *score = 1;  // runs everywhere; anything else that runs is faster
    return DSV4_OK;
}

void shutdown() {}

const dsv4_backend backend = {sizeof(dsv4_backend), DSV4_BACKEND_ABI, "reference", "0.1.0 scalar C++", probe,
                              dsv4::reference::device_open, dsv4::reference::device_close,
                              dsv4::reference::device_query, dsv4::reference::ops, shutdown};

}  // namespace

extern "C" DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t abi_min, uint32_t abi_max, const dsv4_host *,
                                                              const dsv4_backend **out, dsv4_error *err) {
    if (abi_min > DSV4_BACKEND_ABI || abi_max < DSV4_BACKEND_ABI)
        return dsv4::reference::report(err, DSV4_E_UNSUPPORTED, "built for another plugin ABI");
    *out = &backend;
    return DSV4_OK;
}
