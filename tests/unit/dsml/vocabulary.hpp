// Vocabularies for tests: a made-up one with awkward tokens that straddle every boundary, and the published one where
// its file is present.
#pragma once
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "core/text/dsml_strict.hpp"
#include "core/text/grammar_vocabulary.hpp"
#include "nlohmann/json.hpp"

namespace dsv4::test {

inline VocabularySource made_up_source(size_t size = 4000, uint32_t seed = 1) {
    VocabularySource out;
    std::set<std::string> known;
    const auto add = [&](const std::string &text) {
        if (!text.empty() && known.insert(text).second) out.tokens.push_back(text);
    };
    for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)));
    for (const char *text :
         {"\">", "\">\n", ">\n<", "\n\n", "\n\n<", "</", "<", ">\n", "\", \"", "\": \"", "\": ", "}<", "}</", "]}", "\"}", "\"]",
          "},", "{\"", "[{\"", "\"}</", "true\">", "false\">", "true", "false", "null", "tool", "_calls", "invoke", " name",
          "=\"", "parameter", " string", "0.", "-1", "1e", "  ", "    ", "\\n", "\\\"", "\\u", "你", "好", "世界", "é", " the",
          "ing", "\xE4\xBD", "\xA0x", "\xF0\x9F", "\x98\x80", "}\n", ",\n  ", "<think", "think>", "\xEF\xBD\x9C", "DSML", "20", "-0",
          "2024-0", ":3", "T1", "@a.", "a@b"})
        add(text);
    std::mt19937 random(seed);
    const std::string letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGH0123456789\"{}[],:<>/\\\n-_.|";
    while (out.tokens.size() + 3 < size) {
        std::string text;
        const size_t n = 2 + random() % 5;
        for (size_t i = 0; i < n; ++i) text += letters[random() % (random() % 3 ? 27 : letters.size())];
        add(text);
    }
    out.added.assign(out.tokens.size(), false);
    for (const std::string_view text : {kDsmlToken, kThinkEnd, kEosText, kThinkBegin}) {
        out.tokens.emplace_back(text);
        out.added.push_back(true);
    }
    const auto n = static_cast<int32_t>(out.tokens.size());
    out.dsml = n - 4;
    out.think_end = n - 3;
    out.eos = n - 2;
    return out;
}

/// The published tokenizer.json; false when it is absent.
inline bool published_source(const std::string &path, VocabularySource &out) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return false;
    const nlohmann::json file = nlohmann::json::parse(in);
    // GPT-2's byte alphabet: printable Latin-1 stands for itself, the rest for U+0100 and on.
    std::map<uint32_t, uint8_t> byte_of;
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
        const bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        byte_of[plain ? b : next++] = static_cast<uint8_t>(b);
    }
    const auto put = [&](size_t id, const std::string &bytes, bool added) {
        if (out.tokens.size() <= id) {
            out.tokens.resize(id + 1);
            out.added.resize(id + 1);
        }
        out.tokens[id] = bytes;
        out.added[id] = added;
    };
    for (const auto &[text, id] : file["model"]["vocab"].items()) {
        std::string bytes;
        for (size_t i = 0; i < text.size();) {
            const auto c = static_cast<unsigned char>(text[i]);
            const uint32_t code = c < 0x80 ? c : (c & 31u) << 6 | (static_cast<unsigned char>(text[i + 1]) & 63u);
            bytes += static_cast<char>(byte_of.count(code) ? byte_of[code] : '?');
            i += c < 0x80 ? 1 : c < 0xE0 ? 2 : 3;
        }
        put(id.get<size_t>(), bytes, false);
    }
    for (const auto &token : file["added_tokens"]) {
        const std::string text = token["content"];
        const size_t id = token["id"];
        put(id, text, true);
        if (text == kDsmlToken) out.dsml = static_cast<int32_t>(id);
        if (text == kThinkEnd) out.think_end = static_cast<int32_t>(id);
        if (text == kEosText) out.eos = static_cast<int32_t>(id);
    }
    return true;
}

}  // namespace dsv4::test
