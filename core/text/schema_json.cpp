#include "core/text/schema_json.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/dsml_json.hpp"
#include "core/text/python_json.hpp"

namespace dsv4 {
namespace {

constexpr size_t kMaxSchemaText = 1u << 20;

}  // namespace

SchemaJson SchemaJson::string(std::string text) {
    SchemaJson out;
    out.kind_ = Kind::string;
    out.text_ = std::move(text);
    return out;
}

SchemaJson SchemaJson::array(std::initializer_list<SchemaJson> items) {
    SchemaJson out;
    out.kind_ = Kind::array;
    out.items_ = items;
    return out;
}

SchemaJson SchemaJson::object(std::initializer_list<Member> members) {
    SchemaJson out;
    out.kind_ = Kind::object;
    out.members_ = members;
    return out;
}

SchemaJson SchemaJson::from(const JsonValue &value, const std::string &what) {
    SchemaJson out;
    switch (value.kind()) {
    case JsonValue::Kind::null: break;
    case JsonValue::Kind::boolean: out.kind_ = value.boolean() ? Kind::yes : Kind::no; break;
    case JsonValue::Kind::integer:
    case JsonValue::Kind::real:
        out.kind_ = value.kind() == JsonValue::Kind::integer ? Kind::integer : Kind::real;
        out.text_ = value.text();
        out.number_ = std::strtod(out.text_.c_str(), nullptr);
        if (!std::isfinite(out.number_))
            throw Error(DSV4_E_INVALID, what + ": expected numbers that a double can hold, found " + out.text_.substr(0, 40));
        break;
    case JsonValue::Kind::string: return string(value.text());
    case JsonValue::Kind::array:
        out.kind_ = Kind::array;
        out.items_.reserve(value.size());
        for (const JsonValue &item : value.items()) out.items_.push_back(from(item, what));
        break;
    case JsonValue::Kind::object:
        out.kind_ = Kind::object;
        out.members_.reserve(value.size());
        for (size_t i = 0; i < value.size(); ++i) out.members_.emplace_back(value.keys()[i], from(value.items()[i], what));
        break;
    }
    return out;
}

const char *SchemaJson::kind_name() const {
    static constexpr const char *names[] = {"null", "boolean", "boolean", "number", "number", "string", "array", "object"};
    return names[static_cast<size_t>(kind_)];
}

const SchemaJson *SchemaJson::find(std::string_view name) const {
    for (const Member &member : members_)
        if (member.first == name) return &member.second;
    return nullptr;
}

const SchemaJson &SchemaJson::operator[](std::string_view name) const {
    static const SchemaJson absent;
    const SchemaJson *found = find(name);
    return found ? *found : absent;
}

SchemaJson &SchemaJson::operator[](std::string_view name) {
    for (Member &member : members_)
        if (member.first == name) return member.second;
    return members_.emplace_back(std::string(name), SchemaJson()).second;
}

const SchemaJson *SchemaJson::at(std::string_view pointer) const {
    const SchemaJson *here = this;
    while (here && !pointer.empty()) {
        if (pointer[0] != '/') return nullptr;
        pointer.remove_prefix(1);
        const std::string_view token = pointer.substr(0, pointer.find('/'));
        pointer.remove_prefix(token.size());
        if (here->is_array()) {
            size_t index = 0;
            const bool digits = !token.empty() && token.size() <= 9 && (token == "0" || token[0] != '0') &&
                                std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; });
            for (const char c : token) index = index * 10 + static_cast<size_t>(c - '0');
            here = digits && index < here->items_.size() ? &here->items_[index] : nullptr;
            continue;
        }
        std::string name;
        for (size_t i = 0; i < token.size(); ++i) {
            if (token[i] == '~') {
                if (++i == token.size() || (token[i] != '0' && token[i] != '1')) return nullptr;
                name += token[i] == '0' ? '~' : '/';
            } else {
                name += token[i];
            }
        }
        here = here->find(name);
    }
    return here;
}

bool SchemaJson::operator==(const SchemaJson &other) const {
    if (is_number() && other.is_number())
        return is_integer() && other.is_integer() ? text_ == other.text_ : number_ == other.number_;
    if (kind_ != other.kind_ || text_ != other.text_ || members_.size() != other.members_.size()) return false;
    if (!std::equal(items_.begin(), items_.end(), other.items_.begin(), other.items_.end())) return false;
    return std::all_of(members_.begin(), members_.end(), [&](const Member &member) {
        const SchemaJson *theirs = other.find(member.first);
        return theirs && member.second == *theirs;
    });
}

void SchemaJson::append_to(std::string &out, std::string_view comma, std::string_view colon) const {
    std::string_view between;
    switch (kind_) {
    case Kind::null: out += "null"; break;
    case Kind::no: out += "false"; break;
    case Kind::yes: out += "true"; break;
    case Kind::integer:
    case Kind::real: out += text_; break;
    case Kind::string: append_json_string(out, text_); break;
    case Kind::array:
        out += '[';
        for (const SchemaJson &item : items_) {
            out += between;
            between = comma;
            item.append_to(out, comma, colon);
        }
        out += ']';
        break;
    case Kind::object:
        out += '{';
        for (const auto &[name, value] : members_) {
            out += between;
            between = comma;
            append_json_string(out, name);
            out += colon;
            value.append_to(out, comma, colon);
        }
        out += '}';
        break;
    }
}

bool holds(const SchemaJson &array, const SchemaJson &value) {
    return std::find(array.items().begin(), array.items().end(), value) != array.items().end();
}

SchemaJson parse_schema_json(std::string_view text, const std::string &what) {
    if (text.size() > kMaxSchemaText)
        throw Error(DSV4_E_UNSUPPORTED, what + ": expected at most 1 MiB of JSON, found " + std::to_string(text.size()));
    if (find_invalid_utf8(text) != text.size()) throw Error(DSV4_E_INVALID, what + ": expected UTF-8");
    switch (check_json(text)) {
    case JsonVerdict::too_deep:
        throw Error(DSV4_E_INVALID,
                    what + ": expected at most " + std::to_string(kMaxJsonDepth) + " levels of JSON, found more");
    case JsonVerdict::invalid: throw Error(DSV4_E_INVALID, what + ": expected JSON, found something else");
    case JsonVerdict::valid: break;
    }
    return SchemaJson::from(parse_python_json(text, what), what);
}

}  // namespace dsv4
