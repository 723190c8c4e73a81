#include "core/text/stream_decoder.hpp"
#include "core/text/byte_level.hpp"

namespace dsv4 {

namespace {
constexpr std::string_view replacement = "\xEF\xBF\xBD";
}

void StreamDecoder::push(std::string_view bytes, std::string &out) {
    std::string joined;
    if (!pending_.empty()) {
        joined = pending_.append(bytes);
        bytes = joined;
        pending_.clear();
    }
    while (!bytes.empty()) {
        const size_t good = find_invalid_utf8(bytes);
        out += bytes.substr(0, good);
        bytes.remove_prefix(good);
        const Utf8Part part = next_utf8_part(bytes);
        if (part.truncated) {
            pending_ = bytes;
            return;
        }
        if (!part.valid) out += replacement;
        bytes.remove_prefix(part.valid ? 0 : part.length);
    }
}

void StreamDecoder::finish(std::string &out) {
    if (!pending_.empty()) out += replacement;
    pending_.clear();
}

} // namespace dsv4
