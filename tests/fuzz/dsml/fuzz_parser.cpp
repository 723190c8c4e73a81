// Any bytes into both parsers. Invariants: strict never crashes and lenient agrees with it on calls; lenient gives the
// same events however the bytes are split; complete calls carry valid JSON; events are valid UTF-8.
#include <cstddef>
#include <cstdint>

#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/dsml_stream.hpp"
#include "tests/unit/dsml/events.hpp"

using namespace dsv4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > 4096) return 0;
    // The first byte: mode, tools, value limit; the second: where to split.
    const uint8_t mode = data[0], cut = data[1];
    const std::string_view text(reinterpret_cast<const char *>(data) + 2, size - 2);
    DsmlStreamOptions options;
    options.thinking = mode & 1;
    if (mode & 2) {
        options.tools = {{"run", true, {{"cmd", DsmlTool::Type::string}, {"n", DsmlTool::Type::other}}},
                         {"free", false, {}}};
    }
    if (mode & 4) options.max_buffered_value = 8;
    const std::vector<DsmlEvent> whole = test::feed_pieces(options, {text});
    if (test::feed_chunks(options, text, 1) != whole) __builtin_trap();
    if (test::feed_chunks(options, text, 1 + cut % 31) != whole) __builtin_trap();
    const size_t at = text.empty() ? 0 : cut * 256u % (text.size() + 1);
    if (test::feed_pieces(options, {text.substr(0, at), text.substr(at)}) != whole) __builtin_trap();
    for (const DsmlEvent &event : whole)
        if (find_invalid_utf8(event.text) != event.text.size()) __builtin_trap();
    const DsmlLenientMessage message = collect_dsml_events(whole);
    for (const DsmlLenientCall &call : message.tool_calls)
        if (call.complete && check_json(call.arguments) != JsonVerdict::valid) __builtin_trap();
    (void)message_to_json(message);
    try {
        (void)message_to_json(parse_completion_strict(text, options.thinking));
    } catch (const Error &) {
    }
    return 0;
}
