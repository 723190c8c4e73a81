// Made-up conversations, where their caches live, and a whole layer run over them in the operators' own order.
#pragma once
#include "driver.hpp"
#include "shapes.hpp"
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace dsv4::conformance {

/// What a conversation says: its token at a position, and the rows that go into operators there, depend on nothing
/// else.
using Content = uint64_t;

int32_t token_of(Content content, int32_t position, int32_t vocab);
/// A row of unit-size values that bf16 holds exactly, so that both backends start from the same bits.
void input_row(Content content, int32_t position, int32_t buffer_kind, const dsv4_shape &shape, float *out);

/// Where a sequence's rows live.
struct Place {
    int32_t slot = 0;
    std::vector<int32_t> blocks; // [ceil(positions / block_tokens)]; shorter tables are padded with block 0
};

/// Positions [first, first + count) of a conversation at a place.
struct Chunk {
    Content content = 0;
    int32_t place = 0;
    int32_t first = 0, count = 0;
};
using Schedule = std::vector<std::vector<Chunk>>; // steps

/// Sizes of a cache with its places: how the same conversations may be laid out differently.
struct Geometry {
    dsv4_cache_desc desc{};
    std::vector<Place> places;
};

/// A step and the memory it points at.
class Step {
  public:
    Step(const std::vector<Chunk> &chunks, const std::vector<Place> &places, int32_t vocab,
         const std::vector<int32_t> &outputs = {});
    const dsv4_step &view() const { return step_; }
    int32_t tokens() const { return step_.tokens; }
    Content content(int32_t row) const { return contents_[static_cast<size_t>(row)]; }
    int32_t position(int32_t row) const { return position_[static_cast<size_t>(row)]; }
    const Place &place(int32_t row) const;
    /// The input rows of all tokens. `salt` tells apart operators with the same kind of input.
    std::vector<float> inputs(int32_t buffer_kind, const dsv4_shape &shape, uint64_t salt = 0) const;

  private:
    const std::vector<Place> &places_;
    dsv4_step step_{};
    std::vector<Content> contents_;
    std::vector<int32_t> token_, position_, sequence_, first_, slot_, table_, output_, place_of_;
};

/// [T, D] that moe.route and moe.experts make of the step's inputs; batch holds the step.
std::vector<float> moe_output(const Device &d, const dsv4_shape &s, const Batch &batch, const Step &step,
                              const Block &block);

/// The operators of a layer in the order of a step, and what each of them wrote.
enum Stage {
    HC_ATTN_X,
    HC_ATTN_MIX,
    PROJECT_Q,
    PROJECT_QR,
    SELECT,
    ATTEND,
    OUTPUT,
    HC_ATTN_STREAMS,
    HC_FFN_X,
    HC_FFN_MIX,
    ROUTE,
    EXPERTS,
    LAYER_STREAMS,
    stage_count
};
const char *stage_name(int stage);

using TokenKey = std::pair<Content, int32_t>; // whose token, and its position
using TokenRows = std::array<std::vector<float>, stage_count>;
using Trace = std::map<TokenKey, TokenRows>;

/// A layer with its cache on one device. `run` composes it from the parts and reads what each leaves; `run_unread` reads
/// the last alone, so that the backend sees the calls as the core makes them; `run_fused` uses FAMILY_LAYER.
class LayerProgram {
  public:
    LayerProgram(const Device &device, const Case &c, const Weights &weights, const Geometry &geometry,
                 int32_t max_tokens);

    /// A token that comes twice (after a cut) is recorded as of its last time.
    void run(const Schedule &schedule, Trace &trace);
    void run_unread(const Schedule &schedule, Trace &trace); // these two fill LAYER_STREAMS only
    void run_fused(const Schedule &schedule, Trace &trace);

    /// Every window row, entry and key that conversation `content`, now `length` long at `place`, can still see.
    std::vector<float> visible_cache(const Place &place, int32_t length) const;
    const dsv4_cache *cache() const { return cache_; }
    const dsv4_block *block() const { return block_; }

  private:
    enum class Way { parts, unread, fused };
    void step(const std::vector<Chunk> &chunks, Way way, Trace &trace);

    const Device &device_;
    const dsv4_shape shape_;
    const int32_t ratio_, max_tokens_;
    const Geometry geometry_;
    Block block_;
    Cache cache_;
    Batch batch_;
    Buffer streams_, x_, mix_, q_, qr_, selection_, o_, y_, route_;
};

/// The same set has one order: ascending indices, -1 last.
void sort_selection(float *row, int32_t k);
void sort_route(float *row, int32_t k);

} // namespace dsv4::conformance
