// A tokenizer.json on disk.
#pragma once
#include <memory>
#include <string>
#include "core/text/tokenizer.hpp"

namespace dsv4 {

/// path: the file, or a folder that holds tokenizer.json. Throws Error.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string &path);

}  // namespace dsv4
