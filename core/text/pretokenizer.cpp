#include "core/text/pretokenizer.hpp"
#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace dsv4 {

namespace {

// White_Space of Unicode's PropList.txt, and everything else, as the inside of a character class.
constexpr std::string_view white_space =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view not_white_space =
    R"(\x00-\x08\x0e-\x1f\x21-\x84\x86-\x9f\xa1-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e})"
    R"(\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

[[noreturn]] void unsupported(std::string_view pattern, size_t at, const std::string &what) {
    throw Error(DSV4_E_UNSUPPORTED, "split pattern " + std::string(pattern.substr(0, 120)) + ": " + what + " at byte " +
                                        std::to_string(at) + " is not supported");
}

} // namespace

std::string translate_pattern(std::string_view pattern) {
    constexpr std::string_view posix_space = "[:space:]";
    std::string out;
    bool in_class = false;
    for (size_t at = 0; at < pattern.size(); ++at) {
        const char c = pattern[at];
        if (c == '\\' && at + 1 < pattern.size()) {
            const char escaped = pattern[++at];
            const auto put_set = [&](std::string_view inside) {
                if (in_class) out += inside;
                else (out += '[').append(inside) += ']';
            };
            switch (escaped) {
            case 's': put_set(white_space); break;
            case 'S': put_set(not_white_space); break;
            case 'h': put_set("0-9a-fA-F"); break;
            case 'u':
                if (at + 4 >= pattern.size()) unsupported(pattern, at, "\\u without four digits");
                out.append("\\x{").append(pattern, at + 1, 4) += '}';
                at += 4;
                break;
            case 'H':
            case 'Q':
            case 'E':
            case 'K':
            case 'R':
            case 'X':
            case 'C':
            case 'G':
            case 'N':
            case 'O': unsupported(pattern, at, std::string("\\") + escaped);
            default: (out += c) += escaped;
            }
            continue;
        }
        if (!in_class) {
            in_class = c == '[';
            out += c;
            if (!in_class) continue;
            // A ']' right after the opening is an ordinary member.
            if (pattern.substr(at + 1, 1) == "^") out += pattern[++at];
            if (pattern.substr(at + 1, 1) == "]") unsupported(pattern, at, "an unescaped ']' that opens a class");
            continue;
        }
        if (pattern.substr(at, posix_space.size()) == posix_space) {
            out += white_space;
            at += posix_space.size() - 1;
        } else if (pattern.substr(at, 2) == "[:") {
            const size_t end = pattern.find(":]", at);
            if (end == std::string_view::npos) unsupported(pattern, at, "an unclosed POSIX class");
            out.append(pattern, at, end + 2 - at);
            at = end + 1;
        } else if (c == '[') {
            unsupported(pattern, at, "a class inside a class");
        } else if (pattern.substr(at, 2) == "&&") {
            unsupported(pattern, at, "an intersection of classes");
        } else {
            in_class = c != ']';
            out += c;
        }
    }
    return out;
}

std::string quote_pattern(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        const bool word = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
        if (byte < 0x80 && !word) { // \xHH, since a backslash before some characters would mean something
            static constexpr char hex[] = "0123456789abcdef";
            ((out += "\\x") += hex[byte >> 4]) += hex[byte & 15];
        } else {
            out += c;
        }
    }
    return out;
}

struct Pretokenizer::Stage {
    struct FreeCode {
        void operator()(pcre2_code *code) const { pcre2_code_free(code); }
    };
    std::unique_ptr<pcre2_code, FreeCode> code;
    bool jit;
};

struct Pretokenizer::Scratch::Impl {
    pcre2_match_data *match = nullptr;
    ~Impl() { pcre2_match_data_free(match); }
};

Pretokenizer::Scratch::Scratch() : impl_(std::make_unique<Impl>()) {
    impl_->match = pcre2_match_data_create(1, nullptr);
    if (!impl_->match) throw std::bad_alloc();
}

Pretokenizer::Scratch::~Scratch() = default;
Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer &&) noexcept = default;
Pretokenizer &Pretokenizer::operator=(Pretokenizer &&) noexcept = default;

Pretokenizer::Pretokenizer(const std::vector<std::string> &patterns) {
    struct FreeContext {
        void operator()(pcre2_compile_context *context) const { pcre2_compile_context_free(context); }
    };
    const std::unique_ptr<pcre2_compile_context, FreeContext> context(pcre2_compile_context_create(nullptr));
    if (!context) throw std::bad_alloc();
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    for (const std::string &given : patterns) {
        const std::string pattern = translate_pattern(given);
        int error = 0;
        PCRE2_SIZE offset = 0;
        // In Ruby syntax ^ and $ stand at every line.
        Stage stage{std::unique_ptr<pcre2_code, Stage::FreeCode>(
                        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                      &offset, context.get())),
                    false};
        if (!stage.code) {
            PCRE2_UCHAR reason[160];
            pcre2_get_error_message(error, reason, sizeof reason);
            throw Error(DSV4_E_MODEL, "split pattern " + given.substr(0, 120) + ": " +
                                          reinterpret_cast<const char *>(reason) + " at byte " +
                                          std::to_string(offset));
        }
        // Without executable memory (hardened systems) the interpreter gives the same pieces, slower.
        stage.jit = pcre2_jit_compile(stage.code.get(), PCRE2_JIT_COMPLETE) == 0;
        stages_.push_back(std::move(stage));
    }
}

void Pretokenizer::split(std::string_view text, Scratch &scratch, PieceSink &sink) const {
    if (!text.empty()) split_stage(0, text, scratch, sink);
}

void Pretokenizer::split_stage(size_t stage, std::string_view text, Scratch &scratch, PieceSink &sink) const {
    if (stage == stages_.size()) return sink.piece(text);
    const pcre2_code *code = stages_[stage].code.get();
    pcre2_match_data *match = scratch.impl_->match;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
    const auto *subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t done = 0;  // everything before it has been handed on
    size_t start = 0; // where to look; past `done` only after an empty match
    while (start < text.size()) {
        int found = PCRE2_ERROR_JIT_STACKLIMIT;
        if (stages_[stage].jit) found = pcre2_jit_match(code, subject, text.size(), start, 0, match, nullptr);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter keeps its state on the heap
            found = pcre2_match(code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, nullptr);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0)
            throw Error(DSV4_E_INVALID, "split stage " + std::to_string(stage) + ": matching gave up at byte " +
                                            std::to_string(start) + " of a piece of " + std::to_string(text.size()) +
                                            " bytes (PCRE2 error " + std::to_string(found) + ")");
        const size_t begin = range[0], end = range[1];
        if (end <= begin) { // an empty match cuts nothing
            start = begin < text.size() ? begin + utf8_length(text, begin) : text.size();
            continue;
        }
        if (begin > done) split_stage(stage + 1, text.substr(done, begin - done), scratch, sink);
        split_stage(stage + 1, text.substr(begin, end - begin), scratch, sink);
        done = start = end;
    }
    if (done < text.size()) split_stage(stage + 1, text.substr(done), scratch, sink);
}

} // namespace dsv4
