// Feeding a parser in pieces, and joining its events the way a consumer that appends would.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/text/dsml_stream.hpp"

namespace dsv4::test {

inline std::vector<DsmlEvent> join(const std::vector<DsmlEvent> &events) {
    std::vector<DsmlEvent> out;
    for (const DsmlEvent &event : events) {
        const bool piece = event.kind == DsmlEvent::Kind::reasoning || event.kind == DsmlEvent::Kind::content ||
                           event.kind == DsmlEvent::Kind::arguments || event.kind == DsmlEvent::Kind::discarded;
        if (piece && !out.empty() && out.back().kind == event.kind && out.back().call == event.call)
            out.back().text += event.text;
        else out.push_back(event);
    }
    return out;
}

/// Every piece goes into a vector of its own, so nothing is joined by the parser itself.
inline std::vector<DsmlEvent> feed_pieces(const DsmlStreamOptions &options, const std::vector<std::string_view> &pieces) {
    DsmlStreamParser parser(options);
    std::vector<DsmlEvent> all;
    for (const std::string_view piece : pieces) {
        std::vector<DsmlEvent> events;
        parser.feed(piece, events);
        all.insert(all.end(), events.begin(), events.end());
    }
    std::vector<DsmlEvent> events;
    parser.finish(events);
    all.insert(all.end(), events.begin(), events.end());
    return join(all);
}

inline std::vector<DsmlEvent> feed_chunks(const DsmlStreamOptions &options, std::string_view text, size_t size) {
    std::vector<std::string_view> pieces;
    for (size_t i = 0; i < text.size(); i += size) pieces.push_back(text.substr(i, size));
    return feed_pieces(options, pieces);
}

/// The first way of splitting that changes the events, or "" when none does.
inline std::string split_that_differs(const DsmlStreamOptions &options, std::string_view text) {
    const std::vector<DsmlEvent> whole = feed_pieces(options, {text});
    for (size_t size : {1, 2, 3, 5, 7})
        if (feed_chunks(options, text, size) != whole) return "chunks of " + std::to_string(size);
    for (size_t cut = 1; cut < text.size(); ++cut)
        if (feed_pieces(options, {text.substr(0, cut), text.substr(cut)}) != whole)
            return "split at byte " + std::to_string(cut);
    return "";
}

}  // namespace dsv4::test
