// The ragged batch of one step, on the host: what dsv4_step points into.
#pragma once
#include <cstdint>
#include <vector>
#include "dsv4/dsv4_backend.h"

namespace dsv4 {

class Step {
  public:
    /// Tokens at positions [start, start + count) of one sequence. `outputs` are offsets into them, ascending, whose
    /// logits are wanted. The block table is copied.
    void add(const int32_t *tokens, int32_t count, int32_t start, int32_t slot, const std::vector<int32_t> &blocks,
             const std::vector<int32_t> &outputs) {
        const auto sequence = int32_t(slot_.size());
        for (const int32_t o : outputs) output_row_.push_back(int32_t(token_.size()) + o);
        for (int32_t i = 0; i < count; ++i) {
            token_.push_back(tokens[i]);
            position_.push_back(start + i);
            sequence_.push_back(sequence);
        }
        first_.push_back(int32_t(token_.size()));
        slot_.push_back(slot);
        tables_.push_back(blocks);
    }

    int32_t tokens() const { return int32_t(token_.size()); }
    int32_t outputs() const { return int32_t(output_row_.size()); }

    /// Valid until the next add().
    dsv4_step view() {
        size_t width = 0;
        for (const auto &t : tables_) width = t.size() > width ? t.size() : width;
        block_table_.assign(tables_.size() * width, 0);
        for (size_t s = 0; s < tables_.size(); ++s)
            std::copy(tables_[s].begin(), tables_[s].end(), block_table_.begin() + ptrdiff_t(s * width));
        dsv4_step step;
        DSV4_INIT(step);
        step.tokens = tokens();
        step.sequences = int32_t(slot_.size());
        step.blocks_per_sequence = int32_t(width);
        step.outputs = outputs();
        step.token = token_.data();
        step.position = position_.data();
        step.sequence = sequence_.data();
        step.first = first_.data();
        step.slot = slot_.data();
        step.block_table = block_table_.data();
        step.output_row = output_row_.data();
        return step;
    }

  private:
    std::vector<int32_t> token_, position_, sequence_, first_{0}, slot_, block_table_, output_row_;
    std::vector<std::vector<int32_t>> tables_;
};

}  // namespace dsv4
