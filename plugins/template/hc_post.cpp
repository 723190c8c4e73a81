// X'_k = post_k y + sum_j comb[j][k] X_j, in place, one tile of channels at a time: the tile of all streams is held
// while it is rewritten, so no second copy of the streams is made.
#include "backends/reference/linear.hpp"
#include "backends/reference/objects.hpp"
#include "plugins/template/operators.hpp"
#include <algorithm>

namespace dsv4::vendor {

dsv4_status hc_post(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                    dsv4_buffer *streams, dsv4_error *err) {
    return reference::guard(err, [&] {
        constexpr int64_t tile = 64, most_streams = 8;
        const int64_t D = y->width, M = streams->width / D;
        if (M > most_streams) reference::fail(DSV4_E_UNSUPPORTED, "hc.post: %d streams", static_cast<int>(M));
        const bool official = queue->device->official;
        float old[most_streams][tile];
        for (int32_t t = 0; t < batch->tokens; ++t) {
            const float *post = mix->row(t), *comb = post + M, *yt = y->row(t);
            float *X = streams->row(t);
            for (int64_t c = 0; c < D; c += tile) {
                const int64_t n = std::min(tile, D - c);
                for (int64_t j = 0; j < M; ++j) std::copy_n(X + j * D + c, n, old[j]);
                for (int64_t k = 0; k < M; ++k)
                    for (int64_t i = 0; i < n; ++i) {
                        // Always in this order of j: a sum that depended on the tile would break row independence.
                        float sum = post[k] * yt[c + i];
                        for (int64_t j = 0; j < M; ++j) sum += comb[j * M + k] * old[j][i];
                        X[k * D + c + i] = reference::bf(official, sum);
                    }
            }
        }
    });
}

} // namespace dsv4::vendor
