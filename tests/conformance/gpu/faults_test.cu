// What goes wrong on a card goes wrong in the emulation here: a device that is lost at any launch, memory that ends at
// any allocation. Each is a status with its reason, nothing leaks, and the next device works.
#include "backends/gpu/portable.hpp"
#include "tests/catch.hpp"
#include "tests/conformance/suite/checks.hpp"
#include "tests/conformance/suite/program.hpp"

using namespace dsv4::conformance;
namespace gpu = dsv4::gpu;

extern "C" dsv4_status dsv4_backend_entry(uint32_t, uint32_t, const dsv4_host *, const dsv4_backend **, dsv4_error *);

namespace {

const dsv4_backend *backend() {
    const dsv4_backend *out = nullptr;
    REQUIRE(dsv4_backend_entry(1, 1, nullptr, &out, nullptr) == DSV4_OK);
    return out;
}

Case smallest() {
    for (const Case &c : cases(false))
        if (c.name == "odd-c") return c;
    throw std::logic_error("the suite has no odd-c");
}

size_t used() {
    size_t left = 0, total = 0;
    gpu::memory_info(left, total);
    return total - left;
}

/// Two tokens of random logits, sampled: one with a mask, one with a bias.
void sample(const Device &device, const Case &c) {
    dsv4_sampler *made = nullptr;
    expect("sampler_create",
           [&](dsv4_error *e) { return device.sample->sampler_create(device.device, &c.shape, 2, 4, &made, e); });
    const Owned<dsv4_sampler> sampler(made, device.sample->sampler_release);
    const std::vector<Place> places = {{0, {0}}, {1, {0}}};
    const Step step({{1, 0, 0, 1}, {2, 1, 0, 1}}, places, c.shape.vocab, {0, 1});
    const Batch batch = device.batch(c.shape, 2, 2, 1);
    device.set(batch, step.view());
    const Buffer logits = device.buffer(c.shape, DSV4_BUFFER_LOGITS, 2);
    std::vector<float> values(2 * size_t(c.shape.vocab));
    Random random(5);
    for (float &v : values) v = random.gaussian();
    device.write(logits, 2, values);
    std::vector<uint64_t> allowed(size_t(c.shape.vocab + 63) / 64, 0);
    allowed[0] = 1u << 7;
    const dsv4_logit_bias bias{9, 1000};
    dsv4_sample_row rows[2] = {};
    for (dsv4_sample_row &r : rows) r.kind = DSV4_SAMPLE_DRAW, r.scale = 2e7f, r.least = 1, r.top_p = 1u << 31;
    rows[0].allowed = allowed.data();
    rows[1].bias = &bias, rows[1].bias_count = 1;
    int32_t ids[2] = {};
    expect("set", [&](dsv4_error *e) { return device.sample->set(device.queue, sampler, 2, rows, sizeof rows[0], e); });
    expect("sample", [&](dsv4_error *e) { return device.sample->sample(device.queue, batch, sampler, logits, e); });
    expect("read", [&](dsv4_error *e) { return device.sample->read(device.queue, sampler, 2, ids, e); });
    CHECK(ids[0] == 7);
    CHECK(ids[1] == 9);
}

/// A layer with two sequences over a few steps, and some sampling, from nothing to nothing.
void run_layer(const Case &c, const Weights &weights) {
    const Device device(backend(), {});
    const Geometry g = scattered(c, 4, {24, 9}, c.shape.window + 24, 0, 2);
    LayerProgram program(device, c, weights, g, 24);
    Trace trace;
    program.run(in_chunks({{3, 0, 0, 13}, {4, 1, 0, 5}}, 7), trace);
    sample(device, c);
}

/// The failure of run_layer(), status 0 when there is none.
dsv4_status outcome(const Case &c, const Weights &weights, std::string &why) {
    try {
        run_layer(c, weights);
        return DSV4_OK;
    } catch (const CallFailed &f) {
        why = f.what();
        return f.status;
    }
}

} // namespace

TEST_CASE("a device that is lost at any launch is a status, and the process goes on") {
    const Case c = smallest();
    const Weights weights = make_layer(c, 4, false, 1);
    const int64_t before = gpu::emulated::launches();
    run_layer(c, weights);
    const int64_t all = gpu::emulated::launches() - before;
    REQUIRE(all > 30);
    std::string why;
    for (int64_t n = 0; n < all; n += 1 + n / 6) {
        INFO("lost after " << n << " launches of " << all);
        gpu::emulated::lose_device_after(n);
        CHECK(outcome(c, weights, why) == DSV4_E_DEVICE);
        CHECK(why.find("lost") != std::string::npos);
        gpu::emulated::lose_device_after(-1);
        CHECK(used() == 0);
    }
    CHECK(outcome(c, weights, why) == DSV4_OK);
}

TEST_CASE("memory that ends anywhere is a status that says how much was wanted and how much was left") {
    const Case c = smallest();
    const Weights weights = make_layer(c, 4, false, 1);
    std::string why;
    size_t total = 1000;
    int refused = 0;
    for (;; total += total / 3) {
        INFO(total << " bytes of device memory");
        gpu::emulated::set_memory(total);
        const dsv4_status status = outcome(c, weights, why);
        CHECK(used() == 0);
        if (status == DSV4_OK) break;
        CHECK(status == DSV4_E_NO_MEMORY);
        CHECK(why.find("needs") != std::string::npos);
        CHECK(why.find("are free") != std::string::npos);
        if (++refused > 60) break;
    }
    CHECK(refused > 5);
    CHECK(refused < 60);
    gpu::emulated::set_memory(size_t(4) << 30);
}

TEST_CASE("experts of unlike formats are refused, with the tensor that differs") {
    const Case c = smallest();
    Case other = c;
    other.formats.experts = DSV4_BF16;
    Weights weights = make_layer(c, 4, false, 1);
    const Weights unlike = make_layer(other, 4, false, 1);
    for (dsv4_tensor &t : weights.tensors)
        if (t.role == DSV4_ROLE_EXPERT_W3 && t.expert == 4) t = *unlike.find(DSV4_ROLE_EXPERT_W3, 4);
    const Device device(backend(), {});
    try {
        device.block(c.shape, weights.desc());
        FAIL("it was taken");
    } catch (const CallFailed &f) {
        CHECK(f.status == DSV4_E_MODEL);
        CHECK(std::string(f.what()).find("expert 4") != std::string::npos);
    }
}
