// What the GPU backends put off to the next operator, and what they do early for it, is what the operators do one by
// one: whole layers of four streams, read after every operator or at the end alone, bit for bit; and what was put off
// is done by whatever comes instead.
#include "core/plugin/registry.hpp"
#include "tests/catch.hpp"
#include "tests/conformance/suite/checks.hpp"
#include "tests/conformance/suite/program.hpp"
#include <cstdlib>

using namespace dsv4::conformance;

namespace {

const dsv4_backend *backend() {
    static const dsv4::PluginRegistry registry({DSV4_PLUGIN_DIR}, nullptr);
    const char *name = std::getenv("DSV4_TEST_BACKEND");
    return registry.select(name ? name : "gpu_emulated").table;
}

Case four_streams() {
    for (const Case &c : cases(false))
        if (c.name == "small") return c;
    throw std::logic_error("the suite has no small");
}

Trace layer(const Device &device, const Case &c, int32_t ratio, bool read) {
    const std::vector<int32_t> length = {90, 21}; // more keys than one block of attention has
    const Weights weights = make_layer(c, ratio, false, 5);
    Schedule schedule = in_chunks({{1, 0, 0, 88}, {2, 1, 0, 18}}, 40);
    for (auto &step : in_chunks({{1, 0, 88, 90}, {2, 1, 18, 21}}, 1)) schedule.push_back(std::move(step));
    LayerProgram program(device, c, weights, scattered(c, ratio, length, c.shape.window + 39, 0, 3), 80);
    Trace trace;
    if (read) program.run(schedule, trace);
    else program.run_unread(schedule, trace);
    return trace;
}

} // namespace

TEST_CASE("a layer is the same, looked at on the way or not") {
    const Case c = four_streams();
    const Device device(backend(), {0, DSV4_NUMERICS_NATIVE, 0, ""});
    for (const int32_t ratio : {0, 4}) {
        const Trace read = layer(device, c, ratio, true), never = layer(device, c, ratio, false);
        REQUIRE(read.size() == 111);
        for (const auto &[key, rows] : read) CHECK(never.at(key)[LAYER_STREAMS] == rows[LAYER_STREAMS]);
    }
}

TEST_CASE("what was put off is done whatever comes next") {
    const Case c = four_streams();
    const dsv4_shape &s = c.shape;
    const Device device(backend(), {0, DSV4_NUMERICS_NATIVE, 0, ""});
    const Weights weights = make_layer(c, 0, false, 6);
    const Block block = device.block(s, weights.desc());
    const Batch batch = device.batch(s, 2, 2, 1), one = device.batch(s, 2, 2, 1);
    const std::vector<Place> places = {{0, {0}}, {1, {0}}};
    const Step both({{1, 0, 0, 1}, {2, 1, 0, 1}}, places, s.vocab, {}), first({{1, 0, 0, 1}}, places, s.vocab, {});
    device.set(batch, both.view());
    device.set(one, first.view());
    const Buffer y = device.buffer(s, DSV4_BUFFER_HIDDEN, 2), mix = device.buffer(s, DSV4_BUFFER_MIX, 2),
                 streams = device.buffer(s, DSV4_BUFFER_STREAMS, 2), x = device.buffer(s, DSV4_BUFFER_HIDDEN, 2),
                 others = device.buffer(s, DSV4_BUFFER_STREAMS, 2);
    const int64_t width = int64_t(s.streams) * s.hidden;
    const auto post = [&] {
        device.write(y, 2, both.inputs(DSV4_BUFFER_HIDDEN, s));
        device.write(mix, 2, both.inputs(DSV4_BUFFER_MIX, s));
        device.write(streams, 2, both.inputs(DSV4_BUFFER_STREAMS, s));
        device.write(others, 2, both.inputs(DSV4_BUFFER_STREAMS, s));
        expect("post", [&](dsv4_error *e) { return device.hc->post(device.queue, batch, y, mix, streams, e); });
    };
    const auto pre = [&](const dsv4_batch *of, dsv4_buffer *from) {
        expect("pre",
               [&](dsv4_error *e) { return device.hc->pre(device.queue, of, block, DSV4_HC_FFN, from, x, mix, e); });
    };
    post();
    const std::vector<float> expected = device.read(streams, 2, width);
    pre(batch, streams);
    const std::vector<float> collapsed = device.read(x, 2, s.hidden), weights_after = device.read(mix, 2, 20);

    post();
    pre(batch, streams); // takes it over
    CHECK(device.read(x, 2, s.hidden) == collapsed);
    CHECK(device.read(mix, 2, 20) == weights_after);
    CHECK(device.read(streams, 2, width) == expected);

    post();
    pre(one, streams); // fewer rows: the second is expanded all the same
    CHECK(device.read(streams, 2, width) == expected);

    post();
    pre(batch, others); // other streams
    CHECK(device.read(streams, 2, width) == expected);

    post();
    post(); // the streams are written anew between
    CHECK(device.read(streams, 2, width) == expected);

    post();
    device.wait();
    CHECK(device.read(streams, 2, width) == expected);
}

TEST_CASE("experts begin early only on what the route was made of") {
    const Case c = four_streams();
    const dsv4_shape &s = c.shape;
    const Device device(backend(), {0, DSV4_NUMERICS_NATIVE, 0, ""});
    const Weights weights = make_layer(c, 0, false, 6);
    const Block block = device.block(s, weights.desc());
    const Batch batch = device.batch(s, 1, 1, 1);
    const std::vector<Place> places = {{0, {0}}};
    const Step step({{1, 0, 0, 1}}, places, s.vocab, {});
    device.set(batch, step.view());
    const Buffer x = device.buffer(s, DSV4_BUFFER_HIDDEN, 1), other = device.buffer(s, DSV4_BUFFER_HIDDEN, 1),
                 route = device.buffer(s, DSV4_BUFFER_ROUTE, 1), y = device.buffer(s, DSV4_BUFFER_HIDDEN, 1);
    const auto input = [&](dsv4_buffer *to, uint64_t salt) {
        device.write(to, 1, step.inputs(DSV4_BUFFER_HIDDEN, s, salt));
    };
    const auto make_route = [&] {
        expect("route", [&](dsv4_error *e) { return device.moe->route(device.queue, batch, block, x, route, e); });
    };
    const auto experts = [&](dsv4_buffer *of) {
        expect("experts",
               [&](dsv4_error *e) { return device.moe->experts(device.queue, batch, block, of, route, y, e); });
        return device.read(y, 1, s.hidden);
    };
    input(x, 0), input(other, 1);
    make_route();
    device.wait();
    const std::vector<float> of_x = experts(x), of_other = experts(other);
    REQUIRE(of_x != of_other);
    make_route();
    CHECK(experts(x) == of_x);
    make_route();
    CHECK(experts(other) == of_other);
    make_route();
    input(x, 1); // other content, the old route
    CHECK(experts(x) == of_other);
}
