// The indexer's choice: the best of a list exactly, ties to the earlier, in the order of the list.
#include "backends/gpu/choose.hpp"
#include "backends/gpu/runtime.hpp"
#include "tests/catch.hpp"
#include <algorithm>
#include <random>
#include <vector>

using namespace dsv4::gpu;

namespace {

__global__ void __launch_bounds__(choose_threads) choose_one(const float *scores, const int32_t *index, int32_t count,
                                                             int32_t wanted, int32_t *out, float *out_scores) {
    choose(scores, index, 100, count, wanted, out, out_scores);
}

} // namespace

TEST_CASE("the best scores are chosen, ties to the earlier") {
    const int32_t count = GENERATE(600, 2048, 2049, 8192, 8193, 20000), wanted = GENERATE(1, 7, 512),
                  kind = GENERATE(0, 1, 2);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> scores(size_t(count), 0.0f);
    for (float &s : scores)
        s = kind == 0   ? normal(random)
            : kind == 1 ? float(int(random() % 5) - 2)                      // nearly all tie
                        : (random() % 100 ? 0.0f : normal(random) * 1e-3f); // the threshold may be 0
    std::vector<int32_t> index(size_t(count), 0), order(index);
    for (int32_t i = 0; i < count; ++i) index[size_t(i)] = 3 * i + 1, order[size_t(i)] = i;
    std::partial_sort(order.begin(), order.begin() + wanted, order.end(), [&](int32_t a, int32_t b) {
        const float x = scores[size_t(a)], y = scores[size_t(b)];
        return x != y ? x > y : a < b;
    });
    std::sort(order.begin(), order.begin() + wanted);

    const Stream stream = stream_create();
    const auto bytes = size_t(count) * 4;
    auto *memory = static_cast<uint8_t *>(device_malloc(4 * bytes, "a test"));
    auto *given = reinterpret_cast<float *>(memory), *out_scores = reinterpret_cast<float *>(memory + bytes);
    auto *given_index = reinterpret_cast<int32_t *>(memory + 2 * bytes),
         *out = reinterpret_cast<int32_t *>(memory + 3 * bytes);
    copy_to_device(given, scores.data(), bytes, stream);
    copy_to_device(given_index, index.data(), bytes, stream);
    for (const bool named : {false, true}) {
        launch(choose_one, dim3(1), choose_threads, 0, stream, given, named ? given_index : nullptr, count, wanted, out,
               out_scores);
        std::vector<int32_t> got(static_cast<size_t>(wanted));
        std::vector<float> got_scores(got.size());
        copy_to_host(got.data(), out, got.size() * 4, stream);
        copy_to_host(got_scores.data(), out_scores, got.size() * 4, stream);
        size_t wrong = 0;
        for (int32_t i = 0; i < wanted; ++i) {
            const int32_t e = order[size_t(i)];
            wrong += got[size_t(i)] != (named ? index[size_t(e)] : 100 + e);
            wrong += got_scores[size_t(i)] != scores[size_t(e)];
        }
        CHECK(wrong == 0);
    }
    device_free(memory);
    stream_release(stream);
}
