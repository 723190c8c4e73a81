#include "shapes.hpp"

namespace dsv4::conformance {
namespace {

// Flash in small: the same formats, ratios and proportions, everything a multiple of what the formats need.
Case small() {
    Case c;
    c.name = "small";
    dsv4_shape &s = c.shape;
    DSV4_INIT(s);
    s.vocab = 1024, s.hidden = 256, s.layers = 3, s.streams = 4, s.sinkhorn_iters = 20;
    s.heads = 8, s.head_dim = 128, s.rope_dims = 64, s.q_lora = 128, s.o_groups = 4, s.o_lora = 128, s.window = 16;
    s.index_heads = 4, s.index_dim = 64, s.index_topk = 8;
    s.experts = 8, s.active_experts = 3, s.expert_inter = 128;
    s.rms_eps = 1e-6f, s.hc_eps = 1e-6f, s.routed_scale = 1.5f, s.swiglu_limit = 10;
    c.shared_inter = 128;
    c.ratios = {0, 4, 128};
    c.lengths = {150, 37, 3};
    c.last = 7;
    return c;
}

} // namespace

std::vector<Case> cases(bool full) {
    std::vector<Case> all{small()};

    // Two streams, one Sinkhorn step, head_dim 192, hidden 384, window 5, no clamp, one active expert, FP8 experts,
    // an odd vocabulary, matrices whose rows end inside a scale block, float32 scales.
    Case a = small();
    a.name = "odd-a";
    a.shape.vocab = 333, a.shape.hidden = 384, a.shape.streams = 2, a.shape.sinkhorn_iters = 1;
    a.shape.heads = 6, a.shape.head_dim = 192, a.shape.o_groups = 3, a.shape.window = 5;
    a.shape.index_heads = 3, a.shape.index_dim = 128, a.shape.index_topk = 7;
    a.shape.experts = 5, a.shape.active_experts = 1;
    a.shape.rms_eps = 1e-20f, a.shape.hc_eps = 1e-3f, a.shape.routed_scale = 2.5f, a.shape.swiglu_limit = 0;
    a.formats.experts = DSV4_FP8_E4M3;
    a.formats.dense_scale = DSV4_F32;
    a.ratios = {0, 4};
    a.lengths = {61, 18, 1};
    a.last = 5;
    all.push_back(a);

    // bf16 throughout; sizes that are a multiple of nothing; a clamp that bites; more indexer top-k than entries; an
    // uncommon compression ratio; a shared expert of another width.
    Case b = small();
    b.name = "odd-b";
    b.shape.vocab = 97, b.shape.hidden = 200, b.shape.streams = 4, b.shape.sinkhorn_iters = 3;
    b.shape.heads = 3, b.shape.head_dim = 80, b.shape.rope_dims = 16, b.shape.q_lora = 72, b.shape.o_groups = 1;
    b.shape.o_lora = 40, b.shape.window = 12;
    b.shape.index_heads = 2, b.shape.index_dim = 32, b.shape.index_topk = 512;
    b.shape.experts = 9, b.shape.active_experts = 2, b.shape.expert_inter = 56;
    b.shape.rms_eps = 1e-5f, b.shape.hc_eps = 1e-2f, b.shape.routed_scale = 1, b.shape.swiglu_limit = 0.7f;
    b.formats = {DSV4_BF16, DSV4_BF16, DSV4_BF16, DSV4_E8M0};
    b.shared_inter = 104;
    b.ratios = {0, 4, 16};
    b.lengths = {83, 20, 2};
    b.last = 6;
    all.push_back(b);

    // float32 and float16 weights: nothing published has them, and the ABI allows them.
    Case f = b;
    f.name = "odd-c";
    f.shape.rope_dims = 16, f.shape.streams = 3, f.shape.window = 1, f.shape.sinkhorn_iters = 7;
    f.formats = {DSV4_F16, DSV4_F32, DSV4_F32, DSV4_E8M0};
    f.ratios = {4};
    f.lengths = {29, 8, 4};
    f.last = 4;
    all.push_back(f);

    // The published formats at the smallest widths that have them all: for what runs slowly.
    Case t = small();
    t.name = "tiny";
    t.shape.vocab = 96, t.shape.hidden = 128, t.shape.streams = 2, t.shape.sinkhorn_iters = 4;
    t.shape.heads = 2, t.shape.head_dim = 96, t.shape.rope_dims = 32, t.shape.q_lora = 64, t.shape.o_groups = 2;
    t.shape.o_lora = 32, t.shape.window = 6;
    t.shape.index_heads = 2, t.shape.index_dim = 32, t.shape.index_topk = 3;
    t.shape.experts = 4, t.shape.active_experts = 2, t.shape.expert_inter = 64;
    t.shared_inter = 64;
    t.ratios = {4};
    t.lengths = {19, 6, 1};
    t.last = 3;
    all.push_back(t);

    if (!full) return all;

    Case flash;
    flash.name = "flash";
    flash.wide = true;
    dsv4_shape &s = flash.shape;
    DSV4_INIT(s);
    s.vocab = 129280, s.hidden = 4096, s.layers = 43, s.streams = 4, s.sinkhorn_iters = 20;
    s.heads = 64, s.head_dim = 512, s.rope_dims = 64, s.q_lora = 1024, s.o_groups = 8, s.o_lora = 1024, s.window = 128;
    s.index_heads = 64, s.index_dim = 128, s.index_topk = 512;
    s.experts = 8, s.active_experts = 6, s.expert_inter = 2048;
    s.rms_eps = 1e-6f, s.hc_eps = 1e-6f, s.routed_scale = 1.5f, s.swiglu_limit = 10;
    flash.shared_inter = 2048;
    flash.ratios = {0, 4, 128};
    flash.lengths = {20, 5, 1};
    flash.last = 4;
    all.push_back(flash);

    Case pro = flash;
    pro.name = "pro";
    pro.shape.hidden = 7168, pro.shape.layers = 61, pro.shape.heads = 128, pro.shape.q_lora = 1536;
    pro.shape.o_groups = 16, pro.shape.index_topk = 1024, pro.shape.expert_inter = 3072, pro.shape.routed_scale = 2.5f;
    pro.shared_inter = 3072;
    pro.ratios = {4, 128};
    pro.lengths = {9, 2};
    pro.last = 2;
    all.push_back(pro);
    return all;
}

} // namespace dsv4::conformance
