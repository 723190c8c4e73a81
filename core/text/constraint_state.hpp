// Constrained decoding: which tokens may come next so that the completion parses strictly and its calls fit their
// schemas. A Constraint is compiled once and shared; a ConstraintState is one stream's place in it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/grammar_rules.hpp"
#include "core/text/grammar_vocabulary.hpp"

namespace dsv4 {

struct ConstraintOptions {
    enum class ToolChoice { automatic, none, required, named };
    std::string tools;                ///< OpenAI `tools` JSON array; empty = none offered
    ToolChoice tool_choice = ToolChoice::automatic;
    std::string tool_name;            ///< for named
    bool parallel_calls = true;       ///< false: at most one call
    bool thinking = false;            ///< the text starts inside reasoning
    /// "", {"type": "json_object"} or {"type": "json_schema", "json_schema": {"schema": ...}}; content is then exactly
    /// one JSON value (or, where tools may be called, a block of calls instead).
    std::string response_format;
};

class ConstraintState;

/// Immutable and thread-safe.
class Constraint : public std::enable_shared_from_this<Constraint> {
public:
    /// Throws Error: DSV4_E_INVALID for JSON or schemas that are malformed or that nothing satisfies,
    /// DSV4_E_UNSUPPORTED for ones too large.
    static std::shared_ptr<const Constraint> compile(std::shared_ptr<const Vocabulary> vocabulary,
                                                     const ConstraintOptions &options);
    /// What the schemas ask for and the grammar does not enforce, one line each ("get_weather.city: pattern ...").
    const std::vector<std::string> &unsupported() const { return unsupported_; }
    ConstraintState start() const;
    const Vocabulary &vocabulary() const { return *vocabulary_; }

    ~Constraint();

private:
    friend class ConstraintState;
    Constraint();
    struct MaskCache;

    std::shared_ptr<const Vocabulary> vocabulary_;
    Grammar grammar_;
    std::vector<std::string> unsupported_;
    std::unique_ptr<MaskCache> cache_;
};

/// Copyable; one call at a time on one object.
class ConstraintState {
public:
    /// Allowed next tokens. Never empty before is_terminal().
    std::shared_ptr<const TokenMask> allowed() const;
    /// The only allowed token, or -1.
    int32_t forced() const;
    bool accepts(uint32_t token) const;
    /// Takes a token. Throws Error (DSV4_E_INVALID) when it is not allowed; the state is then unchanged.
    void advance(uint32_t token);
    /// After the end-of-sentence token: nothing may follow.
    bool is_terminal() const;
    /// The end-of-sentence token is allowed now.
    bool may_stop() const;
    /// A lower bound, in bytes plus control tokens, on what must still be written, reached by some continuation.
    uint32_t least_remaining() const;

private:
    friend class Constraint;
    struct Frame {
        uint32_t node;
        uint64_t data;
        std::shared_ptr<const Frame> below;
        uint32_t depth;
        Frame(uint32_t n, uint64_t d, std::shared_ptr<const Frame> b)
            : node(n), data(d), below(std::move(b)), depth(below ? below->depth + 1 : 1) {}
        ~Frame();
    };
    using Stack = std::shared_ptr<const Frame>;
    /// At a leaf in `state`, at a symbol, or at the end of everything (kNoNode).
    struct Place {
        uint32_t node;
        int32_t state;
        Stack stack;
    };
    using Places = std::vector<Place>;
    struct Expansion;
    struct MaskMaker;

    explicit ConstraintState(std::shared_ptr<const Constraint> constraint) : constraint_(std::move(constraint)) {}
    static bool same(const Stack &a, const Stack &b);
    void settle(const Places &places);
    bool step(uint8_t byte);
    bool take(uint32_t token);
    std::string key() const;

    std::shared_ptr<const Constraint> constraint_;
    Places places_;
};

}  // namespace dsv4
