#include "core/plugin/manifest.hpp"
#include "core/error.hpp"
#include "core/model/config_value.hpp"
#include <algorithm>
#include <fstream>

namespace dsv4 {
namespace {

using Json = ConfigValue;
constexpr size_t max_bytes = 64 * 1024;
constexpr size_t max_features = 64;

[[noreturn]] void refuse(const std::string &why) { throw Error(DSV4_E_UNSUPPORTED, why); }

const Json &need(const Json &object, const char *key) {
    const Json *found = object.find(key);
    if (!found) refuse(std::string("manifest lacks \"") + key + "\"");
    return *found;
}

std::string need_string(const Json &object, const char *key, size_t limit) {
    const Json &value = need(object, key);
    if (!value.is_string()) refuse(std::string("manifest: \"") + key + "\" must be a string");
    const std::string &text = value.text();
    if (text.empty() || text.size() > limit)
        refuse(std::string("manifest: \"") + key + "\" has " + std::to_string(text.size()) + " bytes, expected 1 to " +
               std::to_string(limit));
    return text;
}

uint32_t need_number(const Json &object, const char *key) {
    const Json &value = need(object, key);
    if (!value.is_unsigned() || value.unsigned_integer() > UINT32_MAX)
        refuse(std::string("manifest: \"") + key + "\" must be a whole number from 0 to 4294967295");
    return static_cast<uint32_t>(value.unsigned_integer());
}

Json parse_json(std::string_view text) try {
    return Json::parse(text, "manifest is not JSON");
} catch (const Error &e) {
    refuse(e.what());
}

bool is_word(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    });
}

} // namespace

Manifest parse_manifest(std::string_view text, const std::filesystem::path &where) {
    if (text.size() > max_bytes)
        refuse("manifest has " + std::to_string(text.size()) + " bytes, expected at most " + std::to_string(max_bytes));
    const Json json = parse_json(text);
    if (!json.is_object()) refuse("manifest is not a JSON object");
    if (const uint32_t format = need_number(json, "manifest"); format != 1)
        refuse("manifest format " + std::to_string(format) + ", this library reads format 1");

    Manifest m;
    m.path = where;
    m.name = need_string(json, "name", 32);
    if (!is_word(m.name)) refuse("manifest: \"name\" may hold a-z, 0-9, '.', '-' and '_' only");
    m.version = need_string(json, "version", 64);
    m.library = need_string(json, "library", 200);
    // The library is the manifest's neighbour: whoever may write a manifest may not point elsewhere with it.
    if (m.library == "." || m.library == ".." ||
        m.library.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
        refuse("manifest: \"library\" must be a file name in the manifest's own folder, not a path");
    m.abi_min = need_number(json, "abi_min");
    m.abi_max = need_number(json, "abi_max");
    if (m.abi_min == 0 || m.abi_min > m.abi_max)
        refuse("manifest: ABI range " + std::to_string(m.abi_min) + " to " + std::to_string(m.abi_max) + " is empty");
    m.arch = need_string(json, "arch", 32);
    const Json &features = need(json, "cpu_features");
    if (!features.is_array() || features.items().size() > max_features)
        refuse("manifest: \"cpu_features\" must be a list of at most " + std::to_string(max_features) + " names");
    for (const Json &feature : features.items()) {
        if (!feature.is_string() || !is_word(feature.text()))
            refuse("manifest: \"cpu_features\" must hold names such as \"avx2\"");
        m.cpu_features.push_back(feature.text());
    }
    return m;
}

Manifest read_manifest(const std::filesystem::path &path) {
    std::error_code ec;
    if (!std::filesystem::is_regular_file(path, ec)) refuse("manifest is not a regular file");
    std::ifstream in(path, std::ios::binary);
    if (!in) refuse("manifest cannot be opened for reading");
    std::string text(max_bytes + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (in.bad()) refuse("manifest cannot be read");
    text.resize(static_cast<size_t>(in.gcount()));
    return parse_manifest(text, path);
}

} // namespace dsv4
