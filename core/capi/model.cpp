#include "core/capi/arguments.hpp"
#include "core/capi/boundary.hpp"
#include "core/engine/model.hpp"
#include "core/engine/plan_devices.hpp"

using namespace dsv4;

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
        const ModelWeights weights = map_weights(Checkpoint::open(text(path, "path")));
        plan.devices = devices_for_plan(*runtime->runtime, text(o.backend, "backend"), weights, plan.sessions);
        *out = new dsv4_blob{plan_json(make_plan(weights, plan))};
        return DSV4_OK;
    });
}

}  // extern "C"
