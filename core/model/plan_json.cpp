#include <nlohmann/json.hpp>

#include "core/model/json_reader.hpp"
#include "core/model/plan.hpp"

namespace dsv4 {

namespace {

using Json = nlohmann::ordered_json;

std::string utf8(const std::string &text) { return printable(text, 4096); }

Json model_json(const Plan &plan) {
    const dsv4_shape &s = plan.shape;
    return {{"layers", s.layers},
            {"window_layers", plan.window_layers},
            {"csa_layers", plan.csa_layers},
            {"hca_layers", plan.hca_layers},
            {"mtp_blocks", plan.mtp_blocks},
            {"hidden", s.hidden},
            {"vocab", s.vocab},
            {"heads", s.heads},
            {"head_dim", s.head_dim},
            {"experts", s.experts},
            {"active_experts", s.active_experts},
            {"expert_inter", s.expert_inter},
            {"window", s.window}};
}

Json placement_json(const Placement &p) {
    Json out{{"device", utf8(p.device.name)},
             {"backend", utf8(p.device.backend)},
             {"memory_total", p.device.memory_total},
             {"memory_free", p.device.memory_free},
             {"fit", fit_name(p.fit)},
             {"fits", p.fit != Fit::kNo},
             {"needed_bytes", p.needed},
             {"missing_bytes", p.missing},
             {"least_bytes", p.least},
             {"context_that_fits", p.context_that_fits}};
    if (!p.device.is_host) {
        out["experts_total"] = p.experts_total;
        out["experts_on_device"] = p.experts_on_device;
        out["experts_outside_bytes"] = p.experts_outside_bytes;
        out["experts_outside_in"] = p.experts_outside_bytes == 0 ? "nowhere"
                                    : p.outside_in_host_memory   ? "host memory"
                                                                 : "disk";
    }
    out["words"] = utf8(p.words);
    return out;
}

} // namespace

std::string plan_json(const Plan &plan) {
    Json groups = Json::array(), unused = Json::array(), degradations = Json::array(), placements = Json::array();
    for (const PlanGroup &g : plan.groups)
        groups.push_back({{"name", g.name},
                          {"tensors", g.tensors},
                          {"bytes", g.bytes},
                          {"scale_bytes", g.scale_bytes},
                          {"read_per_token", g.read_per_token}});
    for (const UnusedGroup &u : plan.unused)
        unused.push_back({{"name", utf8(u.name)}, {"tensors", u.tensors}, {"bytes", u.bytes}});
    for (const std::string &d : plan.degradations) degradations.push_back(utf8(d));
    for (const Placement &p : plan.placements) placements.push_back(placement_json(p));
    const PlanCache &c = plan.cache;
    const Json out{{"model", model_json(plan)},
                   {"checkpoint",
                    {{"directory", utf8(plan.directory)},
                     {"files", plan.files},
                     {"tensors", plan.total_tensors},
                     {"bytes", plan.total_bytes},
                     {"used_tensors", plan.used_tensors},
                     {"used_bytes", plan.used_bytes},
                     {"scale_bytes", plan.scale_bytes},
                     {"unused_tensors", plan.unused_tensors},
                     {"unused_bytes", plan.unused_bytes}}},
                   {"groups", groups},
                   {"unused", unused},
                   {"degradations", degradations},
                   {"cache",
                    {{"context", c.context},
                     {"sessions", plan.sessions},
                     {"row_bytes", c.row_bytes},
                     {"index_row_bytes", c.index_row_bytes},
                     {"bytes_per_token", c.bytes_per_token},
                     {"window_bytes", c.window_bytes},
                     {"state_bytes", c.state_bytes},
                     {"entry_bytes", c.entry_bytes},
                     {"session_bytes", c.session_bytes()},
                     {"bytes", plan.cache_bytes},
                     {"read_per_token", c.read_per_token}}},
                   {"read_per_token", plan.read_per_token},
                   {"host", {{"memory_total", plan.host.total}, {"memory_available", plan.host.available}}},
                   {"placements", placements}};
    return out.dump(2);
}

} // namespace dsv4
