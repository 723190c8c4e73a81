// The way out of attention: groups of heads through wo_a, then wo_b.
#include "backends/gpu/linear.hpp"
#include "backends/gpu/ops.hpp"
#include <algorithm>

namespace dsv4::gpu {

dsv4_status attention_output(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *o,
                             dsv4_buffer *y, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const Matrix &wo_a = block->matrix(DSV4_ROLE_WO_A);
        const int64_t width = int64_t(s.o_groups) * s.o_lora;
        auto *mid = queue->scratch<float>(SCRATCH_A, size_t(batch->grid_tokens) * size_t(width));
        Product groups[most_products];
        for (int32_t g0 = 0; g0 < s.o_groups; g0 += most_products) {
            const int32_t count = std::min(most_products, s.o_groups - g0);
            for (int32_t i = 0; i < count; ++i) {
                const int64_t g = g0 + i;
                Product p = whole(wo_a, o->row(0) + g * wo_a.columns, o->width, mid + g * s.o_lora, width);
                p.first = int32_t(g) * s.o_lora;
                p.rows = s.o_lora;
                p.unrounded = true;
                groups[i] = p;
            }
            linear(*queue, batch->token_rows(), groups, count);
        }
        linear(*queue, batch->token_rows(), whole(block->matrix(DSV4_ROLE_WO_B), mid, y->row(0)));
    });
}

} // namespace dsv4::gpu
