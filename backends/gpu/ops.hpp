// The operator tables, and the operators that they are made of: one function each, in the file of its name. Tables are
// behind functions because hipcc would emit a constant of this kind for the device too.
#pragma once
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

// memory.cu, model.cu, cache.cu, batch.cu, graph.cu
const dsv4_memory_ops &memory_ops();
const dsv4_model_ops &model_ops();
const dsv4_graph_ops &graph_ops();
const dsv4_timer_ops &timer_ops();

dsv4_status block_bytes(dsv4_device *, const dsv4_shape *, const dsv4_block_desc *, uint64_t *device_bytes,
                        uint64_t *host_bytes, dsv4_error *);
dsv4_status block_create(dsv4_device *, const dsv4_shape *, const dsv4_block_desc *, dsv4_block **, dsv4_error *);
void block_release(dsv4_block *);
dsv4_status cache_bytes(dsv4_device *, const dsv4_shape *, int32_t ratio, const dsv4_cache_desc *, uint64_t *per_slot,
                        uint64_t *per_block, dsv4_error *);
dsv4_status cache_create(dsv4_device *, const dsv4_shape *, int32_t ratio, const dsv4_cache_desc *, dsv4_cache **,
                         dsv4_error *);
void cache_release(dsv4_cache *);
dsv4_status cache_read(dsv4_queue *, const dsv4_cache *, int32_t part, int32_t owner, int32_t first, int32_t rows,
                       float *values, dsv4_error *);
dsv4_status batch_create(dsv4_device *, const dsv4_shape *, int32_t tokens, int32_t sequences, int32_t blocks,
                         dsv4_batch **, dsv4_error *);
void batch_release(dsv4_batch *);
dsv4_status batch_set(dsv4_queue *, dsv4_batch *, const dsv4_step *, dsv4_error *);

// ends.cu, hc.cu, mtp.cu
const dsv4_ends_ops &ends_ops();
const dsv4_hc_ops &hc_ops();
const dsv4_mtp_ops &mtp_ops();

// project.cu, compress.cu, select.cu, attend.cu, output.cu
const dsv4_attention_ops &attention_ops(); // device.cu
dsv4_status attention_project(dsv4_queue *, const dsv4_batch *, const dsv4_block *, dsv4_cache *, const dsv4_buffer *x,
                              dsv4_buffer *q, dsv4_buffer *qr, dsv4_error *);
dsv4_status attention_compress(dsv4_queue *, const dsv4_batch *, const dsv4_block *, dsv4_cache *, const dsv4_buffer *x,
                               dsv4_error *);
dsv4_status attention_select(dsv4_queue *, const dsv4_batch *, const dsv4_block *, const dsv4_cache *,
                             const dsv4_buffer *x, const dsv4_buffer *qr, dsv4_buffer *selection, dsv4_error *);
dsv4_status attention_attend(dsv4_queue *, const dsv4_batch *, const dsv4_block *, const dsv4_cache *,
                             const dsv4_buffer *q, const dsv4_buffer *selection, dsv4_buffer *o, dsv4_error *);
dsv4_status attention_output(dsv4_queue *, const dsv4_batch *, const dsv4_block *, const dsv4_buffer *o, dsv4_buffer *y,
                             dsv4_error *);

// sample.cu
const dsv4_sample_ops &sample_ops();

// route.cu, moe.cu
const dsv4_moe_ops &moe_ops(); // device.cu
dsv4_status moe_route(dsv4_queue *, const dsv4_batch *, const dsv4_block *, const dsv4_buffer *x, dsv4_buffer *route,
                      dsv4_error *);
dsv4_status moe_experts(dsv4_queue *, const dsv4_batch *, const dsv4_block *, const dsv4_buffer *x,
                        const dsv4_buffer *route, dsv4_buffer *y, dsv4_error *);

// device.cu
dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *);
dsv4_status device_open(const dsv4_device_options *, dsv4_device **, dsv4_error *);
void device_close(dsv4_device *);
dsv4_status device_query(dsv4_device *, dsv4_device_info *, dsv4_error *);
const void *ops(dsv4_device *, uint32_t family);

} // namespace dsv4::gpu
