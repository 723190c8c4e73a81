// Any text as a schema: compiled as a tool's parameters and as a response format. Invariants: nothing but dsv4::Error
// comes out, the start is never a dead end, and a few steps keep it so.
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
    for (int step = 0; step < 24 && !state.is_terminal(); ++step) {
        const std::shared_ptr<const TokenMask> mask = state.allowed();
        const uint32_t n = static_cast<uint32_t>(constraint.vocabulary().size());
        uint32_t token = n;
        for (uint32_t i = 0; i < n && token == n; ++i)
            if (mask_has(*mask, (seed + i) % n)) token = (seed + i) % n;
        if (token == n) __builtin_trap();  // a dead end
        if (state.least_remaining() == kNever) __builtin_trap();
        state.advance(token);
        seed = seed * 1664525u + 1013904223u;
    }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const auto vocabulary = std::make_shared<const Vocabulary>(test::made_up_source(600));
    if (size > 2048) return 0;
    const std::string schema(reinterpret_cast<const char *>(data), size);
    const auto attempt = [&](const ConstraintOptions &options) {
        try {
            walk(*Constraint::compile(vocabulary, options), static_cast<uint32_t>(size) * 2654435761u);
        } catch (const Error &) {
        }
    };
    ConstraintOptions options;
    options.response_format = "{\"type\": \"json_schema\", \"schema\": " + schema + "}";
    attempt(options);
    options = {};
    options.tools = "[{\"name\": \"f\", \"parameters\": " + schema + "}]";
    options.tool_choice = ConstraintOptions::ToolChoice::required;
    attempt(options);
    return 0;
}
