// What is wanted of a step's logits, on the device: filled by sampler.cu, read by the kernels of sample.cu.
#pragma once
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

/// One row of dsv4_sample_row as kernels read it.
struct Wish {
    int32_t kind;
    uint32_t top_k, top_p;
    float scale;
    uint64_t least, random;
    int32_t masked;
    int32_t first_bias, end_bias;
    int32_t unused;
};

/// What a set() brings to the device, but the masks.
struct SamplerView {
    const int32_t *rows;         // that were set
    const Wish *wishes;          // [max_rows]
    const dsv4_logit_bias *bias; // [max_biases], by row, then by token
    const uint64_t *allowed;     // [max_rows, words]
    int32_t words;
    int32_t *ids; // [max_rows]

    __device__ __forceinline__ int32_t kind(int32_t row) const {
        return row < *rows ? wishes[row].kind : int32_t(DSV4_SAMPLE_NOTHING);
    }
};

// sampler.cu
dsv4_status sampler_create(dsv4_device *, const dsv4_shape *, int32_t max_rows, int32_t max_biases, dsv4_sampler **,
                           dsv4_error *);
void sampler_release(dsv4_sampler *);
dsv4_status sampler_set(dsv4_queue *, dsv4_sampler *, int32_t rows, const dsv4_sample_row *, uint32_t row_stride,
                        dsv4_error *);
dsv4_status sampler_read(dsv4_queue *, const dsv4_sampler *, int32_t rows, int32_t *id, dsv4_error *);

} // namespace dsv4::gpu

struct dsv4_sampler {
    dsv4_sampler(const dsv4_device &device, const dsv4_shape &shape, int32_t rows, int32_t biases);
    ~dsv4_sampler();
    void set(dsv4_queue &queue, int32_t rows, const dsv4_sample_row *row, uint32_t stride);

    int32_t vocab, max_rows, max_biases;
    bool is_set = false; // before, its memory says nothing
    dsv4::gpu::SamplerView view{};
    dsv4::gpu::Memory memory, result; // result: pinned

  private:
    size_t wishes_at_, bias_at_, allowed_at_, end_; // in bytes
    dsv4::gpu::Memory staging_[2];                  // pinned, in turn, as of a batch
    dsv4::gpu::Event uploaded_[2] = {};
    bool used_[2] = {};
    int next_ = 0;
};
