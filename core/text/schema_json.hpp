// The JSON of schemas and tools as a tree that can be taken apart and put together. Unlike nlohmann::json, whose
// noexcept destructor allocates and so ends a process that is short of memory, taking it apart never allocates.
#pragma once
#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsv4 {

class JsonValue;

class SchemaJson {
public:
    using Member = std::pair<std::string, SchemaJson>;

    SchemaJson() = default;
    template <std::same_as<bool> T> SchemaJson(T value) : kind_(value ? Kind::yes : Kind::no) {}
    static SchemaJson string(std::string text);
    static SchemaJson array(std::initializer_list<SchemaJson> items = {});
    static SchemaJson object(std::initializer_list<Member> members = {});
    /// Error (DSV4_E_INVALID) naming `what` when a number is not finite as a double.
    static SchemaJson from(const JsonValue &value, const std::string &what);

    bool is_null() const { return kind_ == Kind::null; }
    bool is_boolean() const { return kind_ == Kind::yes || kind_ == Kind::no; }
    bool is_integer() const { return kind_ == Kind::integer; } // as written: 1, not 1.0
    bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::real; }
    bool is_string() const { return kind_ == Kind::string; }
    bool is_array() const { return kind_ == Kind::array; }
    bool is_object() const { return kind_ == Kind::object; }
    const char *kind_name() const;

    bool boolean() const { return kind_ == Kind::yes; }
    double number() const { return number_; }
    const std::string &text() const { return text_; }

    /// Of arrays.
    std::vector<SchemaJson> &items() { return items_; }
    const std::vector<SchemaJson> &items() const { return items_; }
    /// Of objects, in the order of the text.
    const std::vector<Member> &members() const { return members_; }
    /// Nothing inside: of null, scalars, and empty containers.
    bool empty() const { return items_.empty() && members_.empty(); }

    bool contains(std::string_view name) const { return find(name) != nullptr; }
    /// NULL when it is absent or this is no object.
    const SchemaJson *find(std::string_view name) const;
    /// null when it is absent.
    const SchemaJson &operator[](std::string_view name) const;
    /// Added when it is absent.
    SchemaJson &operator[](std::string_view name);
    /// RFC 6901; NULL when there is nothing.
    const SchemaJson *at(std::string_view pointer) const;

    /// Numbers by value, objects whatever the order of their members.
    bool operator==(const SchemaJson &other) const;

    /// comma and colon: what stands between items, and between name and value.
    void append_to(std::string &out, std::string_view comma, std::string_view colon) const;
    std::string dump() const {
        std::string out;
        append_to(out, ",", ":");
        return out;
    }

private:
    enum class Kind : unsigned char { null, no, yes, integer, real, string, array, object };

    Kind kind_ = Kind::null;
    double number_ = 0;
    std::string text_; // a string's UTF-8; a number as Python prints it
    std::vector<SchemaJson> items_;
    std::vector<Member> members_;
};

/// Whether an array has an item of that value.
bool holds(const SchemaJson &array, const SchemaJson &value);

/// Parses JSON meant for a schema; Error (DSV4_E_INVALID) names `what`. Depth and size are limited.
SchemaJson parse_schema_json(std::string_view text, const std::string &what);

} // namespace dsv4
