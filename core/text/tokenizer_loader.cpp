// tokenizer.json -> Tokenizer. Whatever the file asks for is either done or refused.
#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/python_json.hpp"
#include "core/text/tokenizer.hpp"
#include <optional>
#include <unordered_map>

namespace dsv4 {

namespace {

// The published file has 6.4 MB and 129,280 ids; these only bound what a damaged one can make us allocate.
constexpr size_t max_file_bytes = size_t{256} << 20;
constexpr size_t max_stages = 32;

// What ByteLevel with "use_regex" splits by: GPT-2's pattern.
constexpr const char *byte_level_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string quoted(std::string_view text) {
    return '"' + std::string(text.substr(0, 80)) + (text.size() > 80 ? "...\"" : "\"");
}

} // namespace

class TokenizerLoader {
  public:
    TokenizerLoader(std::string_view json, const std::string &name) : name_(name) {
        if (json.size() > max_file_bytes)
            fail("expected at most " + std::to_string(max_file_bytes) + " bytes, found " + std::to_string(json.size()));
        try {
            root_ = parse_python_json(json, name);
        } catch (const Error &e) {
            throw Error(DSV4_E_MODEL, e.what());
        }
        if (!root_.is_object()) fail(std::string("expected a JSON object, found ") + root_.kind_name());
    }

    Tokenizer load() {
        refuse_normalizer();
        refuse_other_decoders();
        read_vocabulary();
        read_added_tokens();
        read_merges();
        read_pretokenizer();
        return build();
    }

  private:
    [[noreturn]] void fail(const std::string &what) const { throw Error(DSV4_E_MODEL, name_ + ": " + what); }
    [[noreturn]] void refuse(const std::string &what) const { throw Error(DSV4_E_UNSUPPORTED, name_ + ": " + what); }

    const JsonValue &need(const JsonValue &object, const char *key, JsonValue::Kind kind,
                          const std::string &where) const {
        const JsonValue *value = object.find(key);
        if (!value) fail(where + " has no \"" + key + '"');
        if (value->kind() != kind) fail(where + '.' + key + ": unexpected " + value->kind_name());
        return *value;
    }

    static bool flag(const JsonValue &object, const char *key, bool otherwise) {
        const JsonValue *value = object.find(key);
        return value && value->is_bool() ? value->boolean() : otherwise;
    }

    static std::string type_of(const JsonValue &object) {
        const JsonValue *type = object.find("type");
        return type && type->is_string() ? type->text() : "";
    }

    TokenId read_id(const JsonValue &value, const std::string &where, size_t entries) const {
        int64_t id = -1;
        const auto limit = static_cast<int64_t>((size_t{1} << 20) + 8 * entries);
        if (!value.to_int64(id) || id < 0 || id >= limit)
            fail(where + ": expected an id from 0 to " + std::to_string(limit - 1) + ", found " +
                 dump_python_json(value).substr(0, 40));
        return static_cast<TokenId>(id);
    }

    void refuse_normalizer() const {
        const JsonValue *normalizer = root_.find("normalizer");
        if (!normalizer || normalizer->is_null()) return;
        const JsonValue *list = normalizer->find("normalizers");
        if (type_of(*normalizer) == "Sequence" && list && list->is_array() && list->size() == 0) return;
        refuse("normalizer " + quoted(type_of(*normalizer)) +
               " is not supported: text would not survive decode(encode())");
    }

    void refuse_other_decoders() const {
        const JsonValue *decoder = root_.find("decoder");
        if (decoder && !decoder->is_null() && type_of(*decoder) != "ByteLevel")
            refuse("expected the decoder \"ByteLevel\", found " + quoted(type_of(*decoder)));
    }

    const JsonValue &model() const { return need(root_, "model", JsonValue::Kind::object, "the file"); }

    void put(TokenId id, std::string bytes, const std::string &where) {
        const auto at = static_cast<size_t>(id);
        if (at >= tokens_.size()) tokens_.resize(at + 1);
        if (tokens_[at]) fail(where + ": id " + std::to_string(id) + " is already used");
        tokens_[at] = std::move(bytes);
    }

    void read_vocabulary() {
        const std::string type = type_of(model());
        if (type != "BPE" && !(type.empty() && model().find("merges")))
            refuse("expected a model of type \"BPE\", found " + quoted(type));
        for (const char *key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
            const JsonValue *affix = model().find(key);
            if (affix && affix->truthy()) refuse(std::string("model.") + key + " is not supported");
        }
        for (const char *key : {"dropout", "byte_fallback"}) {
            const JsonValue *option = model().find(key);
            if (option && option->truthy()) refuse(std::string("model.") + key + " is not supported");
        }
        const JsonValue &vocab = need(model(), "vocab", JsonValue::Kind::object, "model");
        ids_.reserve(vocab.size() * 2);
        std::string bytes;
        for (size_t i = 0; i < vocab.size(); ++i) {
            const std::string &spelling = vocab.keys()[i];
            const std::string where = "model.vocab " + quoted(spelling);
            const TokenId id = read_id(vocab.items()[i], where, vocab.size());
            // Entries outside the alphabet are control tokens that no merge makes: their text is their bytes.
            put(id, bytes_from_spelling(spelling, bytes) ? bytes : spelling, where);
            ids_.emplace(spelling, id);
        }
        for (size_t byte = 0; byte < 256; ++byte) {
            const auto found = ids_.find(spelling_from_bytes(std::string(1, static_cast<char>(byte))));
            if (found == ids_.end())
                fail("model.vocab has no token for byte " + std::to_string(byte) + ": not a byte-level vocabulary");
            byte_ids_[byte] = found->second;
        }
    }

    void read_added_tokens() {
        const JsonValue *added = root_.find("added_tokens");
        if (!added || added->is_null()) return;
        if (!added->is_array()) fail(std::string("added_tokens: expected an array, found ") + added->kind_name());
        for (size_t i = 0; i < added->size(); ++i) {
            const JsonValue &entry = added->items()[i];
            const std::string where = "added_tokens[" + std::to_string(i) + ']';
            if (!entry.is_object()) fail(where + ": expected an object, found " + entry.kind_name());
            const std::string &content = need(entry, "content", JsonValue::Kind::string, where).text();
            const TokenId id =
                read_id(need(entry, "id", JsonValue::Kind::integer, where), where, added->size() + tokens_.size());
            if (content.empty()) fail(where + ": expected a text, found an empty one");
            for (const char *key : {"single_word", "lstrip", "rstrip"})
                if (flag(entry, key, false)) refuse(where + ' ' + quoted(content) + ": " + key + " is not supported");
            const auto at = static_cast<size_t>(id);
            if (at < flags_.size() && flags_[at] != 0) fail(where + ": id " + std::to_string(id) + " is already used");
            const auto in_vocabulary = ids_.find(content);
            if (in_vocabulary != ids_.end()) {
                if (in_vocabulary->second != id)
                    fail(where + ' ' + quoted(content) + ": has id " + std::to_string(id) + ", but " +
                         std::to_string(in_vocabulary->second) + " in model.vocab");
                tokens_[at] = content;
            } else {
                put(id, content, where);
            }
            flags_.resize(std::max(flags_.size(), at + 1));
            flags_[at] = Tokenizer::added_flag;
            if (flag(entry, "special", false)) flags_[at] |= Tokenizer::special_flag;
            AddedTokenMatcher &matcher = matchers_[flag(entry, "normalized", true) ? 1 : 0];
            const auto same = matcher.find(content, 0, content.size(), {});
            if (same.id >= 0 && same.begin == 0 && same.end == content.size())
                fail(where + ' ' + quoted(content) + ": its text is that of id " + std::to_string(same.id));
            matcher.add(content, id);
        }
    }

    bool is_added(TokenId id) const {
        return static_cast<size_t>(id) < flags_.size() && flags_[static_cast<size_t>(id)] != 0;
    }

    TokenId merge_part(std::string_view spelling, size_t rank) const {
        const auto found = ids_.find(std::string(spelling));
        if (found == ids_.end())
            fail("model.merges[" + std::to_string(rank) + "]: " + quoted(spelling) + " is not in model.vocab");
        return found->second;
    }

    void read_merges() {
        const JsonValue &list = need(model(), "merges", JsonValue::Kind::array, "model");
        merges_.reserve(list.size());
        for (size_t rank = 0; rank < list.size(); ++rank) {
            const JsonValue &entry = list.items()[rank];
            std::string_view left, right;
            bool well_formed = false;
            if (entry.is_string()) {
                const std::string_view both = entry.text();
                const size_t space = both.find(' ');
                well_formed = space != std::string_view::npos && both.find(' ', space + 1) == std::string_view::npos;
                if (well_formed) left = both.substr(0, space), right = both.substr(space + 1);
            } else if (entry.is_array() && entry.size() == 2 && entry.items()[0].is_string() &&
                       entry.items()[1].is_string()) {
                left = entry.items()[0].text(), right = entry.items()[1].text();
                well_formed = true;
            }
            if (!well_formed || left.empty() || right.empty())
                fail("model.merges[" + std::to_string(rank) + "]: expected two tokens, found " +
                     quoted(dump_python_json(entry)));
            const Merge merge{merge_part(left, rank), merge_part(right, rank),
                              merge_part(std::string(left) += right, rank)};
            // Promise of encode_ordinary: no text can spell a control token.
            if (is_added(merge.result))
                refuse("model.merges[" + std::to_string(rank) + "]: makes the added token " +
                       quoted(*tokens_[static_cast<size_t>(merge.result)]));
            merges_.push_back(merge);
        }
        for (const TokenId id : byte_ids_)
            if (is_added(id))
                refuse("the added token " + quoted(*tokens_[static_cast<size_t>(id)]) +
                       " is also the token of a single byte");
    }

    void read_pretokenizer() {
        const JsonValue &pre = need(root_, "pre_tokenizer", JsonValue::Kind::object, "the file");
        if (type_of(pre) == "Sequence") {
            const JsonValue &list = need(pre, "pretokenizers", JsonValue::Kind::array, "pre_tokenizer");
            for (size_t i = 0; i < list.size(); ++i)
                read_pretokenizer_part(list.items()[i], "pre_tokenizer.pretokenizers[" + std::to_string(i) + ']');
        } else {
            read_pretokenizer_part(pre, "pre_tokenizer");
        }
        if (!bytes_mapped_) refuse("pre_tokenizer: expected \"ByteLevel\" at its end");
        if (patterns_.size() > max_stages)
            refuse("pre_tokenizer: expected at most " + std::to_string(max_stages) + " splits, found " +
                   std::to_string(patterns_.size()));
    }

    void read_pretokenizer_part(const JsonValue &part, const std::string &where) {
        const std::string type = type_of(part);
        // After the bytes have been respelled, a pattern would see the respelling.
        if (bytes_mapped_) refuse(where + ": " + quoted(type) + " after \"ByteLevel\" is not supported");
        if (type == "ByteLevel") {
            if (flag(part, "add_prefix_space", true))
                refuse(where + ".add_prefix_space is not supported: text would not survive decode(encode())");
            if (flag(part, "use_regex", true)) patterns_.emplace_back(byte_level_pattern);
            bytes_mapped_ = true;
            return;
        }
        if (type != "Split") refuse(where + ": expected \"Split\" or \"ByteLevel\", found " + quoted(type));
        const std::string behavior = need(part, "behavior", JsonValue::Kind::string, where).text();
        if (behavior != "Isolated") refuse(where + ".behavior: expected \"Isolated\", found " + quoted(behavior));
        const JsonValue &pattern = need(part, "pattern", JsonValue::Kind::object, where);
        if (pattern.find("Regex"))
            patterns_.push_back(need(pattern, "Regex", JsonValue::Kind::string, where + ".pattern").text());
        else
            patterns_.push_back(
                quote_pattern(need(pattern, "String", JsonValue::Kind::string, where + ".pattern").text()));
    }

    Tokenizer build() {
        const bool ignore_merges = flag(model(), "ignore_merges", false);
        const size_t vocabulary_size = ids_.size();
        Tokenizer made;
        made.vocabulary_.build(tokens_);
        flags_.resize(tokens_.size());
        made.flags_ = std::move(flags_);
        made.merges_ = MergeTable(std::move(merges_), byte_ids_);
        for (size_t i = 0; i < std::size(matchers_); ++i) made.matchers_[i] = std::move(matchers_[i]);
        try {
            made.pretokenizer_ = std::make_unique<Pretokenizer>(patterns_);
        } catch (const Error &e) {
            throw Error(e.status, name_ + ": " + e.what(), e.native_code);
        }
        // A piece that is a token need not be merged, if merging makes just that token of it.
        made.vocabulary_.reserve_index(vocabulary_size);
        MergeTable::Scratch scratch;
        std::vector<TokenId> merged;
        for (size_t i = 0; i < tokens_.size(); ++i) {
            const auto id = static_cast<TokenId>(i);
            if (!tokens_[i] || made.is_added(id)) continue;
            merged.clear();
            if (!ignore_merges) made.merges_.encode(*tokens_[i], scratch, merged);
            if (ignore_merges || (merged.size() == 1 && merged[0] == id)) made.vocabulary_.index(id);
        }
        return made;
    }

    std::string name_;
    JsonValue root_;
    std::vector<std::optional<std::string>> tokens_; // [id], bytes
    std::vector<uint8_t> flags_;                     // [id]
    std::unordered_map<std::string, TokenId> ids_;   // of model.vocab, by spelling
    std::array<TokenId, 256> byte_ids_{};
    std::vector<Merge> merges_;
    AddedTokenMatcher matchers_[2];
    std::vector<std::string> patterns_;
    bool bytes_mapped_ = false;
};

Tokenizer Tokenizer::from_json(std::string_view json, const std::string &name) {
    return TokenizerLoader(json, name).load();
}

} // namespace dsv4
