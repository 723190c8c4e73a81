#include "core/model/step_graph.hpp"
#include <algorithm>

namespace dsv4 {
namespace {

constexpr int32_t most_tokens = 64;     // beyond it a launch costs little of a step
constexpr int32_t least_positions = 4096;
constexpr size_t most_entries = 48;     // each holds a launch's description on the device

int32_t power_of_two(int32_t least, int32_t n) {
    int64_t p = least;
    while (p < n) p *= 2;
    return int32_t(std::min<int64_t>(p, INT32_MAX));
}

bool same(const dsv4_graph_limits &a, const dsv4_graph_limits &b) {
    return a.tokens == b.tokens && a.sequences == b.sequences && a.outputs == b.outputs && a.positions == b.positions;
}

}  // namespace

bool StepGraphs::bucket(const dsv4_step &step, dsv4_graph_limits &limits) const {
    if (step.tokens < 1 || step.tokens > most_tokens) return false;
    const int32_t last = *std::max_element(step.position, step.position + step.tokens);
    DSV4_INIT(limits);
    limits.tokens = std::min(power_of_two(1, step.tokens), tokens_);
    limits.sequences = std::min(limits.tokens, sequences_);
    limits.outputs = step.outputs ? std::min(limits.tokens, outputs_) : 0;
    limits.positions = power_of_two(least_positions, last + 1);
    return true;
}

void StepGraphs::run(dsv4_batch *batch, const dsv4_step &step, int32_t kind, const std::function<void()> &operators) {
    dsv4_graph_limits limits;
    if (!device_.graph || !enabled_ || !bucket(step, limits)) return operators();
    auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Recorded &r) {
        return r.batch == batch && r.kind == kind && same(r.limits, limits);
    });
    if (entry == entries_.end()) {
        if (entries_.size() == most_entries) entries_.pop_back();
        entries_.push_front({batch, kind, limits, {nullptr, device_.graph->release}});
        return operators();
    }
    entries_.splice(entries_.begin(), entries_, entry);
    if (!entry->graph && !record(*entry, operators)) return operators();
    call(device_.graph->launch, device_.queue(), entry->graph.get());
    ++launches_;
}

/// false: this backend cannot record these operators after all. If something else is wrong, running them will say so.
bool StepGraphs::record(Recorded &entry, const std::function<void()> &operators) {
    bool begun = false;
    try {
        const dsv4_graph_limits limits = entry.limits;
        call(device_.graph->begin, device_.queue(), entry.batch, &limits);
        begun = true;
        operators();
        dsv4_graph *graph = nullptr;
        begun = false;
        call(device_.graph->end, device_.queue(), &graph);
        entry.graph.reset(graph);
        ++recorded_;
        return true;
    } catch (const Error &) {
        if (begun) device_.graph->end(device_.queue(), nullptr, nullptr);
        enabled_ = false;
        return false;
    }
}

}  // namespace dsv4
