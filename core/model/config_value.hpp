// A small JSON text as a tree: config.json and plugin manifests. Building it may run out of memory and says so;
// taking it apart never allocates, unlike nlohmann::json, whose noexcept destructor does and so ends a process that is
// short of memory.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsv4 {

class JsonReader;

class ConfigValue {
  public:
    enum class Kind : uint8_t { kNull, kBool, kUnsigned, kSigned, kFloat, kString, kArray, kObject };

    ConfigValue() = default;
    ConfigValue(bool value);
    ConfigValue(int value);
    ConfigValue(const char *value);

    /// A whole text. Throws Error (DSV4_E_MODEL) that starts with `where`. Of members of one name the last counts.
    static ConfigValue parse(std::string_view text, const std::string &where);

    bool is_null() const { return kind_ == Kind::kNull; }
    bool is_number() const { return kind_ >= Kind::kUnsigned && kind_ <= Kind::kFloat; }
    bool is_unsigned() const { return kind_ == Kind::kUnsigned; }
    bool is_string() const { return kind_ == Kind::kString; }
    bool is_array() const { return kind_ == Kind::kArray; }
    bool is_object() const { return kind_ == Kind::kObject; }

    double number() const { return number_; }
    uint64_t unsigned_integer() const { return unsigned_; }
    /// Of a string: its value.
    const std::string &text() const { return text_; }
    const std::vector<ConfigValue> &items() const { return items_; }
    /// NULL when there is none, or this is no object.
    const ConfigValue *find(std::string_view key) const;

    /// As JSON; of arrays and objects only that they are one.
    std::string shown() const;
    /// Scalars of one kind and value; numbers by value.
    bool operator==(const ConfigValue &other) const;

  private:
    static ConfigValue read(JsonReader &reader);
    void set_number(std::string_view text);

    Kind kind_ = Kind::kNull;
    bool bool_ = false;
    uint64_t unsigned_ = 0;
    double number_ = 0;
    std::string text_;  // of scalars but strings: as written
    std::vector<ConfigValue> items_;
    std::vector<std::pair<std::string, ConfigValue>> members_;
};

} // namespace dsv4
