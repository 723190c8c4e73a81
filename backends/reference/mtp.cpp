// Family mtp: what enters an MTP block (MODEL.md "MTP").
#include "backends/reference/linear.hpp"
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

dsv4_status join(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *block,
                 const dsv4_buffer *streams, dsv4_buffer *out, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const bool official = block->official;
        const int32_t T = batch->tokens, M = s.streams, D = s.hidden;
        const Weight &table = ends->need(DSV4_ROLE_EMBED), &e_proj = block->need(DSV4_ROLE_E_PROJ),
                     &h_proj = block->need(DSV4_ROLE_H_PROJ), &e_norm = block->need(DSV4_ROLE_E_NORM),
                     &h_norm = block->need(DSV4_ROLE_H_NORM);
        expect_shape(*block, DSV4_ROLE_E_PROJ, e_proj, D, D);
        expect_shape(*block, DSV4_ROLE_H_PROJ, h_proj, D, D);
        std::vector<float> row(static_cast<size_t>(D)), e(size_t(T) * size_t(D)), e_out(e.size()),
            h(size_t(T) * size_t(M) * size_t(D));
        for (int32_t t = 0; t < T; ++t) {
            const int32_t id = batch->token[size_t(t)];
            if (id < 0 || id >= s.vocab) fail(DSV4_E_INVALID, "token %d of %d", id, s.vocab);
            table.decode_row(id, row.data());
            rms_norm(official, e_norm, s.rms_eps, row.data(), D, e.data() + int64_t(t) * D);
            for (int32_t m = 0; m < M; ++m)
                rms_norm(official, h_norm, s.rms_eps, streams->row(t) + int64_t(m) * D, D,
                         h.data() + (int64_t(t) * M + m) * D);
        }
        linear(official, e_proj, e.data(), T, e_out.data());
        linear(official, h_proj, h.data(), T * M, out->row(0));
        for (int32_t t = 0; t < T; ++t)
            for (int64_t i = 0; i < int64_t(M) * D; ++i) {
                float &v = out->row(t)[i];
                v = bf(official, e_out[size_t(int64_t(t) * D + i % D)] + v);
            }
    });
}

}  // namespace

const dsv4_mtp_ops mtp_ops = {sizeof(dsv4_mtp_ops), 0, join};

}  // namespace dsv4::reference
