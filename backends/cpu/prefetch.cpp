// Hash layers know their experts from the token ids alone: what a step will read is known when its batch is.
#include <algorithm>
#include <cstring>
#include "backends/cpu/expert_store.hpp"
#include "backends/cpu/objects.hpp"

namespace dsv4::cpu {

namespace {

int64_t expert_of(const dsv4_block &b, int64_t id, int32_t j) {
    const uint8_t *at = b.tid2eid + (id * b.shape.active_experts + j) * b.tid2eid_bytes;
    int64_t wide = 0;
    int32_t narrow = 0;
    if (b.tid2eid_bytes == 8) std::memcpy(&wide, at, 8);
    else std::memcpy(&narrow, at, 4);
    return b.tid2eid_bytes == 8 ? wide : narrow;
}

} // namespace

void register_hash_block(dsv4_device &device, dsv4_block &block) {
    if (block.kind != DSV4_BLOCK_LAYER || !block.tid2eid || block.stored.empty()) return;
    const auto before = [](const dsv4_block *a, const dsv4_block *b) { return a->index < b->index; };
    auto &all = device.hash_blocks;
    all.insert(std::upper_bound(all.begin(), all.end(), &block, before), &block);
    block.registered_at = &device;
}

void forget_hash_block(dsv4_device &device, const dsv4_block &block) {
    auto &all = device.hash_blocks;
    all.erase(std::remove(all.begin(), all.end(), &block), all.end());
}

void expect_hash_experts(dsv4_device &device, const dsv4_batch &batch) {
    if (device.hash_blocks.empty()) return;
    std::vector<int64_t> wanted;
    for (const dsv4_block *b : device.hash_blocks) {
        std::vector<bool> chosen(size_t(b->shape.experts), false);
        for (const int32_t id : batch.token) {
            if (id < 0 || id >= b->tid2eid_rows) continue; // an error, which route() reports
            for (int32_t j = 0; j < b->shape.active_experts; ++j)
                if (const int64_t e = expert_of(*b, id, j); e >= 0 && e < b->shape.experts) chosen[size_t(e)] = true;
        }
        for (size_t e = 0; e < chosen.size(); ++e)
            if (chosen[e]) wanted.push_back(b->stored[e]);
    }
    device.store->expect(std::move(wanted));
}

} // namespace dsv4::cpu
