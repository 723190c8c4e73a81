#pragma once
#include <string>

/// A tokenizer.json of some 300 tokens: bytes, a few merges, the control tokens of the chat format.
std::string small_tokenizer_json();
