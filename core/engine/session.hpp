// One conversation and the answers generated in it.
#pragma once
#include <atomic>
#include <memory>
#include "core/engine/model.hpp"

namespace dsv4 {

class Session : public std::enable_shared_from_this<Session> {
  public:
    Session(std::shared_ptr<Model> model, const dsv4_session_options &options);
    ~Session();

    const std::shared_ptr<Model> &model() const { return model_; }
    std::vector<int32_t> tokens() const;
    void truncate(size_t length);
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

    std::shared_ptr<Model> model_;
    Sequence sequence_;
    std::atomic<bool> busy_{false};
    bool device_lost_ = false;
};

class Stream {
  public:
    Stream(std::shared_ptr<Session> session, const dsv4_generate_options &options, dsv4_cancel *cancel);
    ~Stream();

    /// DSV4_OK with an event, DSV4_END, or DSV4_PENDING (only when wait is false).
    dsv4_status next(bool wait, dsv4_event &event);

  private:
    dsv4_event done_event() const;

    std::shared_ptr<Session> session_;
    Session::Use use_;
    std::shared_ptr<Request> request_;
    size_t prompt_tokens_ = 0;
    int32_t cached_ = 0, reported_ = 0;
    uint32_t handed_out_ = 0;
    bool ended_ = false;
};

}  // namespace dsv4

struct dsv4_session {
    std::shared_ptr<dsv4::Session> session;
};
struct dsv4_stream {
    dsv4::Stream stream;
};
