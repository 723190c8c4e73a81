// A conversation -> the exact prompt text the model was trained on.
#pragma once
#include "core/text/dialect.hpp"
#include "core/text/messages.hpp"
#include <string>
#include <vector>

namespace dsv4 {

struct EncodedPrompt {
    /// A caller's words inside `text`; ranges are not empty, in order, and do not overlap.
    struct Content {
        size_t begin, end;
        Origin origin;
    };
    /// What the model said in one assistant message: from after the header to the end, EOS included.
    struct Answer {
        size_t begin, end;
        size_t message; ///< index into Conversation::messages()
        bool thinking;  ///< the text starts with reasoning and </think>
        bool eos;       ///< the text ends with EOS
    };
    std::string text;
    std::vector<Content> contents;
    std::vector<Answer> answers;
};

/// Throws Error(DSV4_E_INVALID) naming the message ("messages[3]: ...") where the released encoder raises an exception.
/// Where that one would print a Python object, this one is an error too; `arguments` given as an object instead of its
/// text, which it wraps in a parameter named "arguments", are taken as the arguments they are.
EncodedPrompt encode_prompt(const Conversation &conversation, const Dialect &dialect);

} // namespace dsv4
