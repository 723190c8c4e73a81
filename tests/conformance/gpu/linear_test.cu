// Matrix products of the GPU backends: right, and the same bits for a row whatever the company, hence whichever kernel
// runs: one to eight rows, up to 64, more; for devices with little and with much shared memory, few and many
// processors, with and without multiplication by warpgroups.
#include "backends/gpu/formats.hpp"
#include "backends/gpu/linear.hpp"
#include "backends/gpu/runtime.hpp"
#include "tests/catch.hpp"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

using namespace dsv4::gpu;

namespace {

#if defined(DSV4_GPU_EMULATED) // as much as a Hopper card; read at the first launch
const int more_shared = setenv("DSV4_EMULATED_SHARED", "232448", 0);
#endif

struct Weight {
    Matrix host{}, device{};
    std::vector<uint8_t> bytes, scales;
};

class Machine {
  public:
    Machine(size_t shared_bytes, int32_t processors, bool warpgroups) {
        device_.properties = device_properties(0);
        device_.properties.shared_bytes = std::min(shared_bytes, device_.properties.shared_bytes);
        device_.properties.processors = processors;
        device_.properties.warpgroups = warpgroups; // a card that has none multiplies by subgroups
        queue_ = std::make_unique<dsv4_queue>(device_);
    }
    ~Machine() {
        for (void *p : memory_) device_free(p);
    }
    dsv4_queue &queue() { return *queue_; }
    template <class T> T *upload(const std::vector<T> &values) {
        void *p = device_malloc(values.size() * sizeof(T), "a test");
        memory_.push_back(p);
        copy_to_device(p, values.data(), values.size() * sizeof(T), queue_->stream());
        return static_cast<T *>(p);
    }
    template <class T> std::vector<T> download(const T *p, size_t count) {
        std::vector<T> values(count);
        copy_to_host(values.data(), p, count * sizeof(T), queue_->stream());
        return values;
    }

  private:
    dsv4_device device_;
    std::unique_ptr<dsv4_queue> queue_;
    std::vector<void *> memory_;
};

/// Every code there is, under scales that differ from block to block.
Weight random_weight(Machine &machine, int32_t dtype, int32_t scale_dtype, int32_t rows, int32_t columns,
                     std::mt19937 &random) {
    Weight w;
    Matrix &m = w.host;
    const bool fp4 = dtype == DSV4_FP4_E2M1, fp8 = dtype == DSV4_FP8_E4M3;
    m.dtype = dtype, m.scale_dtype = scale_dtype, m.rows = rows, m.columns = columns;
    m.row_bytes = fp4 ? columns / 2 : fp8 ? columns : dtype == DSV4_F32 ? 4 * int64_t(columns) : 2 * int64_t(columns);
    m.scale_block_rows = scale_dtype && !fp4 ? 128 : 1;
    m.scale_block_columns = scale_dtype ? (fp4 ? 32 : 128) : 1;
    m.scale_columns = scale_dtype ? int32_t(ceil_div(columns, m.scale_block_columns)) : 1;
    w.bytes.resize(size_t(m.row_bytes) * size_t(rows));
    std::normal_distribution<float> normal;
    const auto each = [&](auto zero, auto make) {
        using T = decltype(zero);
        for (size_t i = 0; i < w.bytes.size() / sizeof(T); ++i) {
            const T value = make();
            std::memcpy(&w.bytes[i * sizeof(T)], &value, sizeof(T));
        }
    };
    if (fp4) each(uint8_t(), [&] { return uint8_t(random()); });
    if (fp8)
        each(uint8_t(), [&] {
            const auto b = uint8_t(random());
            return (b & 0x7F) == 0x7F ? uint8_t(1) : b;
        });
    if (dtype == DSV4_BF16) each(uint16_t(), [&] { return to_bf16(normal(random)); });
    if (dtype == DSV4_F16) each(uint16_t(), [&] { return uint16_t(random() & 0xBBFF); });
    if (dtype == DSV4_F32) each(float(), [&] { return normal(random); });
    const size_t scales = size_t(ceil_div(rows, m.scale_block_rows)) * size_t(m.scale_columns);
    if (scale_dtype == DSV4_E8M0)
        for (size_t i = 0; i < scales; ++i) // now and then above what one bf16 factor holds, 2 for FP4 and 128 for FP8
            w.scales.push_back(uint8_t(random() % 8 ? 118 + random() % 8 : 126 + random() % 12));
    if (scale_dtype == DSV4_F32)
        for (size_t i = 0; i < scales; ++i) {
            const float s = 0.01f + float(random() % 100) * 0.001f;
            const auto *p = reinterpret_cast<const uint8_t *>(&s);
            w.scales.insert(w.scales.end(), p, p + 4);
        }
    w.device = m;
    w.device.data = machine.upload(w.bytes);
    if (scale_dtype) w.device.scale = machine.upload(w.scales);
    m.data = w.bytes.data(), m.scale = w.scales.data();
    return w;
}

struct Kind {
    int32_t dtype, scale_dtype, rows, columns;
};

} // namespace

TEST_CASE("a row's product has the same bits whatever kernel computes it") {
    const auto [dtype, scale_dtype, rows, columns] =
        GENERATE(values<Kind>({{DSV4_FP8_E4M3, DSV4_E8M0, 150, 256}, {DSV4_FP8_E4M3, DSV4_E8M0, 140, 1200},
                               {DSV4_FP4_E2M1, DSV4_E8M0, 140, 1184}, {DSV4_FP4_E2M1, DSV4_E8M0, 40, 4480},
                               {DSV4_BF16, 0, 97, 200}, {DSV4_BF16, 0, 130, 1048}, {DSV4_FP8_E4M3, 0, 40, 384},
                               {DSV4_F16, 0, 20, 72}, {DSV4_F32, 0, 20, 333}, {DSV4_FP8_E4M3, DSV4_F32, 40, 384}}));
    const int32_t ldx = (columns + 3) / 4 * 4 + 8, ldy = rows + 5, most = 140, first = 17;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(size_t(most) * size_t(ldx));
    for (float &v : x) v = normal(random);

    std::vector<float> right;
    struct Kit {
        size_t shared;
        int32_t processors;
        bool warpgroups;
    };
    for (const auto &[shared, processors, warpgroups] :
         {Kit{size_t(64) << 10, 200, false}, Kit{size_t(1) << 30, 1, false}, Kit{size_t(1) << 30, 200, true},
          Kit{size_t(1) << 30, 1, true}}) {
        Machine machine(shared, processors, warpgroups);
        std::mt19937 same(2);
        const Weight w = random_weight(machine, dtype, scale_dtype, rows, columns, same);
        const float *given = machine.upload(x);
        for (const int32_t grid : {most, 70, 64, 20, 8, 3, 1}) {
            if (warpgroups && grid <= 64) continue; // as without
            const int32_t live = grid - (grid > 2); // a bucket larger than the step
            const std::vector<float> empty(size_t(grid) * size_t(ldy), -77.0f);
            float *y = machine.upload(empty), *part = machine.upload(empty);
            Product products[2] = {whole(w.device, given, ldx, y, ldy), whole(w.device, given, ldx, part, ldy)};
            products[1].first = first, products[1].rows = rows - first;
            linear(machine.queue(), Rows{grid, machine.upload(std::vector<int32_t>{live}), 1}, products, 2);
            const auto got = machine.download(y, empty.size()), cut = machine.download(part, empty.size());
            if (right.empty()) {
                right = got;
                double difference = 0, size = 0;
                for (int32_t t = 0; t < live; ++t)
                    for (int32_t n = 0; n < rows; ++n) {
                        double sum = 0;
                        for (int32_t k = 0; k < columns; ++k)
                            sum += double(element(w.host, n, k)) * double(x[size_t(t) * size_t(ldx) + size_t(k)]);
                        const double d = double(got[size_t(t) * size_t(ldy) + size_t(n)]) - sum;
                        difference += d * d, size += sum * sum;
                    }
                CHECK(difference / size <
                      (takes_matrix_units(w.device) ? 1e-5 : 1e-12)); // bf16 activations, or float32
            }
            size_t differing = 0, touched = 0;
            for (size_t i = 0; i < empty.size(); ++i) {
                const size_t t = i / size_t(ldy), n = i % size_t(ldy);
                const bool there = t < size_t(live) && n < size_t(rows);
                if (!there) touched += got[i] != -77.0f;
                else differing += std::memcmp(&got[i], &right[i], 4) != 0;
                if (there && n >= size_t(first)) differing += std::memcmp(&got[i], &cut[i - size_t(first)], 4) != 0;
            }
            INFO("type " << dtype << " of " << rows << " x " << columns << ", rows " << live << " of " << grid << ", shared memory " << shared << ", warpgroups " << warpgroups);
            CHECK(differing == 0);
            CHECK(touched == 0);
        }
    }
}
