// One markup tag at the front of a text, as the release writes it or as models misspell it.
#pragma once
#include <cstddef>
#include <string_view>

namespace dsv4 {

struct DsmlTag {
    enum class Word { block, invoke, parameter, other };
    enum class Mark {
        exact,    ///< ｜DSML｜
        variant,  ///< doubled or ASCII bars, a lost bar
        none      ///< <invoke ...>
    };
    enum class Type { absent, string, json, unknown };  ///< the string attribute: -, "true", "false", anything else

    bool closing = false;
    bool exact_spelling = true;  ///< exactly the release's text
    bool malformed = false;      ///< an opener without a readable name
    bool has_end = true;         ///< the '>' is there
    Word word = Word::other;
    Mark mark = Mark::none;
    Type type = Type::absent;
    std::string_view name;  ///< slice of the scanned text
    size_t length = 0;      ///< bytes the tag takes
};

enum class TagScan {
    tag,
    text,  ///< not markup: the '<' is an ordinary character
    more,  ///< cannot be told yet
    cut    ///< the text ended inside what may have been a tag; `mark`, `word` and `closing` are set as far as known
};

/// Names longer than this are not names; it bounds how much text a parser must hold back.
inline constexpr size_t kMaxDsmlName = 256;
/// No tag is longer.
inline constexpr size_t kMaxDsmlTag = kMaxDsmlName + 128;

/// Looks at text[0] == '<'. `final`: no more text will come, so never TagScan::more.
TagScan scan_dsml_tag(std::string_view text, bool final, DsmlTag &tag);

}  // namespace dsv4
