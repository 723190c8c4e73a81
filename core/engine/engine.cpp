#include "core/engine/engine.hpp"
#include <algorithm>

namespace dsv4 {

Engine::Engine(std::unique_ptr<Forward> forward, int32_t vocab)
    : forward_(std::move(forward)), vocab_(vocab), reach_(forward_->capacity().cache.state_slack),
      pool_(forward_->capacity()), thread_([this] { loop(); }) {}

Engine::~Engine() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
}

void Engine::submit(const std::shared_ptr<Request> &request) {
    {
        const std::lock_guard lock(mutex_);
        request->submitted = request->first_token = request->last_token = std::chrono::steady_clock::now();
        requests_.push_back(request);
    }
    wake_.notify_all();
}

void Engine::withdraw(const std::shared_ptr<Request> &request) {
    std::unique_lock lock(mutex_);
    request->done = true;
    happened_.wait(lock, [&] { return !request->in_step; });
    requests_.erase(std::remove(requests_.begin(), requests_.end(), request), requests_.end());
}

bool Engine::watch(bool wait, const std::function<bool()> &look) {
    std::unique_lock lock(mutex_);
    if (!wait) return look();
    happened_.wait(lock, look);
    return true;
}

void Engine::nudge() { wake_.notify_all(); }

void Engine::loop() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        Step step;
        std::vector<Share> shares;
        try {
            shares = plan(step);
        } catch (const std::exception &) {  // no memory even for the plan: nothing was computed, everybody is told
            shares.clear();
            for (const auto &r : requests_) fail(*r, Error(DSV4_E_NO_MEMORY, "out of memory while planning a step"));
        }
        if (shares.empty()) {
            happened_.notify_all();  // plan() may have ended requests
            if (std::none_of(requests_.begin(), requests_.end(), [&](const auto &r) { return runnable(*r); }))
                wake_.wait(lock);
            continue;
        }
        for (const Share &s : shares) s.request->in_step = true;
        lock.unlock();
        run(step, shares);
        lock.lock();
        for (const Share &s : shares) s.request->in_step = false;
        happened_.notify_all();
    }
    for (const auto &r : requests_) fail(*r, Error(DSV4_E_CANCELLED, "the model was released"));
    happened_.notify_all();
}

/// Whether the engine may work on it now: not when it is finished, and not when its owner has results to fetch.
bool Engine::runnable(const Request &r) const {
    if (r.done) return false;
    if (r.generates) return r.sampled == 0 || int32_t(r.tokens.size()) < r.run_ahead;
    return r.rows.empty();
}

std::vector<Engine::Share> Engine::plan(Step &step) {
    std::vector<Share> shares;
    if (requests_.empty()) return shares;
    turn_ = (turn_ + 1) % requests_.size();
    std::vector<std::shared_ptr<Request>> order(requests_.begin() + ptrdiff_t(turn_), requests_.end());
    order.insert(order.end(), requests_.begin(), requests_.begin() + ptrdiff_t(turn_));

    // A request that drafts keeps streams in the forward pass from one step to the next: it runs alone, and once it has
    // begun no other that drafts may begin.
    for (const auto &r : requests_)
        if (r->drafts && !r->done) {
            if (!runnable(*r) || order.front() != r) {
                order.erase(std::remove_if(order.begin(), order.end(), [](const auto &o) { return o->drafts; }),
                            order.end());
            } else {
                order = {r};
            }
            break;
        }

    int32_t room = capacity().tokens;
    const auto decodes = [](const Request &r) { return int32_t(r.sequence->tokens.size()) - r.sequence->computed == 1; };
    for (const bool decoding : {true, false})
        for (const auto &r : order)
            if (runnable(*r) && decodes(*r) == decoding && !plan_one(step, shares, r, room)) return shares;
    return shares;
}

/// Adds a sequence's next tokens to the step. False: the step is full.
bool Engine::plan_one(Step &step, std::vector<Share> &shares, const std::shared_ptr<Request> &request, int32_t &room) {
    Request &r = *request;
    Sequence &q = *r.sequence;
    if (r.cancel.is_set()) {
        fail(r, Error(DSV4_E_CANCELLED, "cancelled"));
        return true;
    }
    if (room <= 0 || int32_t(shares.size()) >= capacity().sequences) return false;
    const auto held = int32_t(q.tokens.size());
    if (q.computed >= held) {  // an evaluation of no tokens
        r.done = true;
        return true;
    }
    Share share{request, q.computed, 0, {}, size_t(step.outputs())};
    int32_t outputs_left = capacity().outputs - step.outputs();
    const int32_t limit = std::min({held - q.computed, q.chunk, room});
    for (; share.count < limit; ++share.count) {
        const int32_t position = share.start + share.count;
        const bool wanted = r.generates ? position == held - 1 : r.wants && r.wants(position);
        if (!wanted) continue;
        if (outputs_left == 0) break;
        share.outputs.push_back(share.count);
        --outputs_left;
    }
    if (share.count == 0) return false;  // no room for its logits
    const int32_t end = share.start + share.count;
    if (!pool_.grow(q.blocks, size_t((end + capacity().cache.block_tokens - 1) / capacity().cache.block_tokens))) {
        if (r.generates && r.sampled > 0)
            finish(r, DSV4_FINISH_CONTEXT);
        else
            fail(r, Error(DSV4_E_NO_MEMORY, "the model's cache is full: " + std::to_string(end) + " tokens need more than the " +
                                                std::to_string(pool_.blocks_left()) + " free blocks of " +
                                                std::to_string(capacity().cache.block_tokens) +
                                                " tokens; release sessions or raise cache_tokens"));
        return true;
    }
    step.add(q.tokens.data() + share.start, share.count, share.start, q.slot, q.blocks, share.outputs);
    room -= share.count;
    shares.push_back(std::move(share));
    return true;
}

/// Without the mutex: the forward pass, the drafts and the sampling; then with it, what they gave.
void Engine::run(Step &step, const std::vector<Share> &shares) {
    std::vector<float> logits;
    std::vector<std::vector<LogitsRow>> rows(shares.size());
    std::vector<int32_t> sampled(shares.size(), -1);
    std::vector<std::optional<Error>> failures(shares.size());
    const auto V = size_t(vocab_);
    const auto attempt = [](std::optional<Error> &failure, const auto &body) {
        try {
            body();
        } catch (const Error &e) {
            failure = e;
        } catch (const std::bad_alloc &) {
            failure = Error(DSV4_E_NO_MEMORY, "out of memory during a step");
        } catch (const std::exception &e) {
            failure = Error(DSV4_E_INTERNAL, e.what());
        }
    };
    std::optional<Error> step_failure;
    attempt(step_failure, [&] { forward_->run(step, logits); });
    for (size_t i = 0; i < shares.size(); ++i) {
        const Share &s = shares[i];
        Request &r = *s.request;
        failures[i] = step_failure;
        if (!failures[i]) attempt(failures[i], [&] {
            for (size_t o = 0; o < s.outputs.size(); ++o) {
                float *row = logits.data() + (s.first_output + o) * V;
                if (r.generates) {
                    const auto position = uint64_t(s.start + s.count);
                    sampled[i] = r.sampler->sample(row, vocab_, position, r.filter ? r.filter->allowed() : nullptr);
                    if (r.filter) r.filter->accept(sampled[i]);
                } else {
                    rows[i].push_back({s.start + s.outputs[o], false, std::vector<float>(row, row + V)});
                }
            }
            if (r.drafts)
                forward_->draft(0, r.sequence->tokens, s.start, s.count, int32_t(r.sequence->tokens.size()),
                                r.sequence->slot, r.sequence->blocks,
                                [&](int32_t p) { return r.wants && r.wants(p); },
                                [&](int32_t p, const float *row) {
                                    rows[i].push_back({p, true, std::vector<float>(row, row + V)});
                                });
        });
    }
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < shares.size(); ++i) {
        Sequence &q = *shares[i].request->sequence;
        q.written = std::max(q.written, shares[i].start + shares[i].count);
        if (!failures[i]) {
            q.computed = shares[i].start + shares[i].count;
            deliver(shares[i], logits, rows[i], sampled[i]);
        } else {
            // Rows past `computed` may have been written, over rows that the rings held before.
            if (q.written - q.computed > reach_) q.computed = q.written = 0;
            fail(*shares[i].request, *failures[i]);
        }
    }
}

void Engine::deliver(const Share &share, std::vector<float> &, std::vector<LogitsRow> &rows, int32_t token) {
    Request &r = *share.request;
    Sequence &q = *r.sequence;
    if (r.done) return;  // withdrawn meanwhile: the sequence is about to be its owner's
    for (LogitsRow &row : rows) r.rows.push_back(std::move(row));
    if (!r.generates) {
        if (q.computed == int32_t(q.tokens.size())) r.done = true;
        return;
    }
    if (token < 0) return;  // a chunk of the prompt
    r.last_token = std::chrono::steady_clock::now();
    if (r.sampled == 0) r.first_token = r.last_token;
    ++r.sampled;
    q.tokens.push_back(token);
    if (std::find(r.stop_ids.begin(), r.stop_ids.end(), token) != r.stop_ids.end()) {
        r.stop_token = token;
        return finish(r, DSV4_FINISH_STOP);
    }
    r.tokens.push_back(token);
    if (r.max_tokens && r.sampled >= r.max_tokens) return finish(r, DSV4_FINISH_LENGTH);
    if (int32_t(q.tokens.size()) >= q.context) finish(r, DSV4_FINISH_CONTEXT);
}

void Engine::finish(Request &r, int32_t reason) {
    r.finish = reason;
    r.done = true;
}

void Engine::fail(Request &r, Error error) {
    if (r.done) return;
    r.failure = std::move(error);
    r.done = true;
}

}  // namespace dsv4
