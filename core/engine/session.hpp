// One conversation and the answers generated in it.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include "core/engine/answer.hpp"
#include "core/engine/model.hpp"
#include "core/engine/prompt.hpp"
#include "core/text/encoder_tokens.hpp"

namespace dsv4 {

class Session : public std::enable_shared_from_this<Session> {
  public:
    Session(std::shared_ptr<Model> model, const dsv4_session_options &options);
    ~Session();

    const std::shared_ptr<Model> &model() const { return model_; }
    std::vector<int32_t> tokens() const;
    void truncate(size_t length);
    /// How many tokens of the prompt this session holds already, and how many it has.
    void match(const Prompt &prompt, size_t &held, size_t &total);
    void evaluate(const int32_t *ids, size_t count, const dsv4_evaluate_options &options, dsv4_cancel *cancel,
                  dsv4_logits_fn on_logits, void *user_data);

  private:
    friend class Stream;
    /// One user of the sequence at a time: a second is a broken contract, told rather than raced.
    class Use {
      public:
        explicit Use(Session &session);
        ~Use() { session_.busy_.store(false, std::memory_order_release); }
        Use(const Use &) = delete;

      private:
        Session &session_;
    };
    void check_ids(const int32_t *ids, size_t count) const;
    void check_alive() const;
    /// Forgets all but the first n tokens, and gives back the blocks that only the others needed.
    void cut(size_t n);
    void locked_cut(size_t n);  // the same under the engine's mutex

    std::shared_ptr<Model> model_;
    Sequence sequence_;
    TurnMemory memory_;  // what was sampled here, so that a conversation sent back tokenises to the very same
    uint64_t id_seed_;   // of the next answer's tool call ids
    std::atomic<bool> busy_{false};
    bool device_lost_ = false;
    // Tokens that the session's owner knows of, while a stream's engine samples ahead; under the engine's mutex.
    size_t visible_ = SIZE_MAX;
};

class Stream {
  public:
    Stream(std::shared_ptr<Session> session, const dsv4_generate_options &options, dsv4_cancel *cancel);
    ~Stream();

    /// DSV4_OK with an event, DSV4_END, or DSV4_PENDING (only when wait is false). The event's strings live until the
    /// next call.
    dsv4_status next(bool wait, dsv4_event &event);

  private:
    std::vector<int32_t> read_prompt(const dsv4_generate_options &options);
    void start_answer(const dsv4_generate_options &options);
    void constrain(const dsv4_generate_options &options, const std::string &tools);
    bool next_of_answer(dsv4_event &event);
    void fill(dsv4_event &event, int32_t kind) const;
    void end_answer();
    void close();

    std::shared_ptr<Session> session_;
    Session::Use use_;
    std::shared_ptr<Request> request_;
    std::unique_ptr<Answer> answer_;  // NULL: token events only
    bool token_events_ = true, conversation_ = false, thinking_ = false;
    AnswerEvent current_;             // what the strings of the last event point to
    std::vector<int32_t> said_;       // tokens fetched from the engine
    size_t prompt_tokens_ = 0;
    size_t kept_ = 0;  // tokens that the session held before and the prompt begins with
    int32_t cached_ = 0, reported_ = 0;
    bool finished_ = false, ended_ = false;
};

}  // namespace dsv4

struct dsv4_session {
    std::shared_ptr<dsv4::Session> session;
};
struct dsv4_stream {
    dsv4::Stream stream;
};
