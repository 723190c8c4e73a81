// Byte automata: small NFAs made deterministic, trimmed so that every state can still reach the end of the language.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// A deterministic automaton over bytes. From every state an accepting one can be reached.
struct Dfa {
    static constexpr int32_t kDead = -1;
    std::array<uint8_t, 256> class_of{};
    size_t classes = 0;
    std::vector<int32_t> table;      // [1 + states, classes]; first kDead's row, so that a dead walk may go on
    std::vector<uint8_t> accept;     // [states]
    std::vector<uint32_t> distance;  // [states] bytes to the nearest accepting state
    int32_t start = 0, first_accepting = 0;  // accepting states are the last ones

    size_t size() const { return accept.size(); }
    /// [classes] the next states.
    const int32_t *row(int32_t state) const { return table.data() + static_cast<size_t>(state + 1) * classes; }
    int32_t next(int32_t state, uint8_t byte) const { return row(state)[class_of[byte]]; }
    int32_t run(int32_t state, std::string_view text) const;
    bool matches(std::string_view text) const;
};

/// Tables beyond these limits are refused: they bound memory and time of a hostile schema.
inline constexpr size_t kMaxDfaStates = 1u << 17, kMaxDfaEntries = 1u << 22;

class Nfa {
public:
    uint32_t state();
    void edge(uint32_t from, uint8_t low, uint8_t high, uint32_t to);
    void epsilon(uint32_t from, uint32_t to);
    void text(uint32_t from, std::string_view bytes, uint32_t to);
    size_t size() const { return states_.size(); }
    /// Throws Error (DSV4_E_UNSUPPORTED) naming `what` when the tables would be too large, Error (DSV4_E_INVALID)
    /// when the language is empty.
    Dfa determinize(uint32_t start, uint32_t end, const std::string &what) const;

private:
    struct Edge {
        uint8_t low, high;
        uint32_t to;
    };
    struct State {
        std::vector<Edge> edges;
        std::vector<uint32_t> epsilons;
    };
    std::vector<State> states_;
};

/// Texts in both languages.
Dfa intersect(const Dfa &a, const Dfa &b, const std::string &what);
/// Exactly these texts (at least one).
Dfa dfa_of_texts(const std::vector<std::string> &texts, const std::string &what);
/// All byte strings in which none of the patterns occurs.
Dfa dfa_avoiding(const std::vector<std::string> &patterns);
/// The language of `characters` where accepting states stand between characters: min to max characters of it.
Dfa dfa_counted(const Dfa &characters, size_t min, size_t max, const std::string &what);
/// The language followed by `tail`.
Dfa dfa_followed_by(const Dfa &a, std::string_view tail, const std::string &what);
/// `texts` removed from the language.
Dfa dfa_without(const Dfa &a, const std::vector<std::string> &texts, const std::string &what);

}  // namespace dsv4
