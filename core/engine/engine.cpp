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

void Engine::nudge() { wake_.notify_all(); }

// Nothing may leave this function as an exception, the lack of memory included: it would end the process.
void Engine::loop() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        std::optional<Step> step;
        std::vector<Share> shares;
        std::optional<Error> failure;
        attempt(failure, [&] { shares = plan(step.emplace()); });
        if (failure) {  // nothing was computed; everybody whose turn it might have been is told
            shares.clear();
            for (const auto &r : requests_)
                if (runnable(*r)) fail(*r, *failure);
        }
        if (shares.empty()) {
            happened_.notify_all();  // plan() may have ended requests
            step.reset();            // while it waits, the engine holds nothing of a step
            failure.reset();
            if (std::none_of(requests_.begin(), requests_.end(), [&](const auto &r) { return runnable(*r); }))
                wake_.wait(lock);
            continue;
        }
        for (const Share &s : shares) s.request->in_step = true;
        lock.unlock();
        run(*step, shares);
        lock.lock();
        for (const Share &s : shares) s.request->in_step = false;
        happened_.notify_all();
    }
}  // a request holds its session, and that the model: none is left when the model goes

/// Runs `body`; failure says what it threw.
template <class Body> void Engine::attempt(std::optional<Error> &failure, const Body &body) const noexcept {
    try {
        try {
            body();
        } catch (const Error &e) {
            failure = e;
        } catch (const std::bad_alloc &) {
            failure = no_memory_;
        } catch (const std::exception &e) {
            failure.emplace(DSV4_E_INTERNAL, e.what());
        }
    } catch (...) {  // no memory for the message
        failure = no_memory_;
    }
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

    // A request that drafts runs alone: its drafts take the streams of the whole step.
    if (order.front()->drafts && runnable(*order.front()))
        order.resize(1);
    else
        order.erase(std::remove_if(order.begin(), order.end(), [](const auto &r) { return r->drafts; }), order.end());

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
    Share share{request, q.computed, 0, {}, size_t(step.outputs()), nullptr, {}, -1, std::nullopt};
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

/// What the device is to sample, a row per output. A filter knows what the token may be before the step has run. Rows
/// that are left wanting nothing are sampled here, from their logits, or wanted as they are.
std::vector<dsv4_sample_row> Engine::wanted(const Step &step, std::vector<Share> &shares) const {
    std::vector<dsv4_sample_row> rows(size_t(step.outputs()));
    int64_t biases = 0;
    for (Share &s : shares) {
        const Request &r = *s.request;
        if (!r.generates || s.outputs.empty()) continue;
        attempt(s.failure, [&] {
            s.allowed = r.filter ? r.filter->allowed() : nullptr;
            const dsv4_sample_row row = r.sampler->row(uint64_t(s.start + s.count), s.allowed);
            if (!forward_->samples() || biases + row.bias_count > Forward::most_biases) return;
            biases += row.bias_count;
            rows[s.first_output] = row;  // a sequence has one next token
        });
    }
    return rows;
}

/// Without the mutex: the forward pass, the sampling and the drafts; then with it, what they gave.
void Engine::run(Step &step, std::vector<Share> &shares) {
    std::vector<dsv4_sample_row> rows;
    std::vector<int32_t> ids;
    std::vector<float> logits;
    std::vector<float *> read;  // by output: where its logits are; NULL: the device sampled
    const auto V = size_t(vocab_);
    std::optional<Error> step_failure;
    attempt(step_failure, [&] {
        rows = wanted(step, shares);
        forward_->run(step, rows, ids, logits);
        float *next = logits.data();
        for (const dsv4_sample_row &row : rows) {
            read.push_back(row.kind == DSV4_SAMPLE_NOTHING ? next : nullptr);
            if (read.back()) next += V;
        }
    });
    for (Share &s : shares) {
        Request &r = *s.request;
        if (step_failure) s.failure = step_failure;
        if (s.failure) continue;
        attempt(s.failure, [&] {
            for (size_t o = 0; o < s.outputs.size(); ++o) {
                float *row = read[s.first_output + o];
                if (r.generates) {
                    s.sampled = row ? r.sampler->sample(row, vocab_, uint64_t(s.start + s.count), s.allowed)
                                    : Sampler::checked(ids[s.first_output + o]);
                    if (r.filter) r.filter->accept(s.sampled);
                } else {
                    s.rows.push_back({s.start + s.outputs[o], false, std::vector<float>(row, row + V)});
                }
            }
            if (r.drafts)
                forward_->draft(0, r.sequence->tokens, s.start, s.count, r.sequence->slot,
                                r.sequence->blocks, [&](int32_t p) { return r.wants && r.wants(p); },
                                [&](int32_t p, const float *row) {
                                    s.rows.push_back({p, true, std::vector<float>(row, row + V)});
                                });
        });
    }
    const std::lock_guard lock(mutex_);
    for (Share &s : shares) {
        Sequence &q = *s.request->sequence;
        q.written = std::max(q.written, s.start + s.count);
        if (!s.failure) {
            q.computed = s.start + s.count;
            attempt(s.failure, [&] { deliver(s); });
        } else if (q.written - q.computed > reach_) {
            // Rows past `computed` may have been written, over rows that the rings held before.
            q.computed = q.written = 0;
        }
        if (s.failure) fail(*s.request, *s.failure);
    }
}

void Engine::deliver(Share &share) {
    Request &r = *share.request;
    Sequence &q = *r.sequence;
    const int32_t token = share.sampled;
    if (r.done) return;  // withdrawn meanwhile: the sequence is about to be its owner's
    for (LogitsRow &row : share.rows) r.rows.push_back(std::move(row));
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

void Engine::fail(Request &r, const Error &error) noexcept {
    if (r.done) return;
    r.failure = error;
    r.done = true;
}

}  // namespace dsv4
