// Families graph and timer. While a graph is recorded the batch answers with the bucket's sizes; kernels take the
// step's own from device memory.
#include "backends/gpu/ops.hpp"

struct dsv4_graph {
    dsv4_batch *batch;
    dsv4_graph_limits limits;
    int device;
    dsv4::gpu::Graph graph;
};

namespace dsv4::gpu {

namespace {

bool fits(const dsv4_batch &b, const dsv4_graph_limits &l) {
    return b.tokens <= l.tokens && b.sequences <= l.sequences && b.outputs <= l.outputs && b.positions <= l.positions;
}

std::string sizes(int32_t tokens, int32_t sequences, int32_t outputs, int32_t positions) {
    return std::to_string(tokens) + " tokens, " + std::to_string(sequences) + " sequences, " + std::to_string(outputs) +
           " outputs, " + std::to_string(positions) + " positions";
}

void must_fit(const dsv4_batch &b, const dsv4_graph_limits &l, const char *call) {
    if (!fits(b, l))
        throw Failure(DSV4_E_INVALID, std::string(call) + ": a step of " +
                                          sizes(b.tokens, b.sequences, b.outputs, b.positions) + " in a graph for " +
                                          sizes(l.tokens, l.sequences, l.outputs, l.positions));
}

dsv4_status begin(dsv4_queue *queue, dsv4_batch *batch, const dsv4_graph_limits *given, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_graph_limits l = read_sized(given, "dsv4_graph_limits");
        if (queue->recording) throw Failure(DSV4_E_INVALID, "graph begin: the queue records a graph already");
        if (l.tokens > batch->max_tokens || l.sequences > batch->max_sequences || l.outputs > l.tokens)
            throw Failure(DSV4_E_INVALID, "graph begin: limits of " +
                                              sizes(l.tokens, l.sequences, l.outputs, l.positions) +
                                              " for a batch of " + std::to_string(batch->max_tokens) + " tokens, " +
                                              std::to_string(batch->max_sequences) + " sequences");
        must_fit(*batch, l, "graph begin");
        capture_begin(queue->stream());
        queue->recording = batch;
        queue->limits = l;
        batch->grid_tokens = l.tokens;
        batch->grid_sequences = l.sequences;
        batch->grid_outputs = l.outputs;
        batch->grid_positions = l.positions;
    });
}

dsv4_status end(dsv4_queue *queue, dsv4_graph **out, dsv4_error *err) {
    if (out) *out = nullptr;
    return on_device(err, *queue, [&] {
        dsv4_batch *batch = std::exchange(queue->recording, nullptr);
        if (!batch) throw Failure(DSV4_E_INVALID, "graph end: the queue records none");
        batch->grid_tokens = batch->tokens;
        batch->grid_sequences = batch->sequences;
        batch->grid_outputs = batch->outputs;
        batch->grid_positions = batch->positions;
        if (!out) return queue->abandon_recording();
        auto graph = std::make_unique<dsv4_graph>();
        graph->batch = batch;
        graph->limits = queue->limits;
        graph->device = queue->device.index;
        try {
            graph->graph = capture_end(queue->stream());
        } catch (const Failure &) { // else the stream records for ever
            queue->abandon_recording();
            throw;
        }
        *out = graph.release();
    });
}

dsv4_status launch_graph(dsv4_queue *queue, dsv4_graph *graph, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        must_fit(*graph->batch, graph->limits, "graph launch");
        graph_launch(graph->graph, queue->stream());
    });
}

void release(dsv4_graph *graph) {
    if (!graph) return;
    try {
        const Current current(graph->device);
        graph_release(graph->graph);
    } catch (const Failure &) { // the device is lost
    }
    delete graph;
}

constexpr uint32_t most_stamps = 64;

Event &stamp_of(dsv4_queue &queue, uint32_t number) {
    if (number >= most_stamps)
        throw Failure(DSV4_E_INVALID, "stamp " + std::to_string(number) + " of " + std::to_string(most_stamps));
    while (queue.stamps.size() <= number) queue.stamps.push_back(event_create());
    return queue.stamps[number];
}

dsv4_status stamp(dsv4_queue *queue, uint32_t number, dsv4_error *err) {
    return on_device(err, *queue, [&] { event_record(stamp_of(*queue, number), queue->stream()); });
}

dsv4_status elapsed(dsv4_queue *queue, uint32_t from, uint32_t to, double *seconds, dsv4_error *err) {
    return on_device(err, *queue, [&] { *seconds = event_seconds(stamp_of(*queue, from), stamp_of(*queue, to)); });
}

} // namespace

const dsv4_graph_ops &graph_ops() {
    static const dsv4_graph_ops table = {sizeof(dsv4_graph_ops), 0, begin, end, launch_graph, release};
    return table;
}
const dsv4_timer_ops &timer_ops() {
    static const dsv4_timer_ops table = {sizeof(dsv4_timer_ops), 0, stamp, elapsed};
    return table;
}

} // namespace dsv4::gpu
