// Family ends: ids to streams, streams to logits.
#include <cstring>
#include "backends/reference/hc.hpp"
#include "backends/reference/linear.hpp"
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

dsv4_status embed(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *ends, dsv4_buffer *streams,
                  dsv4_error *err) {
    return guard(err, [&] {
        const int32_t D = ends->shape.hidden, M = ends->shape.streams;
        const Weight &table = ends->need(DSV4_ROLE_EMBED);
        expect_shape(*ends, DSV4_ROLE_EMBED, table, ends->shape.vocab, D);
        for (int32_t t = 0; t < batch->tokens; ++t) {
            const int32_t id = batch->token[size_t(t)];
            if (id < 0 || id >= ends->shape.vocab) fail(DSV4_E_INVALID, "token %d of %d", id, ends->shape.vocab);
            float *X = streams->row(t);
            table.decode_row(id, X);
            for (int32_t j = 1; j < M; ++j) std::memcpy(X + int64_t(j) * D, X, size_t(D) * sizeof(float));
        }
    });
}

dsv4_status head(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *from,
                 const dsv4_buffer *streams, dsv4_buffer *logits, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = ends->shape;
        const int32_t D = s.hidden, rows = batch->outputs;
        const Weight &norm = from->need(DSV4_ROLE_NORM), &w = ends->need(DSV4_ROLE_HEAD);
        expect_shape(*ends, DSV4_ROLE_HEAD, w, s.vocab, D);
        std::vector<float> x(size_t(rows) * size_t(D)), collapsed(static_cast<size_t>(D));
        for (int32_t o = 0; o < rows; ++o) {
            head_collapse(*from, streams->row(batch->output_row[size_t(o)]), collapsed.data());
            rms_norm(from->official, norm, s.rms_eps, collapsed.data(), D, x.data() + int64_t(o) * D);
        }
        product(w, 0, s.vocab, x.data(), D, rows, logits->row(0), logits->width);  // float32, never rounded
    });
}

}  // namespace

const dsv4_ends_ops ends_ops = {sizeof(dsv4_ends_ops), 0, embed, head};

}  // namespace dsv4::reference
