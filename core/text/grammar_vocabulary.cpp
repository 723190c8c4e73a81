#include "core/text/grammar_vocabulary.hpp"

#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/grammar_text.hpp"

namespace dsv4 {
namespace {

std::unique_ptr<Leaf> leaf(Dfa dfa, bool exits = true) { return std::make_unique<Leaf>(std::move(dfa), exits); }

/// The trie in two: without what is below `root`, a child of the root, and that alone.
std::array<TokenBranch, 2> split(const std::vector<TrieNode> &trie, uint32_t root, const std::vector<int32_t> &same,
                                 size_t tokens) {
    std::array<std::vector<TrieNode>, 2> nodes;
    std::array<std::vector<uint32_t>, 2> full;
    nodes[1].push_back({trie[root].end - root, -1, 0, 0});
    full[1].push_back(root);
    for (uint32_t i = 0; i < trie.size(); ++i) {
        TrieNode node = trie[i];
        if (i == root) continue;
        const bool below = i > root && i < trie[root].end;
        if (below) node.end -= root, --node.depth;
        else if (node.end > root) node.end -= trie[root].end - root;
        nodes[below].push_back(node);
        full[below].push_back(i);
    }
    return {make_branch(nodes[0], full[0], same, tokens), make_branch(nodes[1], full[1], same, tokens)};
}

}  // namespace

std::vector<std::string> control_texts() {
    return {std::string(kBosText), std::string(kEosText), std::string(kThinkBegin), std::string(kThinkEnd),
            std::string(kDsmlToken)};
}

const Dfa &plain_keys() {
    static const Dfa keys = [] {
        std::string reason;
        return intersect(*pattern_text("^[^\"\\\\\\u0000-\\u001f]{1,64}$", TextForm::raw, reason),
                         dfa_avoiding(control_texts()), "key");
    }();
    return keys;
}

Vocabulary::Vocabulary(VocabularySource source) : source_(std::move(source)) {
    const size_t n = size();
    if (n == 0 || n > (1u << 24)) throw Error(DSV4_E_INVALID, "vocabulary: expected 1 to 16777216 tokens");
    if (!source_.added.empty() && source_.added.size() != n)
        throw Error(DSV4_E_INVALID, "vocabulary: expected one `added` entry per token");
    for (const int32_t id : {source_.dsml, source_.think_end, source_.eos})
        if (id >= static_cast<int32_t>(n)) throw Error(DSV4_E_INVALID, "vocabulary: a control token's id is out of range");
    if (source_.eos < 0) throw Error(DSV4_E_INVALID, "vocabulary: expected an end-of-sentence token");
    std::vector<uint32_t> order;
    for (uint32_t t = 0; t < n; ++t) {
        const auto id = static_cast<int32_t>(t);
        const bool symbol = id == source_.dsml || id == source_.think_end || id == source_.eos;
        if (!symbol && !added(t) && !bytes(t).empty() && bytes(t).size() < 255) order.push_back(t);
    }
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return bytes(a) < bytes(b); });
    same_.assign(n, -1);
    trie_.push_back({0, -1, 0, 0});
    std::vector<uint32_t> path = {0};  // nodes from the root to the last token's
    std::string_view last;
    for (const uint32_t t : order) {
        const std::string_view text = bytes(t);
        size_t common = 0;
        while (common < last.size() && common < text.size() && last[common] == text[common]) ++common;
        for (; path.size() > common + 1; path.pop_back()) trie_[path.back()].end = static_cast<uint32_t>(trie_.size());
        for (size_t i = common; i < text.size(); ++i) {
            path.push_back(static_cast<uint32_t>(trie_.size()));
            trie_.push_back({0, -1, static_cast<uint8_t>(text[i]), static_cast<uint8_t>(i + 1)});
        }
        Node &node = trie_[path.back()];
        same_[t] = node.token;
        node.shared = node.token >= 0;
        node.token = static_cast<int32_t>(t);
        last = text;
    }
    for (; !path.empty(); path.pop_back()) trie_[path.back()].end = static_cast<uint32_t>(trie_.size());
    size_t single = 0;
    for (uint32_t i = 1; i < trie_.size(); i = trie_[i].end) single += trie_[i].token >= 0;
    if (single != 256)
        throw Error(DSV4_E_INVALID, "vocabulary: expected a token for every single byte, found " + std::to_string(single));

    for (space_ = 1; trie_[space_].byte != ' ';) space_ = trie_[space_].end;
    branches_ = split(trie_, space_, same_, n);
    sweep_ = std::make_unique<const Sweep>(trie_, same_, n);
    for (const TextForm form : {TextForm::raw, TextForm::json}) {
        lengths_[form == TextForm::json] = TokenLengths(trie_, same_, n, form);
        tails_[form == TextForm::json] = TailNodes(trie_, text_tail(form));
    }

    const std::vector<std::string> all = control_texts(), marker = {std::string(kDsmlToken)};
    const Dfa plain = intersect(any_text(TextForm::raw), dfa_avoiding(all), "text");
    const Dfa value = intersect(any_text(TextForm::raw), dfa_avoiding(marker), "text");
    common_.push_back(leaf(plain, false));
    common_.push_back(leaf(plain, false));
    common_.push_back(leaf(dfa_followed_by(plain, "\n\n<", "text")));
    common_.push_back(leaf(dfa_followed_by(value, "</", "text")));
    for (const auto &avoided : {marker, all})
        common_.push_back(leaf(dfa_followed_by(
            intersect(any_text(TextForm::json), dfa_avoiding(avoided), "text"), "\"", "text")));
    common_.push_back(leaf(dfa_followed_by(plain_keys(), "\"", "key")));
    std::string reason;
    common_.push_back(leaf(*pattern_text("^(?: |\\n[ \\t]{0,24})?$", TextForm::raw, reason)));
    common_.push_back(leaf(number_text(NumberRange{}, "number")));
}

}  // namespace dsv4
