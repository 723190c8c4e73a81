// From logits to a token. Nothing here depends on what else the engine does: the random numbers of a sequence are a
// function of its seed and of the position alone.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace dsv4 {

struct SamplingOptions {
    float temperature = 0;  // 0: greedy
    float top_p = 0, min_p = 0;
    uint32_t top_k = 0;
    uint64_t seed = 0;
    std::vector<std::pair<int32_t, float>> logit_bias;
};

/// Throws Error (DSV4_E_INVALID) naming the field.
void check_sampling(const SamplingOptions &options, int32_t vocab);

/// Narrows what may be sampled, token by token: constrained decoding.
class TokenFilter {
  public:
    virtual ~TokenFilter() = default;
    /// One bit per token, least significant first, or NULL when every token is allowed.
    virtual const uint64_t *allowed() = 0;
    virtual void accept(int32_t token) = 0;
};

class Sampler {
  public:
    explicit Sampler(SamplingOptions options) : options_(std::move(options)) {}

    /// logits [vocab] are changed. `position` is that of the token to be sampled. Ties go to the smaller id.
    int32_t sample(float *logits, int32_t vocab, uint64_t position, const uint64_t *allowed);

    const SamplingOptions &options() const { return options_; }

  private:
    SamplingOptions options_;
    std::vector<std::pair<float, int32_t>> candidates_;
};

}  // namespace dsv4
