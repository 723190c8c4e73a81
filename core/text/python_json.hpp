// JSON as Python's json module reads and writes it. The prompt format is defined by `json.dumps(ensure_ascii=False)`,
// so what must survive a round trip is what survives it there: key order, integers of any length, floats as repr().
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsv4 {

/// One JSON value. Objects keep insertion order; a duplicate key keeps its first place and takes the last value.
class JsonValue {
  public:
    enum class Kind : uint8_t { null, boolean, integer, real, string, array, object };

    JsonValue() = default;
    static JsonValue make_bool(bool value);
    static JsonValue make_integer(int64_t value);
    static JsonValue make_string(std::string text);
    static JsonValue make_array();
    static JsonValue make_object();

    Kind kind() const { return kind_; }
    bool is_null() const { return kind_ == Kind::null; }
    bool is_bool() const { return kind_ == Kind::boolean; }
    bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::real; }
    bool is_string() const { return kind_ == Kind::string; }
    bool is_array() const { return kind_ == Kind::array; }
    bool is_object() const { return kind_ == Kind::object; }
    /// "null", "boolean", "integer", "real", "string", "array", "object": for error messages.
    const char *kind_name() const;

    /// Python's truth: null, false, zero, "" and empty containers are false.
    bool truthy() const;
    bool boolean() const { return flag_; }
    /// A string's UTF-8, or a number as Python prints it.
    const std::string &text() const { return text_; }
    /// An integer that fits, else false.
    bool to_int64(int64_t &out) const;

    size_t size() const { return items_.size(); }
    const std::vector<JsonValue> &items() const { return items_; } ///< of an array, or an object's values
    const std::vector<std::string> &keys() const { return keys_; } ///< of an object, beside items()
    /// An object's member, or null when it is absent or this is no object.
    const JsonValue *find(std::string_view key) const;

    void push_back(JsonValue value);
    /// Replaces the member, or appends it.
    void set(std::string_view key, JsonValue value);
    /// Appends a member whose key is known to be new: set() searches, which is slow for large objects.
    void append_unchecked(std::string key, JsonValue value);

  private:
    friend class PythonJsonReader;
    Kind kind_ = Kind::null;
    bool flag_ = false;
    std::string text_;
    std::vector<JsonValue> items_;
    std::vector<std::string> keys_;
};

/// Arrays and objects inside each other; Python's own parser gives up near here too.
inline constexpr size_t json_max_depth = 1000;

/// json.loads: RFC 8259 plus NaN, Infinity and -Infinity. Text must be UTF-8; a \u escape of half a surrogate pair,
/// which has no UTF-8 form, becomes U+FFFD. Throws Error(DSV4_E_INVALID) with `name`, what was expected and the byte
/// offset.
JsonValue parse_python_json(std::string_view text, const std::string &name);

/// The same verdict without the exception: false where json.loads would raise.
bool try_parse_python_json(std::string_view text, JsonValue &out);

/// json.dumps(value, ensure_ascii=False): ", " and ": " between, controls as \u00xx, everything else raw.
std::string dump_python_json(const JsonValue &value);
void append_python_json(std::string &out, const JsonValue &value);

/// repr(float(text)) of a JSON number's text: 100.0, 1e-07, inf as Infinity.
std::string python_float_repr(std::string_view number_text);

} // namespace dsv4
