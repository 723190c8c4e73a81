// A prompt on its way to tokens: a conversation and the choices that come with it.
#pragma once
#include <optional>
#include <string>
#include "core/text/dialect.hpp"
#include "core/text/messages.hpp"

namespace dsv4 {

struct Prompt {
    Conversation conversation;
    std::string dialect;  // "" = the model's

    const Dialect &dialect_or(std::string_view models) const {
        return find_dialect(dialect.empty() ? models : std::string_view(dialect));
    }
    /// The offered tools as an OpenAI array: those beside the messages and those that messages carry.
    std::string tools_json() const;
    /// The last response format that a message carries, as OpenAI's "response_format"; "" when there is none. A bare
    /// schema, which the prompt format allows, is wrapped.
    std::string response_format_json() const;
};

}  // namespace dsv4

struct dsv4_prompt {
    dsv4::Prompt prompt;
};
