#include "core/engine/filter.hpp"
#include <algorithm>

namespace dsv4 {

Constraints::Constraints(std::shared_ptr<const Tokenizer> tokenizer, int32_t eos) {
    VocabularySource source;
    const size_t n = tokenizer->vocab_size();
    source.tokens.resize(n);
    source.added.resize(n);
    for (size_t i = 0; i < n; ++i) {
        const auto id = TokenId(i);
        if (!tokenizer->has_token(id)) continue;
        source.tokens[i] = tokenizer->token_bytes(id);
        source.added[i] = tokenizer->is_added(id);
    }
    source.dsml = tokenizer->find_token(kDsmlToken);
    source.think_end = tokenizer->find_token(kThinkEnd);
    source.eos = eos;
    vocabulary_ = std::make_shared<const Vocabulary>(std::move(source));
}

std::shared_ptr<const Constraint> Constraints::compile(const ConstraintOptions &o) {
    std::string key = std::to_string(int(o.tool_choice)) + (o.thinking ? "t" : "c") + (o.parallel_calls ? "p" : "s");
    for (const std::string *part : {&o.tool_name, &o.response_format, &o.tools})
        key += std::to_string(part->size()) + ":" + *part;
    {
        const std::lock_guard lock(mutex_);
        const auto found = std::find_if(recent_.begin(), recent_.end(), [&](const auto &r) { return r.first == key; });
        if (found != recent_.end()) {
            recent_.splice(recent_.begin(), recent_, found);
            return found->second;
        }
    }
    auto made = Constraint::compile(vocabulary_, o);
    const std::lock_guard lock(mutex_);
    recent_.emplace_front(std::move(key), made);
    if (recent_.size() > kept) recent_.pop_back();
    return made;
}

AnswerFilter::AnswerFilter(std::shared_ptr<const Constraint> constraint, Budget budget, int32_t vocab)
    : state_(constraint ? std::make_unique<ConstraintState>(constraint->start()) : nullptr), budget_(budget),
      reasoning_(budget.tokens > 0), mask_(size_t((vocab + 63) / 64)) {}

const uint64_t *AnswerFilter::allowed() {
    if (reasoning_ && reasoned_ >= budget_.tokens) {
        std::fill(mask_.begin(), mask_.end(), 0);
        mask_[size_t(budget_.think_end) / 64] = uint64_t{1} << (budget_.think_end % 64);
        return mask_.data();
    }
    if (!state_) return nullptr;
    const auto allowed = state_->allowed();
    std::fill(mask_.begin(), mask_.end(), 0);
    std::copy_n(allowed->begin(), std::min(allowed->size(), mask_.size()), mask_.begin());
    return mask_.data();
}

void AnswerFilter::accept(int32_t token) {
    if (reasoning_) {
        ++reasoned_;
        reasoning_ = token != budget_.think_end;
    }
    if (state_) state_->advance(uint32_t(token));
}

}  // namespace dsv4
