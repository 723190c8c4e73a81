// The dialect of the kernels: what portable.hpp promises, wherever this is compiled for. In the emulation also that it
// notices what a card would not survive.
#include "backends/gpu/portable.hpp"
#include "backends/gpu/mma_by_shuffles.hpp"
#include "tests/catch.hpp"
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace dsv4::gpu;

namespace {

/// Runs body(Stream) on device memory that starts as `values` and gives back what is there afterwards.
template <class T, class Body> std::vector<T> on_memory(std::vector<T> values, Body &&body) {
    const size_t bytes = values.size() * sizeof(T);
    auto *p = static_cast<T *>(device_malloc(bytes, "a test"));
    const Stream stream = stream_create();
    copy_to_device(p, values.data(), bytes, stream);
    stream_wait(stream); // the body may use another
    try {
        body(p, stream);
        copy_to_host(values.data(), p, bytes, stream);
    } catch (...) {
        stream_release(stream);
        device_free(p);
        throw;
    }
    stream_release(stream);
    device_free(p);
    return values;
}

__global__ void exchange(int32_t *out) {
    const int lane = lane_of_subgroup(), thread = linear_thread();
    int32_t *row = out + (blockIdx.x * blockDim.x + thread) * 6;
    row[0] = shuffle(thread * 10, (lane + 5) % 32);
    row[1] = shuffle_xor(thread, 3);
    row[2] = subgroup_sum(thread);
    row[3] = subgroup_max(lane ^ 21);
    row[4] = int32_t(subgroup_ballot(lane % 3 == 0));
    row[5] = subgroup_min(lane - 40);
}

__global__ void reverse_block(float *x) {
    float *shared = dynamic_shared<float>();
    const int n = int(blockDim.x), t = int(threadIdx.x);
    shared[t] = x[blockIdx.x * n + t];
    __syncthreads();
    x[blockIdx.x * n + t] = shared[n - 1 - t];
}

__global__ void sum_of_block(float *x, int32_t n) {
    DSV4_SHARED(float, scratch, [32]);
    float sum = 0;
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) sum += x[i];
    const float all = block_sum(sum, scratch);
    __syncthreads();
    const float top = block_max(sum, scratch);
    __syncthreads();
    if (threadIdx.x == 0) x[0] = all, x[1] = top;
}

// a [16, 16], b [16, 8] row-major bf16 -> c [16, 8]
__global__ void product(const uint16_t *a, const uint16_t *b, float *c, bool by_shuffles) {
    const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
    const auto pair = [](uint16_t low, uint16_t high) { return uint32_t(low) | uint32_t(high) << 16; };
    uint32_t fa[4], fb[2];
    for (int i = 0; i < 4; ++i) {
        const uint16_t *p = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        fa[i] = pair(p[0], p[1]);
    }
    for (int i = 0; i < 2; ++i) fb[i] = pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
    float fc[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
    if (by_shuffles) mma_by_shuffles(fc, fa, fb);
    else mma_bf16_m16n8k16(fc, fa, fb);
    c[g * 8 + 2 * t] = fc[0], c[g * 8 + 2 * t + 1] = fc[1];
    c[(g + 8) * 8 + 2 * t] = fc[2], c[(g + 8) * 8 + 2 * t + 1] = fc[3];
}

__global__ void through_shared(uint4 *x) {
    uint4 *shared = dynamic_shared<uint4>();
    const int t = int(threadIdx.x);
    copy_async_16(shared + t, x + t);
    copy_commit();
    copy_async_16(shared + 32 + t, x + 32 + t);
    copy_commit();
    copy_wait<1>();
    sync_subgroup();
    const uint4 first = shared[31 - t];
    copy_wait<0>();
    sync_subgroup();
    const uint4 second = shared[63 - t];
    x[t] = second, x[32 + t] = first;
}

__global__ void rounded(float *x, uint32_t *bits) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    bits[i] = pack_bf16(x[i], -x[i]);
}

__global__ void add_one(int32_t *x) {
    if (threadIdx.x == 0) atomicAdd(x, 1);
}

} // namespace

TEST_CASE("shuffles, sums and ballots of a subgroup") {
    constexpr int threads = 96, blocks = 3;
    const auto out = on_memory(std::vector<int32_t>(blocks * threads * 6, -7), [](int32_t *p, Stream stream) {
        launch(exchange, dim3(blocks), dim3(threads), 0, stream, p);
    });
    for (int i = 0; i < blocks * threads; ++i) {
        const int thread = i % threads, lane = thread % 32, base = thread - lane;
        const int32_t *row = &out[size_t(i) * 6];
        REQUIRE(row[0] == (base + (lane + 5) % 32) * 10);
        REQUIRE(row[1] == (thread ^ 3));
        REQUIRE(row[2] == 32 * base + 496);
        REQUIRE(row[3] == 31);
        REQUIRE(uint32_t(row[4]) == 0x49249249u);
        REQUIRE(row[5] == -40);
    }
}

TEST_CASE("blocks meet at barriers") {
    std::vector<float> x(4 * 128);
    for (size_t i = 0; i < x.size(); ++i) x[i] = float(i);
    const auto out = on_memory(x, [](float *p, Stream stream) {
        launch(reverse_block, dim3(4), dim3(128), 128 * sizeof(float), stream, p);
    });
    for (int b = 0; b < 4; ++b)
        for (int t = 0; t < 128; ++t) REQUIRE(out[size_t(b * 128 + t)] == float(b * 128 + 127 - t));
    std::vector<float> ones(1000, 1.0f);
    const auto sum = on_memory(ones, [](float *p, Stream stream) {
        launch(sum_of_block, dim3(1), dim3(256), 0, stream, p, 1000);
    });
    REQUIRE(sum[0] == 1000.0f);
    REQUIRE(sum[1] == 4.0f);
}

TEST_CASE("mma equals a plain product") {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> c(128);
    for (auto &v : a) v = to_bf16(normal(random));
    for (auto &v : b) v = to_bf16(normal(random));
    for (auto &v : c) v = normal(random);
    for (const bool by_shuffles : {false, true}) { // the second is what cards without the instruction run
        std::vector<float> out;
        on_memory(a, [&](uint16_t *pa, Stream) {
            on_memory(b, [&](uint16_t *pb, Stream) {
                out = on_memory(c, [&](float *pc, Stream stream) {
                    launch(product, dim3(1), dim3(32), 0, stream, pa, pb, pc, by_shuffles);
                });
            });
        });
        for (int row = 0; row < 16; ++row)
            for (int n = 0; n < 8; ++n) {
                double sum = c[size_t(row * 8 + n)];
                for (int k = 0; k < 16; ++k)
                    sum += double(from_bf16(a[size_t(row * 16 + k)])) * from_bf16(b[size_t(k * 8 + n)]);
                REQUIRE(std::fabs(out[size_t(row * 8 + n)] - sum) < 1e-4);
            }
    }
}

TEST_CASE("asynchronous copies land where they are waited for") {
    std::vector<uint4> x(64);
    for (uint32_t i = 0; i < 64; ++i) x[i] = {i, 2 * i, 3 * i, ~i};
    const auto out = on_memory(x, [](uint4 *p, Stream stream) {
        launch(through_shared, dim3(1), dim3(32), 64 * sizeof(uint4), stream, p);
    });
    for (uint32_t i = 0; i < 64; ++i) {
        REQUIRE(out[i].x == 63 - i);
        REQUIRE(out[i].w == ~(63 - i));
    }
}

TEST_CASE("bf16 rounds to nearest even") {
    const std::vector<float> x = {1.0f, 1.00390625f, 1.01171875f, 3.4e38f, 1e-40f, 0.1f, -2.5f, 65504.0f};
    std::vector<float> padded(32, 0.0f);
    std::copy(x.begin(), x.end(), padded.begin());
    std::vector<uint32_t> bits;
    on_memory(padded, [&](float *p, Stream) {
        bits = on_memory(std::vector<uint32_t>(32), [&](uint32_t *q, Stream stream) {
            launch(rounded, dim3(1), dim3(32), 0, stream, p, q);
        });
    });
    REQUIRE((bits[0] & 0xFFFF) == 0x3F80);
    REQUIRE((bits[1] & 0xFFFF) == 0x3F80); // half way, to the even one below
    REQUIRE((bits[2] & 0xFFFF) == 0x3F82); // half way, to the even one above
    REQUIRE((bits[3] & 0xFFFF) == 0x7F80);
    for (size_t i = 0; i < 32; ++i) REQUIRE(bits[i] >> 16 == ((bits[i] & 0xFFFF) ^ 0x8000));
}

TEST_CASE("a recorded graph runs when it is launched, as often as it is") {
    const auto out = on_memory(std::vector<int32_t>(1, 5), [](int32_t *p, Stream stream) {
        capture_begin(stream);
        launch(add_one, dim3(3), dim3(32), 0, stream, p);
        launch(add_one, dim3(1), dim3(32), 0, stream, p);
        const Graph graph = capture_end(stream);
        stream_wait(stream);
        for (int i = 0; i < 3; ++i) graph_launch(graph, stream);
        stream_wait(stream);
        graph_release(graph);
    });
    REQUIRE(out[0] == 5 + 3 * 4);
}

TEST_CASE("a grid of nothing is no launch, memory that is not there says how much there is") {
    const auto out = on_memory(std::vector<int32_t>(1, 5), [](int32_t *p, Stream stream) {
        launch(add_one, dim3(0), dim3(32), 0, stream, p);
    });
    REQUIRE(out[0] == 5);
    try {
        device_free(device_malloc(size_t(1) << 46, "a cache"));
        FAIL("64 TiB were there");
    } catch (const Failure &f) {
        REQUIRE(f.status == DSV4_E_NO_MEMORY);
        const std::string text = f.what();
        REQUIRE(text.find("a cache") != std::string::npos);
        REQUIRE(text.find("70368744177664") != std::string::npos);
        REQUIRE(text.find("free") != std::string::npos);
    }
}

#if defined(DSV4_GPU_EMULATED)
namespace {

__global__ void half_a_shuffle(int32_t *x) {
    if (threadIdx.x < 16) x[0] = shuffle(1, 0);
}
__global__ void two_meetings(int32_t *x) {
    if (threadIdx.x < 16) x[0] = shuffle(1, 0);
    else sync_subgroup();
}
__global__ void early_return(int32_t *x) {
    if (threadIdx.x >= 32) return;
    __syncthreads();
    x[0] = 1;
}
__global__ void unwritten(float *x) {
    DSV4_SHARED(float, still, [4]);
    float *moving = dynamic_shared<float>();
    if (threadIdx.x == 0) x[blockIdx.x] = still[1], x[2 + blockIdx.x] = moving[3];
    __syncthreads();
    if (threadIdx.x == 0) still[1] = moving[3] = 1.0f;
}
__global__ void misaligned(uint4 *x) {
    copy_async_16(dynamic_shared<uint8_t>() + 8, x);
    copy_commit();
}
// The race: a subgroup reads what another wrote, without a barrier between.
__global__ void racing(int32_t *x) {
    DSV4_SHARED(int32_t, last, [1]);
    if (threadIdx.x % 32 == 0) last[0] = int32_t(threadIdx.x);
    sync_subgroup();
    if (threadIdx.x % 32 == 1) atomicAdd(x, last[0] % 100);
    __syncthreads();
    if (threadIdx.x == 0) x[1] = last[0];
}

std::string failure_of(void (*kernel)(int32_t *), unsigned threads) {
    try {
        on_memory(std::vector<int32_t>(4),
                  [&](int32_t *p, Stream stream) { launch(kernel, dim3(2), dim3(threads), 0, stream, p); });
    } catch (const Failure &f) {
        return f.what();
    }
    return "";
}

} // namespace

TEST_CASE("emulation: threads that do not meet are told") {
    CHECK(failure_of(half_a_shuffle, 32).find("16 threads of a subgroup never come") != std::string::npos);
    CHECK(failure_of(two_meetings, 32).find("sync_subgroup") != std::string::npos);
    CHECK(failure_of(early_return, 64).find("wait at __syncthreads") != std::string::npos);
    CHECK(failure_of(half_a_shuffle, 33).find("a block of 33 threads") != std::string::npos);
    // and the next launch is none the worse
    const auto out = on_memory(std::vector<int32_t>(1, 0), [](int32_t *p, Stream stream) {
        launch(add_one, dim3(3), dim3(64), 0, stream, p);
    });
    CHECK(out[0] == 3);
}

TEST_CASE("emulation: what nobody wrote is NaN") {
    const auto out = on_memory(std::vector<float>(4, 0.0f), [](float *p, Stream stream) {
        launch(unwritten, dim3(2), dim3(32), 16, stream, p);
    });
    for (const float v : out) CHECK(std::isnan(v));
    float fresh = 0;
    void *p = device_malloc(4, "a test");
    const Stream stream = stream_create();
    copy_to_host(&fresh, p, 4, stream);
    CHECK(std::isnan(fresh));
    stream_release(stream);
    device_free(p);
}

TEST_CASE("emulation: sizes and alignments that no card takes") {
    CHECK_THROWS_AS(on_memory(std::vector<uint4>(64),
                              [](uint4 *p, Stream stream) { launch(misaligned, dim3(1), dim3(32), 1024, stream, p); }),
                    Failure);
    CHECK_THROWS_AS(on_memory(std::vector<float>(64),
                              [](float *p, Stream stream) {
                                  launch(reverse_block, dim3(1), dim3(32), emulated::shared_limit() + 1, stream, p);
                              }),
                    Failure);
}

TEST_CASE("emulation: work happens when it is waited for, from memory as it was then or is pinned now") {
    auto *device = static_cast<int32_t *>(device_malloc(8, "a test"));
    auto *pinned = static_cast<int32_t *>(pinned_malloc(4, "a test"));
    const Stream stream = stream_create();
    int32_t plain = 1, seen[2] = {};
    *pinned = 1;
    copy_to_device(device, &plain, 4, stream);
    copy_pinned(device + 1, pinned, 4, stream);
    plain = *pinned = 2;
    copy_to_host(seen, device, 8, stream);
    CHECK(seen[0] == 1);
    CHECK(seen[1] == 2);
    stream_release(stream);
    pinned_free(pinned);
    device_free(device);
}

TEST_CASE("emulation: another order shows a race, and a lost device says so") {
    std::vector<std::vector<int32_t>> seen;
    for (const uint64_t seed : {0, 1, 2, 3, 4, 5, 6, 7}) {
        emulated::set_order(seed);
        seen.push_back(on_memory(std::vector<int32_t>(2, 0), [](int32_t *p, Stream stream) {
            launch(racing, dim3(1), dim3(128), 0, stream, p);
        }));
        const auto right = on_memory(std::vector<int32_t>(96 * 6, 0), [](int32_t *p, Stream stream) {
            launch(exchange, dim3(1), dim3(96), 0, stream, p);
        });
        CHECK(right[6 * 40 + 2] == 32 * 32 + 496);
    }
    emulated::set_order(0);
    bool same = true;
    for (const auto &s : seen) same = same && s == seen[0];
    CHECK_FALSE(same);

    emulated::lose_device_after(0);
    try {
        on_memory(std::vector<int32_t>(4),
                  [](int32_t *p, Stream stream) { launch(add_one, dim3(1), dim3(32), 0, stream, p); });
        FAIL("a lost device ran a kernel");
    } catch (const Failure &f) {
        CHECK(f.status == DSV4_E_DEVICE);
    }
    emulated::lose_device_after(-1);
}
#endif
