// Number languages: digits compared with the bounds from the left, so ranges are exact for plain decimals.
#include <algorithm>
#include <map>
#include <tuple>

#include "core/error.hpp"
#include "core/text/grammar_text.hpp"

namespace dsv4 {
namespace {

constexpr size_t kWhole = 18, kFraction = 17;  // digits

/// A non-negative bound: digits before and after the point, no leading or trailing zeros ("0" before stays).
struct Bound {
    std::string whole = "0", fraction;
};

Bound bound_of(std::string_view text) {
    Bound out;
    const size_t point = text.find('.');
    std::string whole(text.substr(0, point)), fraction(point == std::string_view::npos ? "" : text.substr(point + 1));
    while (whole.size() > 1 && whole[0] == '0') whole.erase(0, 1);
    while (!fraction.empty() && fraction.back() == '0') fraction.pop_back();
    out.whole = whole;
    out.fraction = fraction;
    return out;
}

int compare(const Bound &a, const Bound &b) {
    if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
    if (const int c = a.whole.compare(b.whole)) return c < 0 ? -1 : 1;
    const int c = a.fraction.compare(b.fraction);  // no trailing zeros: a prefix is smaller
    return c < 0 ? -1 : c > 0;
}

/// Builds the texts of x >= 0 with low <= x <= high.
class Digits {
public:
    Digits(Nfa &nfa, uint32_t end, Bound low, bool low_open, std::optional<Bound> high, bool high_open, bool integer)
        : nfa_(nfa), end_(end), low_(std::move(low)), low_open_(low_open), high_(std::move(high)),
          high_open_(high_open), integer_(integer),
          fractions_(std::max({kFraction, low_.fraction.size() + 2, high_ ? high_->fraction.size() + 2 : 0})) {}

    void build(uint32_t from) {
        const size_t most = high_ ? high_->whole.size() : std::max(kWhole, low_.whole.size() + 1);
        for (size_t n = low_.whole.size(); n <= most; ++n)
            nfa_.epsilon(from, whole(n, 0, n == low_.whole.size(), high_ && n == high_->whole.size()));
    }

private:
    static char digit(const std::string &text, size_t i) { return i < text.size() ? text[i] : '0'; }

    uint32_t whole(size_t length, size_t at, bool tight_low, bool tight_high) {
        if (at == length) return fraction(0, tight_low, tight_high);
        const auto [it, fresh] = whole_.emplace(std::tuple(length, at, tight_low, tight_high), 0);
        if (!fresh) return it->second;
        const uint32_t state = it->second = nfa_.state();
        for (char c = length > 1 && at == 0 ? '1' : '0'; c <= '9'; ++c)
            if (const auto to = step(c, tight_low, tight_high, low_.whole, high_ ? high_->whole : low_.whole, at))
                nfa_.edge(state, static_cast<uint8_t>(c), static_cast<uint8_t>(c),
                          whole(length, at + 1, to->first, to->second));
        return state;
    }

    /// After the point's first `at` digits; at == 0 stands before the point.
    uint32_t fraction(size_t at, bool tight_low, bool tight_high) {
        const auto [it, fresh] = fraction_.emplace(std::tuple(at, tight_low, tight_high), 0);
        if (!fresh) return it->second;
        const uint32_t state = it->second = nfa_.state();
        const bool on_low = tight_low && at >= low_.fraction.size();
        const bool below = tight_low && !on_low;
        const bool on_high = tight_high && high_ && at >= high_->fraction.size();
        if (!below && !(on_low && low_open_) && !(on_high && high_open_)) nfa_.epsilon(state, end_);
        if (integer_ || at == fractions_) return state;
        uint32_t from = state;
        if (at == 0) {
            from = nfa_.state();
            nfa_.edge(state, '.', '.', from);
        }
        for (char c = '0'; c <= '9'; ++c)
            if (const auto to = step(c, tight_low, tight_high, low_.fraction, high_ ? high_->fraction : low_.fraction, at))
                nfa_.edge(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), fraction(at + 1, to->first, to->second));
        return state;
    }

    static std::optional<std::pair<bool, bool>> step(char c, bool tight_low, bool tight_high, const std::string &low,
                                                     const std::string &high, size_t at) {
        if ((tight_low && c < digit(low, at)) || (tight_high && c > digit(high, at))) return std::nullopt;
        return std::pair(tight_low && c == digit(low, at), tight_high && c == digit(high, at));
    }

    Nfa &nfa_;
    uint32_t end_;
    Bound low_;
    bool low_open_;
    std::optional<Bound> high_;
    bool high_open_, integer_;
    size_t fractions_;
    std::map<std::tuple<size_t, size_t, bool, bool>, uint32_t> whole_;
    std::map<std::tuple<size_t, bool, bool>, uint32_t> fraction_;
};

bool negative(std::string_view text) { return !text.empty() && text[0] == '-'; }
std::string_view magnitude(std::string_view text) { return negative(text) ? text.substr(1) : text; }

}  // namespace

int compare_decimals(std::string_view a, std::string_view b) {
    const Bound x = bound_of(magnitude(a)), y = bound_of(magnitude(b));
    const bool zero_x = x.whole == "0" && x.fraction.empty(), zero_y = y.whole == "0" && y.fraction.empty();
    const int sx = zero_x ? 0 : negative(a) ? -1 : 1, sy = zero_y ? 0 : negative(b) ? -1 : 1;
    if (sx != sy) return sx < sy ? -1 : 1;
    return sx >= 0 ? compare(x, y) : compare(y, x);
}

std::optional<std::string> plain_decimal(std::string_view number) {
    const bool minus = negative(number);
    number = magnitude(number);
    const size_t e = number.find_first_of("eE");
    long exponent = 0;
    if (e != std::string_view::npos) {
        for (const char c : number.substr(e + 1)) {
            if (c == '+' || c == '-') continue;
            exponent = exponent * 10 + (c - '0');
            if (exponent > 40) return std::nullopt;
        }
        if (number[e + 1] == '-') exponent = -exponent;
    }
    std::string digits(number.substr(0, e));
    size_t point = digits.find('.');
    if (point == std::string::npos) point = digits.size();
    else digits.erase(point, 1);
    long place = static_cast<long>(point) + exponent;
    while (place <= 0) digits.insert(digits.begin(), '0'), ++place;
    while (place > static_cast<long>(digits.size())) digits += '0';
    digits.insert(static_cast<size_t>(place), 1, '.');
    const Bound bound = bound_of(digits);
    if (bound.whole.size() + bound.fraction.size() > 40) return std::nullopt;
    const bool zero = bound.whole == "0" && bound.fraction.empty();
    std::string out(minus && !zero ? "-" : "");
    out += bound.whole;
    if (!bound.fraction.empty()) (out += '.') += bound.fraction;
    return out;
}

Dfa number_text(const NumberRange &range, const std::string &what) {
    Nfa nfa;
    const uint32_t start = nfa.state(), digits_end = nfa.state(), end = nfa.state();
    nfa.epsilon(digits_end, end);
    if (!range.integer && !range.low && !range.high) {
        const uint32_t sign = nfa.state(), first = nfa.state(), last = nfa.state();
        nfa.edge(digits_end, 'e', 'e', sign);
        nfa.edge(digits_end, 'E', 'E', sign);
        nfa.edge(sign, '+', '+', first);
        nfa.edge(sign, '-', '-', first);
        nfa.epsilon(sign, first);
        nfa.edge(first, '0', '9', last);
        nfa.edge(last, '0', '9', end);
        nfa.epsilon(last, end);
    }
    const bool low_negative = !range.low || negative(*range.low);
    const bool high_negative = range.high && negative(*range.high);
    if (!high_negative) {
        // An open bound at a negative place does not exclude zero.
        Digits digits(nfa, digits_end, low_negative ? Bound{} : bound_of(*range.low), !low_negative && range.low_open,
                      range.high ? std::optional(bound_of(*range.high)) : std::nullopt, range.high_open, range.integer);
        if (!range.high || low_negative ||
            compare(bound_of(*range.low), bound_of(*range.high)) <= 0)
            digits.build(start);
    }
    if (low_negative) {
        const uint32_t minus = nfa.state();
        nfa.edge(start, '-', '-', minus);
        const Bound near = high_negative ? bound_of(magnitude(*range.high)) : Bound{};
        const bool near_open = high_negative ? range.high_open : true;  // no -0
        std::optional<Bound> far;
        if (range.low) far = bound_of(magnitude(*range.low));
        if (!far || compare(near, *far) <= 0)
            Digits(nfa, digits_end, near, near_open, far, range.low_open, range.integer).build(minus);
    }
    return nfa.determinize(start, end, what);
}

}  // namespace dsv4
