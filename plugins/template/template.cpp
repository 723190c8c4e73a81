// The smallest vendor backend: it starts as the reference and replaces one operator at a time. Today that is hc.post,
// in hc_post.cpp; everything else is still the reference's, so that the whole model runs from the first day and every
// step can be checked by `dsv4 conformance --backend template`.
#include "backends/reference/ops.hpp"
#include "plugins/template/operators.hpp"

namespace dsv4::vendor {
namespace {

dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *) {
    // A real backend counts its devices here, and where there is none sets score 0 and says in *err what is missing.
    // Above 1 it is preferred to the reference. Nothing here may take long: it is called whenever a runtime is made.
    *devices = 1;
    *score = 1;
    return DSV4_OK;
}

const void *ops(dsv4_device *device, uint32_t family) {
    // Made on first use, not when the library is loaded.
    static const dsv4_hc_ops hc = [] {
        dsv4_hc_ops table = reference::hc_ops;
        table.post = hc_post;
        return table;
    }();
    return family == DSV4_FAMILY_HC ? &hc : reference::ops(device, family);
}

void shutdown() {
    // Join threads, return pools. The library stays mapped, and dsv4_backend_entry may be called again.
}

const dsv4_backend backend = {
    sizeof(dsv4_backend),    DSV4_BACKEND_ABI,        "template", "0.1.0 hc.post", probe, reference::device_open,
    reference::device_close, reference::device_query, ops,        shutdown};

} // namespace
} // namespace dsv4::vendor

extern "C" DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t abi_min, uint32_t abi_max, const dsv4_host *,
                                                              const dsv4_backend **out, dsv4_error *err) {
    if (abi_min > DSV4_BACKEND_ABI || abi_max < DSV4_BACKEND_ABI)
        return dsv4::reference::report(err, DSV4_E_UNSUPPORTED, "template: built for another plugin ABI");
    *out = &dsv4::vendor::backend;
    return DSV4_OK;
}
