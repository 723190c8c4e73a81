// Any text as a schema, for a tool's parameters or, when a space ends it, for the content. Invariants: nothing but
// dsv4::Error comes out, the start is never a dead end, a few steps keep it so, and masks have the tokens that advance
// takes.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/error.hpp"
#include "core/text/constraint_state.hpp"
#include "tests/unit/dsml/vocabulary.hpp"

using namespace dsv4;

namespace {

void walk(const Constraint &constraint, uint32_t seed) {
    ConstraintState state = constraint.start();
    const auto n = static_cast<uint32_t>(constraint.vocabulary().size());
    const auto random = [&] { return (seed = seed * 1664525u + 1013904223u) >> 8; };
    for (int step = 0; step < 16 && !state.is_terminal(); ++step) {
        const std::shared_ptr<const TokenMask> mask = state.allowed();
        for (int i = 0; i < 8; ++i)
            if (const uint32_t t = random() % n; mask_has(*mask, t) != state.accepts(t)) __builtin_trap();
        const uint32_t first = random() % n;
        uint32_t token = n;
        for (uint32_t i = 0; i < n && token == n; ++i)
            if (mask_has(*mask, (first + i) % n)) token = (first + i) % n;
        if (token == n) __builtin_trap();  // a dead end
        if (state.least_remaining() == kNever) __builtin_trap();
        state.advance(token);
    }
}

/// Automata of thousands of states take most of a second under sanitizers and are like those of hundreds. What limits
/// them is tested in tests/unit/dsml.
bool counts_far(const std::string &schema) {
    size_t digits = 0;
    for (const char c : schema) {
        digits = c >= '0' && c <= '9' ? digits + 1 : 0;
        if (digits > 2) return true;
    }
    return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const auto vocabulary = std::make_shared<const Vocabulary>(test::made_up_source(600));
    const std::string schema(reinterpret_cast<const char *>(data), size);
    if (size > 1024 || counts_far(schema)) return 0;
    uint32_t seed = 1;
    for (size_t i = 0; i < size; ++i) seed = seed * 16777619u ^ data[i];
    ConstraintOptions options;
    if (size > 0 && data[size - 1] == ' ') {
        options.response_format = "{\"type\": \"json_schema\", \"schema\": " + schema + "}";
    } else {
        options.tools = "[{\"name\": \"f\", \"parameters\": " + schema + "}]";
        options.tool_choice = ConstraintOptions::ToolChoice::required;
    }
    try {
        walk(*Constraint::compile(vocabulary, options), seed);
    } catch (const Error &) {
    }
    return 0;
}
