// From logits to a token: what a sequence wants of its logits, in the terms of the plugin ABI (dsv4_sample_row), and
// the same computed here for devices that do not sample. Nothing here depends on what else the engine does: the random
// numbers of a sequence are a function of its seed and of the position alone.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>
#include "dsv4/dsv4_backend.h"

namespace dsv4 {

struct SamplingOptions {
    float temperature = 0;  // 0: greedy
    float top_p = 0, min_p = 0;
    uint32_t top_k = 0;
    uint64_t seed = 0;
    std::vector<dsv4_logit_bias> logit_bias;
};

/// Throws Error (DSV4_E_INVALID) naming the field.
void check_sampling(const SamplingOptions &options, int32_t vocab);

/// Narrows what may be sampled, token by token: constrained decoding.
class TokenFilter {
  public:
    virtual ~TokenFilter() = default;
    /// One bit per token, least significant first, or NULL when every token is allowed; until accept().
    virtual const uint64_t *allowed() = 0;
    virtual void accept(int32_t token) = 0;
};

/// What dsv4_backend.h calls w, of a distance t under 41 * 2^24.
uint64_t sample_weight(uint32_t t);

class Sampler {
  public:
    explicit Sampler(SamplingOptions options);

    /// `position` is that of the token to be sampled. Points at `allowed` and at the sampler's options.
    dsv4_sample_row row(uint64_t position, const uint64_t *allowed) const;

    /// What a device makes of row() and logits [vocab], which are changed.
    int32_t sample(float *logits, int32_t vocab, uint64_t position, const uint64_t *allowed);

    /// `sampled` where it is a token; throws Error with the reason where it is a DSV4_SAMPLED_*.
    static int32_t checked(int32_t sampled);

    const SamplingOptions &options() const { return options_; }

  private:
    struct Candidate {
        uint32_t t;
        int32_t id;
    };
    SamplingOptions options_;
    dsv4_sample_row row_{};
    std::vector<Candidate> candidates_;
};

}  // namespace dsv4
