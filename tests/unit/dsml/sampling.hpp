// Sampling from uniform logits under a constraint: at random at first, then whatever brings the end nearer.
#pragma once
#include <random>
#include <string>
#include <vector>

#include "core/text/constraint_state.hpp"

namespace dsv4::test {

inline std::vector<uint32_t> tokens_of(const TokenMask &mask) {
    std::vector<uint32_t> out;
    for (uint32_t t = 0; t < mask.size() * 64; ++t)
        if (mask_has(mask, t)) out.push_back(t);
    return out;
}

struct Sample {
    std::string text;   ///< control tokens as their texts
    std::string error;  ///< empty = reached the end
};

inline Sample sample(const Constraint &constraint, std::mt19937 &random, size_t budget) {
    Sample out;
    ConstraintState state = constraint.start();
    const Vocabulary &vocabulary = constraint.vocabulary();
    for (size_t step = 0; !state.is_terminal(); ++step) {
        const std::vector<uint32_t> tokens = tokens_of(*state.allowed());
        if (tokens.empty()) {
            out.error = "no token is allowed";
            return out;
        }
        if (step > budget + 20000) {
            out.error = "it does not end";
            return out;
        }
        uint32_t token = tokens[random() % tokens.size()];
        if (out.text.size() > budget) {
            // Some byte or control token always realizes least_remaining().
            uint32_t best = UINT32_MAX;
            for (const uint32_t t : tokens) {
                if (vocabulary.bytes(t).size() != 1 && !vocabulary.added(t)) continue;
                ConstraintState next = state;
                next.advance(t);
                const uint32_t left = next.is_terminal() ? 0 : next.least_remaining();
                if (left < best) best = left, token = t;
            }
        }
        state.advance(token);
        out.text += vocabulary.bytes(token);
    }
    return out;
}

}  // namespace dsv4::test
