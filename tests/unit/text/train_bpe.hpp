// A small BPE trainer: makes a tokenizer.json with the published pre-tokenizer and a vocabulary of our own, so that the
// tokenizer is tested on machines that do not have the published file.
#pragma once
#include "core/text/byte_level.hpp"
#include "core/text/python_json.hpp"
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4::test {

/// The published file's three splits, as they stand in its JSON.
inline std::vector<std::string> published_patterns() {
    return {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};
}

inline JsonValue object(std::vector<std::pair<std::string, JsonValue>> members) {
    JsonValue made = JsonValue::make_object();
    for (auto &[key, value] : members) made.set(key, std::move(value));
    return made;
}
inline JsonValue text(std::string value) { return JsonValue::make_string(std::move(value)); }

struct TrainedBpe {
    std::vector<std::pair<std::string, std::string>> merges; ///< bytes of left and right
    std::vector<std::string> tokens;                         ///< [id], bytes
};

/// Classic training: pieces are runs up to a space; the most frequent pair is joined, the smallest of equals.
inline TrainedBpe train_bpe(std::string_view corpus, size_t merges) {
    std::vector<std::vector<std::string>> words;
    for (size_t at = 0; at < corpus.size();) {
        size_t end = at + 1;
        while (end < corpus.size() && end - at < 24 && corpus[end] != ' ' && corpus[end] != '\n') ++end;
        words.emplace_back();
        for (; at < end; ++at) words.back().emplace_back(1, corpus[at]);
    }
    TrainedBpe made;
    for (int byte = 0; byte < 256; ++byte) made.tokens.emplace_back(1, static_cast<char>(byte));
    while (made.merges.size() < merges) {
        std::map<std::pair<std::string, std::string>, size_t> counts;
        for (const auto &word : words)
            for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
        const std::pair<const std::pair<std::string, std::string>, size_t> *best = nullptr;
        for (const auto &entry : counts)
            if (entry.second > 1 && (!best || entry.second > best->second)) best = &entry;
        if (!best) break;
        const auto [left, right] = best->first;
        made.merges.emplace_back(left, right);
        made.tokens.push_back(left + right);
        for (auto &word : words)
            for (size_t i = 0; i + 1 < word.size(); ++i)
                if (word[i] == left && word[i + 1] == right) {
                    word[i] += right;
                    word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                }
    }
    return made;
}

/// The file as a JSON value, for tests that damage it.
inline JsonValue tokenizer_file(const TrainedBpe &bpe, const std::vector<std::string> &added) {
    JsonValue vocab = JsonValue::make_object(), merges = JsonValue::make_array(), tokens = JsonValue::make_array();
    // Distinct merges can make the same bytes: the vocabulary has them once.
    for (const std::string &token : bpe.tokens)
        if (!vocab.find(spelling_from_bytes(token)))
            vocab.set(spelling_from_bytes(token), JsonValue::make_integer(static_cast<int64_t>(vocab.size())));
    for (const auto &[left, right] : bpe.merges)
        merges.push_back(text(spelling_from_bytes(left) + ' ' + spelling_from_bytes(right)));
    for (const std::string &token : added)
        tokens.push_back(object({{"id", JsonValue::make_integer(static_cast<int64_t>(vocab.size() + tokens.size()))},
                                 {"content", text(token)},
                                 {"normalized", JsonValue::make_bool(tokens.size() % 2 == 0)},
                                 {"special", JsonValue::make_bool(tokens.size() == 0)}}));
    JsonValue stages = JsonValue::make_array();
    for (const std::string &pattern : published_patterns())
        stages.push_back(object({{"type", text("Split")},
                                 {"pattern", object({{"Regex", text(pattern)}})},
                                 {"behavior", text("Isolated")},
                                 {"invert", JsonValue::make_bool(false)}}));
    stages.push_back(object({{"type", text("ByteLevel")},
                             {"add_prefix_space", JsonValue::make_bool(false)},
                             {"use_regex", JsonValue::make_bool(false)}}));
    return object({{"version", text("1.0")},
                   {"added_tokens", tokens},
                   {"normalizer", JsonValue()},
                   {"pre_tokenizer", object({{"type", text("Sequence")}, {"pretokenizers", stages}})},
                   {"decoder", object({{"type", text("ByteLevel")}})},
                   {"model", object({{"type", text("BPE")}, {"vocab", vocab}, {"merges", merges}})}});
}

inline std::string train_tokenizer_json(std::string_view corpus, size_t merges, const std::vector<std::string> &added) {
    return dump_python_json(tokenizer_file(train_bpe(corpus, merges), added));
}

} // namespace dsv4::test
