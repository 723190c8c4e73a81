// What a sampled token may be: the grammar of tool calls and response formats, and the thinking budget.
#pragma once
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "core/engine/sampler.hpp"
#include "core/text/constraint_state.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/tokenizer.hpp"

namespace dsv4 {

/// Compiled grammars of one model, the recent ones kept: an agent sends the same tools with every turn. [any thread]
class Constraints {
  public:
    Constraints(std::shared_ptr<const Tokenizer> tokenizer, int32_t eos);
    std::shared_ptr<const Constraint> compile(const ConstraintOptions &options);
    /// Id of </think>, -1 when the vocabulary has none.
    int32_t think_end() const { return vocabulary_->symbol(Symbol::think_end); }

  private:
    static constexpr size_t kept = 16;
    std::shared_ptr<const Vocabulary> vocabulary_;
    std::mutex mutex_;
    std::list<std::pair<std::string, std::shared_ptr<const Constraint>>> recent_;  // most recently used first
};

class AnswerFilter : public TokenFilter {
  public:
    struct Budget {
        uint32_t tokens = 0;    // of reasoning; 0 = no limit
        int32_t think_end = -1; // the token that closes it
    };
    /// constraint may be NULL; vocab is the model's, which may be larger than the tokenizer's.
    AnswerFilter(std::shared_ptr<const Constraint> constraint, Budget budget, int32_t vocab);

    const uint64_t *allowed() override;
    void accept(int32_t token) override;

  private:
    std::unique_ptr<ConstraintState> state_;
    Budget budget_;
    uint32_t reasoned_ = 0;
    bool reasoning_;
    std::vector<uint64_t> mask_;  // [vocab] bits
};

}  // namespace dsv4
