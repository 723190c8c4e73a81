#include "core/capi/arguments.hpp"
#include "core/capi/boundary.hpp"
#include "core/runtime.hpp"
#include "core/engine/cancel.hpp"

using namespace dsv4;

extern "C" {

dsv4_status dsv4_runtime_create(const dsv4_runtime_options *options, dsv4_runtime **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        const auto o = read_sized(options, "runtime options");
        text(o.plugin_dir, "plugin_dir");
        *out = new dsv4_runtime{std::make_shared<Runtime>(o)};
        return DSV4_OK;
    });
}

void dsv4_runtime_release(dsv4_runtime *runtime) {
    if (!runtime) return;
    runtime->runtime->log().close();  // models may outlive the handle; the host's log does not hear from them again
    delete runtime;
}

dsv4_status dsv4_runtime_backends(const dsv4_runtime *runtime, dsv4_blob **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(runtime, "runtime");
        *out = new dsv4_blob{runtime->runtime->backends_json()};
        return DSV4_OK;
    });
}

dsv4_str dsv4_blob_data(const dsv4_blob *blob) {
    return blob ? dsv4_str{blob->bytes.data(), blob->bytes.size()} : dsv4_str{nullptr, 0};
}
void dsv4_blob_release(dsv4_blob *blob) { delete blob; }

dsv4_cancel *dsv4_cancel_create(void) { return new (std::nothrow) dsv4_cancel; }
void dsv4_cancel_now(dsv4_cancel *cancel) {
    if (cancel) cancel->set.store(true, std::memory_order_release);
}
int32_t dsv4_cancel_is_set(const dsv4_cancel *cancel) {
    return cancel && cancel->set.load(std::memory_order_acquire) ? 1 : 0;
}
void dsv4_cancel_release(dsv4_cancel *cancel) { dsv4::release(cancel); }

}  // extern "C"
