#include "core/engine/tokenizer_file.hpp"
#include <filesystem>
#include "core/model/mapped_file.hpp"

namespace dsv4 {

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string &path) {
    std::error_code ignored;
    const std::filesystem::path given(path);
    const MappedFile file(std::filesystem::is_directory(given, ignored) ? (given / "tokenizer.json").string() : path);
    return std::make_shared<const Tokenizer>(Tokenizer::from_json(file.text(), file.path()));
}

}  // namespace dsv4
