// What the header promises besides numbers: buffers keep what is written, sizes are told before they are taken, a call
// that cannot be served gives a status and leaves the device usable. The core passes no NULL objects and no batches it
// did not set, so nor does this.
#include "checks.hpp"
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

namespace dsv4::conformance {
namespace {

Row contract_row(const std::string &op, const Case &c, double complaints, std::string note) {
    Row r;
    r.check = "contract", r.op = op, r.shape = c.name, r.numerics = "default", r.measure = "complaints";
    r.error = complaints;
    r.verdict = complaints > 0 ? Verdict::fail : Verdict::pass;
    r.note = std::move(note);
    return r;
}

struct Complaints {
    double count = 0;
    std::string text;
    void add(const std::string &what) {
        count += 1;
        text += (text.empty() ? "" : "; ") + what;
    }
};

} // namespace

void Suite::memory(const Case &c) {
    const Device d(candidate_, choice(DSV4_NUMERICS_DEFAULT));
    Complaints bad;
    constexpr int32_t rows = 5;
    for (int32_t kind = DSV4_BUFFER_STREAMS; kind <= DSV4_BUFFER_LOGITS; ++kind) {
        const std::string name = "buffer kind " + std::to_string(kind);
        const int64_t width = buffer_width(c.shape, kind);
        std::vector<float> values(static_cast<size_t>(rows * width));
        for (int32_t t = 0; t < rows; ++t) {
            float *row = &values[static_cast<size_t>(t * width)];
            if (kind == DSV4_BUFFER_SELECTION || kind == DSV4_BUFFER_ROUTE) // indices, -1, weights
                for (int64_t i = 0; i < width; ++i)
                    row[i] = kind == DSV4_BUFFER_ROUTE
                                 ? static_cast<float>(i % c.shape.experts) * (i < width / 2 ? 1.f : .25f)
                             : i % 7 == 6 ? -1.f
                                          : static_cast<float>(i * 509 + t);
            else input_row(options_.seed, t, kind, c.shape, row);
        }
        const Buffer a = d.buffer(c.shape, kind, rows), b = d.buffer(c.shape, kind, rows);
        d.write(a, rows, values);
        if (differing_bits(d.read(a, rows, width), values))
            bad.add(name + " does not hold bf16 values and indices exactly");
        // Rows 1-2 of a to rows 3-4 of b; then row 3 of b alone anew.
        d.write(b, rows, std::vector<float>(values.size(), 1.f));
        expect("buffer_copy", [&](dsv4_error *e) { return d.memory->buffer_copy(d.queue, a, 1, b, 3, 2, e); });
        expect("buffer_write",
               [&](dsv4_error *e) { return d.memory->buffer_write(d.queue, b, 3, 1, values.data(), e); });
        std::vector<float> expected(values.size(), 1.f);
        std::copy_n(values.begin(), width, expected.begin() + 3 * width);
        std::copy_n(values.begin() + 2 * width, width, expected.begin() + 4 * width);
        if (differing_bits(d.read(b, rows, width), expected)) bad.add(name + ": partial copy or write went elsewhere");
    }
    report(contract_row("buffers", c, bad.count, bad.text));

    Complaints sizes;
    for (int32_t ratio : c.ratios) {
        const Weights w = make_layer(c, ratio, false, options_.seed);
        const dsv4_block_desc desc = w.desc();
        uint64_t device_bytes = ~0ull, host_bytes = ~0ull, per_slot = 0, per_block = 0;
        expect("block_bytes", [&](dsv4_error *e) {
            return d.model->block_bytes(d.device, &c.shape, &desc, &device_bytes, &host_bytes, e);
        });
        if (device_bytes == ~0ull || host_bytes == ~0ull) sizes.add("block_bytes does not fill its results");
        const Geometry g = scattered(c, ratio, c.lengths, c.shape.window + 8, 2, 1);
        expect("cache_bytes", [&](dsv4_error *e) {
            return d.model->cache_bytes(d.device, &c.shape, ratio, &g.desc, &per_slot, &per_block, e);
        });
        if (per_slot == 0) sizes.add("cache_bytes: a window takes no memory");
        if (ratio && per_block == 0) sizes.add("cache_bytes: entries take no memory");
        if (!ratio && per_block != 0) sizes.add("cache_bytes: a window-only layer has no entries to take memory");
    }
    report(contract_row("block_bytes, cache_bytes", c, sizes.count, sizes.text));
}

void Suite::contract(const Case &c) {
    Complaints bad;
    const auto refused = [&](const char *what, dsv4_status status) {
        if (status >= 0) bad.add(std::string(what) + " was accepted");
    };
    dsv4_error err;
    DSV4_INIT(err);

    // Devices that do not exist. err may be NULL.
    dsv4_device_options options;
    DSV4_INIT(options);
    dsv4_device *none = nullptr;
    options.index = 1u << 20;
    refused("device index 1048576", candidate_->device_open(&options, &none, nullptr));
    options.index = options_.device;
    options.numerics = 99;
    const dsv4_status numerics = candidate_->device_open(&options, &none, &err);
    if (numerics != DSV4_E_UNSUPPORTED)
        bad.add("numerics 99: expected DSV4_E_UNSUPPORTED, got " + std::to_string(numerics));
    if (numerics < 0 && !err.message[0]) bad.add("numerics 99: no message");
    options.numerics = DSV4_NUMERICS_DEFAULT;
    options.variant = {"no such instruction set", 23};
    refused("an unknown variant", candidate_->device_open(&options, &none, &err));

    const Device d(candidate_, choice(DSV4_NUMERICS_DEFAULT));
    const dsv4_shape &s = c.shape;
    if (candidate_->ops(d.device, 0) || candidate_->ops(d.device, 4096))
        bad.add("ops() of an unknown family is not NULL");

    // A working set to come back to after every refusal.
    const int32_t ratio = 4;
    const Weights weights = make_layer(c, ratio, false, options_.seed + 60);
    const Geometry g = scattered(c, ratio, {24}, s.window + 24, 0, 2);
    LayerProgram program(d, c, weights, g, 24);
    const Schedule schedule = in_chunks({{options_.seed + 3, 0, 0, 20}}, 10);
    Trace right;
    program.run(schedule, right);

    dsv4_buffer *buffer = nullptr;
    refused("buffer kind 99", d.memory->buffer_create(d.device, &s, 99, 1, &buffer, &err));
    const Buffer two = d.buffer(s, DSV4_BUFFER_HIDDEN, 2);
    std::vector<float> values(static_cast<size_t>(4 * s.hidden), 1.f);
    refused("buffer_write past the end", d.memory->buffer_write(d.queue, two, 1, 2, values.data(), &err));
    refused("buffer_write past the end (err NULL)", d.memory->buffer_write(d.queue, two, 2, 1, values.data(), nullptr));
    refused("buffer_read past the end", d.memory->buffer_read(d.queue, two, 0, 3, values.data(), &err));
    refused("cache_read of part 99", d.model->cache_read(d.queue, program.cache(), 99, 0, 0, 1, values.data(), &err));
    refused("cache_read of a slot that is not there",
            d.model->cache_read(d.queue, program.cache(), DSV4_CACHE_WINDOW, 99, 0, 1, values.data(), &err));
    refused("cache_read past the last row", d.model->cache_read(d.queue, program.cache(), DSV4_CACHE_WINDOW, 0,
                                                                g.desc.window_rows, 1, values.data(), &err));
    {
        const Batch small = d.batch(s, 4, 1, 2);
        const Step step({{options_.seed, 0, 0, 5}}, g.places, s.vocab);
        refused("batch_set with more tokens than the batch was made for",
                d.model->batch_set(d.queue, small, &step.view(), &err));
    }
    {
        // Roles of a newer core are not for us; roles that are missing matter when an operator needs them.
        Weights strange = make_layer(c, ratio, false, options_.seed + 60);
        dsv4_tensor unknown = strange.tensors[0];
        unknown.role = 100000;
        strange.tensors.push_back(unknown);
        dsv4_block *block = nullptr;
        const dsv4_block_desc desc = strange.desc();
        if (d.model->block_create(d.device, &s, &desc, &block, &err) < 0)
            bad.add("a block with a role of the future was refused");
        else d.model->block_release(block);

        // Nor does it matter where the core's dsv4_tensor ends: as it once did, or further on.
        const auto sizes = [&](const dsv4_block_desc &of) {
            std::array<uint64_t, 2> bytes{};
            expect("block_bytes",
                   [&](dsv4_error *e) { return d.model->block_bytes(d.device, &s, &of, &bytes[0], &bytes[1], e); });
            return bytes;
        };
        for (const size_t stride : {offsetof(dsv4_tensor, random), sizeof(dsv4_tensor) + 24}) {
            std::vector<uint8_t> packed(strange.tensors.size() * stride, 0xA5);
            for (size_t i = 0; i < strange.tensors.size(); ++i)
                std::memcpy(&packed[i * stride], &strange.tensors[i], std::min(stride, sizeof(dsv4_tensor)));
            dsv4_block_desc other = desc;
            other.tensors = reinterpret_cast<const dsv4_tensor *>(packed.data());
            other.tensor_stride = static_cast<uint32_t>(stride);
            block = nullptr;
            if (d.model->block_create(d.device, &s, &other, &block, &err) < 0 || sizes(other) != sizes(desc))
                bad.add("tensors " + std::to_string(stride) + " bytes apart are not those that were given");
            if (block) d.model->block_release(block);
        }
    }
    const Batch batch = d.batch(s, 4, 1, 16);
    const Step step({{options_.seed, 0, 0, 4}}, g.places, s.vocab);
    const Buffer x = d.buffer(s, DSV4_BUFFER_HIDDEN, 4), q = d.buffer(s, DSV4_BUFFER_QUERY, 4);
    const Buffer qr = d.buffer(s, DSV4_BUFFER_QUERY_LORA, 4);
    const Cache cache = d.cache(s, ratio, g.desc);
    /// Either the block is refused, or project with it is.
    const auto project_refused = [&](const char *what, const Weights &w) {
        dsv4_block *made = nullptr;
        const dsv4_block_desc desc = w.desc();
        if (d.model->block_create(d.device, &s, &desc, &made, &err) < 0) return;
        const Block block(made, d.model->block_release);
        d.set(batch, step.view());
        d.write(x, 4, step.inputs(DSV4_BUFFER_HIDDEN, s));
        DSV4_INIT(err);
        dsv4_status status = d.attention->project(d.queue, batch, block, cache, x, q, qr, &err);
        if (status >= 0) status = d.memory->queue_wait(d.queue, &err);
        refused(what, status);
        if (status < 0 && !err.message[0]) bad.add(std::string(what) + ": no message");
    };
    {
        Weights lacking = make_layer(c, ratio, false, options_.seed + 60);
        lacking.tensors.erase(std::find_if(lacking.tensors.begin(), lacking.tensors.end(),
                                           [](const dsv4_tensor &t) { return t.role == DSV4_ROLE_WQ_B; }));
        project_refused("project without wq_b", lacking);
        Weights wrong = make_layer(c, ratio, false, options_.seed + 60);
        for (dsv4_tensor &t : wrong.tensors)
            if (t.role == DSV4_ROLE_WQ_A) t.shape[0] -= 8; // still inside the memory given
        project_refused("project with wq_a of another shape", wrong);
    }

    Trace again;
    program.run(schedule, again);
    for (const auto &[key, rows] : right)
        if (differing_bits(rows[LAYER_STREAMS], again.at(key)[LAYER_STREAMS])) {
            bad.add("after the refused calls a good one gives other values");
            break;
        }
    report(contract_row("bad calls", c, bad.count, bad.text));
}

void Suite::residency(const Numerics &n, const Case &c) {
    const Device d(candidate_, choice(n.candidate));
    const dsv4_shape &s = c.shape;
    Weights weights = make_layer(c, 0, false, options_.seed + 70);
    const std::vector<Place> places(1);
    const Step step({{options_.seed, 0, 0, 6}}, places, s.vocab);
    const int32_t T = step.tokens();
    const Batch batch = d.batch(s, T, 1, 1);
    d.set(batch, step.view());

    // Experts on disk are read from the file that they are mapped from: one is written with everything in it.
    const std::filesystem::path file =
        std::filesystem::temp_directory_path() /
        ("dsv4-conformance-" + std::to_string(options_.seed) + "-" + std::to_string(std::hash<std::string>()(c.name)) +
         "-" + std::to_string(reinterpret_cast<uintptr_t>(&weights)) + ".bin");
    const std::string path = file.string();
    const auto run = [&](int32_t tier) {
        dsv4_block_desc desc = weights.desc();
        desc.expert_tier = tier;
        const Block block = d.block(s, desc);
        return moe_output(d, s, batch, step, block);
    };
    const std::vector<float> right = run(DSV4_TIER_DEVICE);
    const auto settle = [&](const char *op, int32_t tier, bool claimed) {
        Row r;
        r.check = "contract", r.op = op, r.shape = c.name, r.numerics = n.label, r.measure = "differing values";
        try {
            r.error = static_cast<double>(differing_bits(right, run(tier)));
            r.verdict = r.error > 0 ? Verdict::fail : Verdict::pass;
        } catch (const CallFailed &e) {
            // Declining is honest where nothing else was claimed.
            r.verdict = e.status == DSV4_E_UNSUPPORTED && !claimed ? Verdict::skipped : Verdict::fail;
            r.error = r.verdict == Verdict::fail;
            r.note = e.what();
        }
        report(std::move(r));
    };
    settle("experts in host memory", DSV4_TIER_HOST, false);
    if (!d.claims(DSV4_CAP_DISK_EXPERTS)) {
        Row r;
        r.check = "contract", r.op = "experts on disk", r.shape = c.name, r.numerics = n.label;
        r.verdict = Verdict::skipped;
        r.note = "DSV4_CAP_DISK_EXPERTS is not claimed";
        return report(std::move(r));
    }
    {
        std::ofstream out(file, std::ios::binary);
        uint64_t offset = 0;
        const auto put = [&](const void *data, uint64_t bytes) {
            out.write(static_cast<const char *>(data), static_cast<std::streamsize>(bytes));
            offset += bytes;
            return offset - bytes;
        };
        for (dsv4_tensor &t : weights.tensors) {
            t.path = path.c_str();
            t.file_offset = put(t.data, t.bytes);
            if (t.scale) t.scale_file_offset = put(t.scale, t.scale_bytes);
        }
    }
    settle("experts on disk", DSV4_TIER_DISK, true);
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
}

} // namespace dsv4::conformance
