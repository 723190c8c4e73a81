// The scheduler: one thread per model that turns the requests of all sessions into steps of one ragged batch.
//
// A step takes first the sequences that decode (one token each), then chunks of prompts, in turn, until the step is
// full; who was served first moves on by one each step. Because backends are row-independent, what a sequence computes
// does not depend on who it shared a step with.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>
#include "core/engine/cancel.hpp"
#include "core/engine/sampler.hpp"
#include "core/engine/sequence.hpp"
#include "core/error.hpp"
#include "core/model/forward.hpp"

namespace dsv4 {

/// Logits of one position, for a request that evaluates.
struct LogitsRow {
    int32_t position;
    bool draft;
    std::vector<float> logits;
};

/// One call's work on one sequence: evaluate what sequence.tokens holds beyond `computed`, then, if it generates,
/// sample on. Fields above the line are set before submit() and not changed; below it they belong to the engine's mutex.
struct Request {
    Sequence *sequence = nullptr;
    CancelRef cancel;
    // evaluating
    std::function<bool(int32_t)> wants;  // positions whose logits are wanted; called on the engine's thread
    bool drafts = false;
    // generating
    bool generates = false;
    std::optional<Sampler> sampler;
    std::unique_ptr<TokenFilter> filter;
    std::vector<int32_t> stop_ids;
    uint32_t max_tokens = 0;             // 0: no limit but the context
    int32_t run_ahead = 8;               // sampled tokens that may wait to be fetched
    // ------------------------------------------------------------------
    std::deque<int32_t> tokens;          // sampled, not fetched
    std::deque<LogitsRow> rows;          // computed, not fetched
    uint32_t sampled = 0;
    int32_t finish = 0;                  // DSV4_FINISH_*, once generation ended
    int32_t stop_token = -1;
    bool done = false;                   // nothing more will come; failure says why if it was not the end
    std::optional<Error> failure;
    bool in_step = false;
    std::chrono::steady_clock::time_point submitted, first_token, last_token;
};

class Engine {
  public:
    /// Owns the forward pass; everything on the device happens on the engine's thread from here on.
    explicit Engine(std::unique_ptr<Forward> forward, int32_t vocab);
    ~Engine();

    CachePool &pool() { return pool_; }
    const Capacity &capacity() const { return forward_->capacity(); }
    /// Tokens that a sequence may be cut back by without computing anything again.
    int32_t reach() const { return reach_; }

    void submit(const std::shared_ptr<Request> &request);
    /// Takes the request away from the engine; after this its sequence is the caller's again.
    void withdraw(const std::shared_ptr<Request> &request);

    /// Runs `look` under the engine's mutex until it returns true, waiting in between for something to happen; with
    /// wait == false looks once. Returns what the last look returned.
    template <class Look> bool watch(bool wait, const Look &look) {
        std::unique_lock lock(mutex_);
        if (!wait) return look();
        happened_.wait(lock, look);
        return true;
    }
    /// To be called after fetching from a request, outside watch(): the request may go on.
    void nudge();

  private:
    struct Share {
        std::shared_ptr<Request> request;
        int32_t start, count;
        std::vector<int32_t> outputs;  // offsets
        size_t first_output;           // row among the step's outputs
        const uint64_t *allowed;       // what its sampled token may be; NULL: any
        // what came of it
        std::vector<LogitsRow> rows;
        int32_t sampled = -1;
        std::optional<Error> failure;
    };

    void loop();
    bool runnable(const Request &request) const;
    std::vector<Share> plan(Step &step);
    bool plan_one(Step &step, std::vector<Share> &shares, const std::shared_ptr<Request> &request, int32_t &room);
    std::vector<dsv4_sample_row> wanted(const Step &step, std::vector<Share> &shares) const;
    void run(Step &step, std::vector<Share> &shares);
    void deliver(Share &share);
    void finish(Request &request, int32_t reason);
    void fail(Request &request, const Error &error) noexcept;
    template <class Body> void attempt(std::optional<Error> &failure, const Body &body) const noexcept;

    std::unique_ptr<Forward> forward_;
    const int32_t vocab_;
    const int32_t reach_;
    const Error no_memory_{DSV4_E_NO_MEMORY, "out of memory during a step"};  // made while there was some
    CachePool pool_;
    std::mutex mutex_;
    std::condition_variable wake_, happened_;
    std::vector<std::shared_ptr<Request>> requests_;
    size_t turn_ = 0;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace dsv4
