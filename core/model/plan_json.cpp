#include "core/json_writer.hpp"
#include "core/model/json_reader.hpp"
#include "core/model/plan.hpp"

namespace dsv4 {

namespace {

std::string utf8(const std::string &text) { return printable(text, 4096); }

void write_model(JsonWriter &json, const Plan &plan) {
    const dsv4_shape &s = plan.shape;
    json.begin_object()
        .member("layers", s.layers)
        .member("window_layers", plan.window_layers)
        .member("csa_layers", plan.csa_layers)
        .member("hca_layers", plan.hca_layers)
        .member("mtp_blocks", plan.mtp_blocks)
        .member("hidden", s.hidden)
        .member("vocab", s.vocab)
        .member("heads", s.heads)
        .member("head_dim", s.head_dim)
        .member("experts", s.experts)
        .member("active_experts", s.active_experts)
        .member("expert_inter", s.expert_inter)
        .member("window", s.window)
        .end_object();
}

void write_checkpoint(JsonWriter &json, const Plan &plan) {
    json.begin_object()
        .member("directory", utf8(plan.directory))
        .member("files", plan.files)
        .member("tensors", plan.total_tensors)
        .member("bytes", plan.total_bytes)
        .member("used_tensors", plan.used_tensors)
        .member("used_bytes", plan.used_bytes)
        .member("scale_bytes", plan.scale_bytes)
        .member("unused_tensors", plan.unused_tensors)
        .member("unused_bytes", plan.unused_bytes)
        .end_object();
}

void write_cache(JsonWriter &json, const Plan &plan) {
    const PlanCache &c = plan.cache;
    json.begin_object()
        .member("context", c.context)
        .member("sessions", plan.sessions)
        .member("row_bytes", c.row_bytes)
        .member("index_row_bytes", c.index_row_bytes)
        .member("bytes_per_token", c.bytes_per_token)
        .member("window_bytes", c.window_bytes)
        .member("state_bytes", c.state_bytes)
        .member("entry_bytes", c.entry_bytes)
        .member("session_bytes", c.session_bytes())
        .member("bytes", plan.cache_bytes)
        .member("read_per_token", c.read_per_token)
        .end_object();
}

void write_placement(JsonWriter &json, const Placement &p) {
    json.begin_object()
        .member("device", utf8(p.device.name))
        .member("backend", utf8(p.device.backend))
        .member("memory_total", p.device.memory_total)
        .member("memory_free", p.device.memory_free)
        .member("fit", fit_name(p.fit))
        .member("fits", p.fit != Fit::kNo)
        .member("needed_bytes", p.needed)
        .member("missing_bytes", p.missing)
        .member("least_bytes", p.least)
        .member("cache_bytes", p.cache)
        .member("context_that_fits", p.context_that_fits)
        .member("context_resident", p.context_resident);
    if (!p.device.is_host)
        json.member("experts_total", p.experts_total)
            .member("experts_on_device", p.experts_on_device)
            .member("experts_outside_bytes", p.experts_outside_bytes)
            .member("experts_outside_in", p.experts_outside_bytes == 0 ? "nowhere"
                                          : p.outside_in_host_memory   ? "host memory"
                                                                       : "disk");
    json.member("words", utf8(p.words)).end_object();
}

} // namespace

std::string plan_json(const Plan &plan) {
    JsonWriter json(2);
    json.begin_object();
    write_model(json.key("model"), plan);
    write_checkpoint(json.key("checkpoint"), plan);
    json.key("groups").begin_array();
    for (const PlanGroup &g : plan.groups)
        json.begin_object()
            .member("name", g.name)
            .member("tensors", g.tensors)
            .member("bytes", g.bytes)
            .member("scale_bytes", g.scale_bytes)
            .member("read_per_token", g.read_per_token)
            .end_object();
    json.end_array().key("unused").begin_array();
    for (const UnusedGroup &u : plan.unused)
        json.begin_object().member("name", utf8(u.name)).member("tensors", u.tensors).member("bytes", u.bytes).end_object();
    json.end_array().key("degradations").begin_array();
    for (const std::string &d : plan.degradations) json.value(utf8(d));
    json.end_array();
    write_cache(json.key("cache"), plan);
    json.member("read_per_token", plan.read_per_token);
    json.key("host")
        .begin_object()
        .member("memory_total", plan.host.total)
        .member("memory_available", plan.host.available)
        .end_object();
    json.key("placements").begin_array();
    for (const Placement &p : plan.placements) write_placement(json, p);
    json.end_array().end_object();
    return json.take();
}

} // namespace dsv4
