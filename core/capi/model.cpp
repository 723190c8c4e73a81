#include "core/capi/arguments.hpp"
#include "core/capi/boundary.hpp"
#include "core/engine/model.hpp"
#include "core/model/plan.hpp"

using namespace dsv4;

namespace {

/// Every device of the wanted backends, with the memory that it reports.
std::vector<PlanDevice> devices_for_plan(const Runtime &runtime, const std::string &backend) {
    std::vector<PlanDevice> devices;
    if (!backend.empty()) runtime.registry().select(backend);  // a name that is not there is an error
    for (const LoadedBackend &b : runtime.registry().backends()) {
        if ((!backend.empty() && b.name != backend) || !b.score) continue;
        for (uint32_t i = 0; i < b.devices; ++i) {
            dsv4_device_options options;
            DSV4_INIT(options);
            options.index = i;
            try {
                const Device device(*b.table, options);
                PlanDevice d;
                d.name = device.info().name;
                d.backend = b.name;
                d.memory_total = device.info().memory_total;
                d.memory_free = device.info().memory_free;
                d.is_host = device.info().capabilities & DSV4_CAP_MAPPED_WEIGHTS;
                devices.push_back(std::move(d));
            } catch (const Error &e) {  // one broken device is no reason to plan without the others
                runtime.log().line(DSV4_LOG_WARNING, "plan: " + b.name + ", device " + std::to_string(i) + ": " + e.what());
            }
        }
    }
    return devices;
}

}  // namespace

extern "C" {

dsv4_status dsv4_model_load(dsv4_runtime *runtime, dsv4_str path, const dsv4_model_options *options, dsv4_model **out,
                            dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(runtime, "runtime");
        const auto o = read_sized(options, "model options");
        text(o.backend, "backend");
        *out = new dsv4_model{std::make_shared<Model>(runtime->runtime, text(path, "path"), o)};
        return DSV4_OK;
    });
}

void dsv4_model_release(dsv4_model *model) { delete model; }

dsv4_status dsv4_model_get_info(const dsv4_model *model, dsv4_model_info *info, dsv4_error *err) {
    return boundary(err, [&] {
        require(model, "model");
        write_sized(info, model->model->info(), "model info");
        return DSV4_OK;
    });
}

dsv4_status dsv4_model_plan(const dsv4_runtime *runtime, dsv4_str path, const dsv4_plan_options *options,
                            dsv4_blob **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(runtime, "runtime");
        const auto o = read_sized(options, "plan options");
        PlanOptions plan;
        plan.context = o.context_tokens;
        plan.sessions = o.sessions ? o.sessions : 1;
        plan.host = host_memory();
        plan.devices = devices_for_plan(*runtime->runtime, text(o.backend, "backend"));
        *out = new dsv4_blob{plan_json(make_plan(map_weights(Checkpoint::open(text(path, "path"))), plan))};
        return DSV4_OK;
    });
}

}  // extern "C"
