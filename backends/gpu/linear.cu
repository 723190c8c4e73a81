// linear(): which kernel runs, and what it needs. Never a matter of the result (linear.hpp).
#include "backends/gpu/linear.hpp"
#include "backends/gpu/low.hpp"
#include "backends/gpu/plain.hpp"
#include "backends/gpu/tiles.hpp"
#include <algorithm>

namespace dsv4::gpu {
namespace {

struct Dense {
    struct Item {
        Matrix w;
        const float *x;
        float *y, *partial;
        const uint16_t *packed;
        int64_t ldx, ldy;
        int32_t first, rows;
        bool round_output, residual;
    };
    Rows live;
    int32_t count, repeat;
    int32_t first_block[most_products + 1];
    Item items[most_products]; // last: of most only the first is read, beside what is read of all

    static constexpr bool of_the_step = false; // find() reads nothing that a kernel wrote
    __device__ __forceinline__ bool find(Work &work, Kernel, int width) const {
        int p = 0;
        while (p + 1 < count && int(blockIdx.x) >= first_block[p + 1]) ++p;
        const Item &item = items[p];
        work = {};
        work.w = item.w;
        work.first = item.first, work.rows = item.rows, work.block = int(blockIdx.x) - first_block[p],
        work.repeat = repeat;
        work.column = int(blockIdx.y) * width, work.columns = live.live();
        work.x = item.x, work.ldx = item.ldx, work.packed = item.packed;
        work.y = item.y, work.ldy = item.ldy, work.partial = item.partial;
        work.column_count = live.grid, work.divisor = 1;
        work.round_output = item.round_output, work.residual = item.residual;
        return work.column < work.columns;
    }
};

/// One input of several products, in operand order.
struct PackSource {
    Matrix w; // its type and columns alone
    const float *x;
    int64_t ldx;
    bool residual;
    Rows live;
    __device__ __forceinline__ bool find_row(Work &work, int32_t row) const {
        work = {};
        work.w = w, work.x = x, work.ldx = ldx, work.divisor = 1, work.residual = residual;
        return row < live.live();
    }
};

/// Grid: row blocks of all products, columns.
__global__ void __launch_bounds__(block_threads) add_segments(DSV4_PARAMETER Dense source) {
    enter_kernel();
    Work work;
    if (!source.find(work, KERNEL_SOME, 1)) return;
    const int count = segments_of(work.w.columns), row = work.block * block_threads + int(threadIdx.x);
    if (count == 1 || row >= work.rows) return; // one segment went to y at once
    const float *from = work.partial + int64_t(work.column) * work.rows + row;
    float sum = from[0];
    for (int s = 1; s < count; ++s) sum += from[int64_t(s) * work.column_count * work.rows];
    work.y[work.column * work.ldy + row] = sum;
}

__global__ void __launch_bounds__(block_threads)
    round_kernel(const float *x, int64_t ldx, int32_t n, float *out, Rows live) {
    enter_kernel();
    const auto row = int32_t(blockIdx.y);
    if (row >= live.live()) return;
    const int begin = (int(blockIdx.x) * block_subgroups + subgroup_of_block()) * 128;
    float v[4], top = 0;
    for (int i = 0; i < 4; ++i) {
        const int k = begin + i * subgroup_size + lane_of_subgroup();
        v[i] = k < n ? x[row * ldx + k] : 0.0f;
        top = fmaxf(top, fabsf(v[i]));
    }
    const int exponent = fp8_exponent(subgroup_max(top));
    for (int i = 0; i < 4; ++i) {
        const int k = begin + i * subgroup_size + lane_of_subgroup();
        if (k < n) out[int64_t(row) * n + k] = fake_fp8(v[i], exponent);
    }
}

Dense dense(const Rows &live, const std::vector<Product> &products, bool official) {
    Dense d = {};
    d.live = live, d.repeat = 1;
    d.count = int32_t(products.size());
    for (int i = 0; i < d.count; ++i) {
        const Product &p = products[size_t(i)];
        d.items[i] = {p.w,       p.x, p.y, nullptr, nullptr, p.ldx, p.ldy, p.first, p.rows, official && !p.keep_output,
                      p.residual};
    }
    return d;
}

/// Block numbers of every product; how many blocks in all.
unsigned number_blocks(Dense &d, const std::vector<int> &heights) {
    d.first_block[0] = 0;
    for (int i = 0; i < d.count; ++i)
        d.first_block[i + 1] = d.first_block[i] + int32_t(ceil_div(d.items[i].rows, heights[size_t(i)]));
    return unsigned(d.first_block[d.count]);
}
unsigned number_blocks(Dense &d, Kernel kernel, int tile = 16, int repeat = 1) {
    std::vector<int> heights;
    for (int i = 0; i < d.count; ++i) heights.push_back(height_of(kernel, d.items[i].w.columns, tile, repeat));
    return number_blocks(d, heights);
}

/// Room for the sums of every segment; the most segments that a product has.
int take_partials(dsv4_queue &queue, Dense &d) {
    int most = 1;
    size_t total = 0;
    for (int i = 0; i < d.count; ++i) {
        const int n = segments_of(d.items[i].w.columns);
        most = std::max(most, n);
        if (n > 1) total += size_t(n) * size_t(d.live.grid) * size_t(d.items[i].rows);
    }
    if (most == 1) return 1;
    auto *partial = queue.scratch<float>(SCRATCH_PARTIAL, total);
    for (int i = 0; i < d.count; ++i) {
        const int n = segments_of(d.items[i].w.columns);
        d.items[i].partial = partial;
        if (n > 1) partial += size_t(n) * size_t(d.live.grid) * size_t(d.items[i].rows);
    }
    return most;
}

void finish_segments(dsv4_queue &queue, Dense d) {
    const unsigned blocks = number_blocks(d, std::vector<int>(size_t(d.count), block_threads));
    launch_early(add_segments, dim3(blocks, unsigned(d.live.grid)), block_threads, 0, queue.stream(), d);
}

/// Every distinct input once.
void pack(dsv4_queue &queue, Dense &d, bool wide) {
    std::vector<size_t> at(size_t(d.count), 0);
    std::vector<int> like(size_t(d.count), -1);
    size_t total = 0;
    for (int i = 0; i < d.count; ++i) {
        const Dense::Item &a = d.items[i];
        for (int j = 0; j < i && like[size_t(i)] < 0; ++j) {
            const Dense::Item &b = d.items[j];
            if (like[size_t(j)] < 0 && a.x == b.x && a.ldx == b.ldx && a.w.columns == b.w.columns &&
                a.residual == b.residual && slabs_of(a.w.dtype) == slabs_of(b.w.dtype))
                like[size_t(i)] = j;
        }
        if (like[size_t(i)] >= 0) continue;
        at[size_t(i)] = total;
        total += size_t(d.live.grid) * size_t(padded(a.w.columns));
    }
    auto *packed = queue.scratch<uint16_t>(SCRATCH_ROUNDED, total);
    for (int i = 0; i < d.count; ++i) {
        Dense::Item &a = d.items[i];
        if (like[size_t(i)] >= 0) {
            a.packed = d.items[like[size_t(i)]].packed;
            continue;
        }
        uint16_t *to = packed + at[size_t(i)];
        a.packed = to;
        const unsigned blocks = unsigned(ceil_div(padded(a.w.columns) / 8, block_threads));
        launch_early(pack_inputs<PackSource>, dim3(blocks, unsigned(d.live.grid)), block_threads, 0, queue.stream(),
                     PackSource{a.w, a.x, a.ldx, a.residual, d.live}, to, wide);
    }
}

void multiply_on_matrix_units(dsv4_queue &queue, Dense d, Linear how) {
    const int columns = d.live.grid;
    const size_t shared = queue.device.properties.shared_bytes, room = std::min(shared, size_t(100) * 1024);
    size_t sums = 0, pitch = 0;
    for (int i = 0; i < d.count; ++i) {
        sums = std::max(sums, size_t(sums_bytes(d.items[i].w.columns, 1)));
        pitch = std::max(pitch, size_t(pitch_of(d.items[i].w.columns)) * 2);
    }
    if (columns <= 8 && sums + pitch * size_t(columns) <= room) {
        int tile = 16;
        const int64_t processors = queue.device.properties.processors, at_once = few_blocks_per_processor * processors;
        unsigned blocks = number_blocks(d, KERNEL_FEW, tile);
        if (int64_t(blocks) * 2 < processors * (how == LINEAR_SMALL ? 4 : 3)) {
            blocks = number_blocks(d, KERNEL_FEW, tile = low_rows);
            size_t bytes = 0;
            for (int i = 0; i < d.count; ++i) bytes = std::max(bytes, size_t(LowLayout(d.items[i].w, columns).end));
            if (bytes <= room)
                return launch_early(multiply_low<Dense>, dim3(blocks), block_threads, bytes, queue.stream(), d);
        } else if (is_quantized(d.items[0].w) && int64_t(blocks) <= 8 * at_once) { // units of bf16 are long enough
            d.repeat = few_repeats(blocks, how == LINEAR_BESIDE ? at_once - processors / 5 : at_once);
            while (d.repeat > 1 && sums * size_t(d.repeat) + pitch * size_t(columns) > room) --d.repeat;
            blocks = number_blocks(d, KERNEL_FEW, tile, d.repeat);
        }
        const auto all = [&](int32_t type) {
            return std::all_of(d.items, d.items + d.count, [&](const Dense::Item &i) { return i.w.dtype == type; });
        };
        const auto kernel = all(DSV4_BF16)       ? multiply_few<Dense, DSV4_BF16>
                            : all(DSV4_FP8_E4M3) ? multiply_few<Dense, DSV4_FP8_E4M3>
                                                 : multiply_few<Dense, -1>;
        launch_early(kernel, dim3(blocks), block_threads, sums * size_t(d.repeat) + pitch * size_t(columns),
                     queue.stream(), d, columns, tile);
        return;
    }
    if (columns <= 64) {
        const size_t bytes = size_t(pitch_of(segment)) * 2;
        const bool wide = columns > 32 && bytes * 64 <= shared;
        const int width = wide ? 64 : 32, most = take_partials(queue, d);
        const unsigned blocks = number_blocks(d, KERNEL_SOME);
        const dim3 grid(blocks, unsigned(ceil_div(columns, width)), unsigned(most));
        launch_early(wide ? multiply_some<Dense, 8> : multiply_some<Dense, 4>, grid, block_threads,
                     bytes * size_t(std::min(columns, width)), queue.stream(), d);
        if (most > 1) finish_segments(queue, d);
        return;
    }
    const Tiles tiles(queue.device.properties);
    pack(queue, d, tiles.wide);
    const unsigned blocks = number_blocks(d, KERNEL_MANY);
    const int width =
        tiles.fit(128) && int64_t(blocks) * ceil_div(columns, 128) >= queue.device.properties.processors ? 128 : 64;
    const auto across = unsigned(ceil_div(columns, width));
    int most = 1;
    if (int64_t(blocks) * across < queue.device.properties.processors) most = take_partials(queue, d);
    tiles.launch(queue, width, dim3(blocks, across, unsigned(most)), d);
    if (most > 1) finish_segments(queue, d);
}

} // namespace

void round_rows(dsv4_queue &queue, const Rows &rows, const float *x, int64_t ldx, int32_t n, float *out) {
    const auto blocks = unsigned(ceil_div(n, 128 * block_subgroups));
    launch_early(round_kernel, dim3(blocks, unsigned(rows.grid)), block_threads, 0, queue.stream(), x, ldx, n, out,
                 rows);
}

void linear(dsv4_queue &queue, const Rows &rows, const Product *products, int count, Linear how) {
    if (!rows.grid) return;
    if (count > most_products) throw Failure(DSV4_E_INTERNAL, "too many products in one call");
    const dsv4_device &device = queue.device;
    std::vector<Product> bf16, plain;
    size_t rounded_floats = 0;
    for (int i = 0; i < count; ++i) {
        const Product &p = products[i];
        const bool aligned = p.ldx % 4 == 0 && reinterpret_cast<uintptr_t>(p.x) % 16 == 0;
        const bool units = device.native() && !p.float_input && aligned && takes_matrix_units(p.w);
        (units ? bf16 : plain).push_back(p);
        if (device.official() && !p.unrounded && is_quantized(p.w))
            rounded_floats += size_t(round_up(p.w.columns, 4)) * size_t(rows.grid);
    }
    if (!bf16.empty()) multiply_on_matrix_units(queue, dense(rows, bf16, false), how);
    if (plain.empty()) return;
    if (rounded_floats) {
        auto *to = queue.scratch<float>(SCRATCH_ROUNDED, rounded_floats);
        std::vector<Product> done;
        for (Product &p : plain) {
            if (p.unrounded || !is_quantized(p.w)) continue;
            const auto same = std::find_if(done.begin(), done.end(), [&](const Product &o) {
                return o.x == p.x && o.ldx == p.ldx && o.w.columns == p.w.columns;
            });
            const Product given = p;
            if (same != done.end()) {
                p.x = same->y;
            } else {
                round_rows(queue, rows, p.x, p.ldx, p.w.columns, to);
                p.x = to;
                done.push_back(given);
                done.back().y = to;
                to += size_t(p.w.columns) * size_t(rows.grid);
            }
            p.ldx = p.w.columns;
        }
    }
    Dense d = dense(rows, plain, device.official());
    const int repeat = rows.grid > 64 ? 8 : 1; // large batches read their columns from the first-level cache
    const unsigned blocks = number_blocks(d, KERNEL_PLAIN, 16, repeat);
    launch_early(multiply_plain<Dense>, dim3(blocks, unsigned(ceil_div(rows.grid, 8))), block_threads, 0,
                 queue.stream(), d, 8, repeat);
}

} // namespace dsv4::gpu
