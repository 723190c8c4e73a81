// A game's frame loop with two characters that think while it runs. The frame never waits for the model: loading
// happens on another thread, answers are polled, and a conversation that the player walks away from is cancelled.
//
//     npc MODEL [FRAMES]      MODEL is a folder with config.json and *.safetensors
#include "dsv4/dsv4.hpp"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using Clock = std::chrono::steady_clock;

namespace {

/// One character: a session that remembers, and the line it is speaking, if any.
class Npc {
  public:
    Npc(std::string name, const dsv4::Model &model) : name_(std::move(name)), session_(model.session()) {}

    bool speaking() const { return line_.has_value(); }
    int spoken() const { return spoken_; }

    void say_to(const std::vector<std::int32_t> &ids) {
        dsv4::GenerateOptions options;
        options.flags = DSV4_GENERATE_CONTINUE; // the session holds what was said so far
        options.max_tokens = 40;
        options.temperature = 0.8f;
        options.seed = 7;
        player_left_ = dsv4::Cancel();
        line_ = session_.generate(ids, options, player_left_);
    }

    /// Once a frame. Takes what is ready and returns.
    void update(int frame) {
        if (!line_) return;
        try {
            dsv4::Event event;
            while (line_->poll(event) == dsv4::Stream::Poll::Ready) {
                if (event.kind == DSV4_EVENT_TOKEN) {
                    std::printf("frame %4d  %s: %d\n", frame, name_.c_str(), static_cast<int>(event.token));
                    ++spoken_;
                } else if (event.kind == DSV4_EVENT_DONE) {
                    line_.reset();
                    return;
                }
            }
        } catch (const dsv4::Error &error) {
            std::printf("frame %4d  %s stops: %s\n", frame, name_.c_str(), error.what());
            drop();
        }
    }

    void player_left() { player_left_.now(); }

  private:
    /// The engine may be in the middle of a step for this line, and releasing waits for its end: not on this thread.
    void drop() {
        dropped_ = std::async(std::launch::async, [line = std::move(line_)]() mutable { line.reset(); });
        line_.reset();
    }

    std::string name_;
    dsv4::Session session_;
    dsv4::Cancel player_left_;
    std::optional<dsv4::Stream> line_;
    std::future<void> dropped_;
    int spoken_ = 0;
};

int play(const std::string &path, int frames) {
    dsv4::Runtime runtime;
    auto loading = std::async(std::launch::async, [&] { return runtime.load(path); });
    std::optional<dsv4::Model> model;
    std::vector<Npc> cast;
    Clock::duration worst{};
    const auto frame_time = std::chrono::microseconds(16667);
    auto next_frame = Clock::now();
    for (int frame = 0; frame < frames; ++frame) {
        const auto begin = Clock::now();
        if (!model && loading.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
            model = loading.get();
            cast.emplace_back("guard", *model);
            cast.emplace_back("merchant", *model);
            for (Npc &npc : cast) npc.say_to({5, 17, 3, 29});
            std::printf("frame %4d  the model is there\n", frame);
        } else {
            for (Npc &npc : cast) npc.update(frame);
            if (frame == frames / 2 && !cast.empty()) cast.front().player_left();
            worst = std::max(worst, Clock::now() - begin);
        }
        // Physics and drawing go here.
        next_frame += frame_time;
        std::this_thread::sleep_until(next_frame);
    }
    if (!model) model = loading.get();
    int spoken = 0;
    for (const Npc &npc : cast) spoken += npc.spoken();
    std::printf("%d frames, %d tokens; the longest that a frame spent with its characters: %.3f ms\n", frames, spoken,
                std::chrono::duration<double, std::milli>(worst).count());
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s MODEL [FRAMES]\n", argv[0]);
        return 2;
    }
    try {
        return play(argv[1], argc > 2 ? std::atoi(argv[2]) : 300);
    } catch (const std::exception &e) {
        std::fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
}
