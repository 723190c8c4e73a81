#include "core/model/config_value.hpp"

#include <algorithm>
#include <cstdlib>
#include <deque>

#include "core/model/json_reader.hpp"

namespace dsv4 {

ConfigValue::ConfigValue(bool value) : kind_(Kind::kBool), bool_(value), text_(value ? "true" : "false") {}
ConfigValue::ConfigValue(int value) { set_number(std::to_string(value)); }
ConfigValue::ConfigValue(const char *value) : kind_(Kind::kString), text_(value) {}

ConfigValue ConfigValue::parse(std::string_view text, const std::string &where) {
    std::deque<std::string> decoded;
    JsonReader syntax(text, where, decoded); // bounds the depth before a tree is built
    syntax.skip_value();
    syntax.end();
    JsonReader reader(text, where, decoded);
    return read(reader);
}

ConfigValue ConfigValue::read(JsonReader &reader) {
    ConfigValue v;
    switch (reader.peek()) {
    case '{':
        v.kind_ = Kind::kObject;
        reader.object([&](std::string_view key) {
            std::string name(key);
            v.members_.emplace_back(std::move(name), read(reader));
        });
        return v;
    case '[':
        v.kind_ = Kind::kArray;
        reader.array([&] { v.items_.push_back(read(reader)); });
        return v;
    case '"':
        v.kind_ = Kind::kString;
        v.text_ = reader.string();
        return v;
    default: break;
    }
    const std::string_view raw = reader.raw_value();
    if (raw == "true" || raw == "false") return ConfigValue(raw == "true");
    if (raw != "null") v.set_number(raw);
    return v;
}

/// What skip_value() has found to be a number.
void ConfigValue::set_number(std::string_view text) {
    text_ = text;
    number_ = std::strtod(text_.c_str(), nullptr);
    kind_ = Kind::kFloat;
    if (text.find_first_of(".eE") != std::string_view::npos) return;
    if (text[0] == '-') {
        kind_ = Kind::kSigned;
    } else if (text.size() <= 19) {  // below 2^63, whatever the digits
        kind_ = Kind::kUnsigned;
        unsigned_ = std::strtoull(text_.c_str(), nullptr, 10);
    }
}

const ConfigValue *ConfigValue::find(std::string_view key) const {
    const auto found = std::find_if(members_.rbegin(), members_.rend(), [&](const auto &m) { return m.first == key; });
    return found == members_.rend() ? nullptr : &found->second;
}

std::string ConfigValue::shown() const {
    if (is_object()) return "an object";
    if (is_array()) return "a list of " + std::to_string(items_.size());
    if (is_null()) return "null";
    return is_string() ? '"' + text_ + '"' : text_;
}

bool ConfigValue::operator==(const ConfigValue &other) const {
    if (is_number() && other.is_number()) return number_ == other.number_;
    return kind_ == other.kind_ && !is_array() && !is_object() && bool_ == other.bool_ && text_ == other.text_;
}

} // namespace dsv4
