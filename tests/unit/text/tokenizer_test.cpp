#include "core/error.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/catch.hpp"
#include "tests/unit/text/train_bpe.hpp"
#include <map>
#include <random>
#include <thread>

using namespace dsv4;

namespace {

const char *const corpus =
    "the quick brown fox jumps over the lazy dog and then the other fox jumps over the quick dog again and again\n"
    "int main(void) { return 0; } for (int i = 0; i < 100; ++i) { total += value[i]; } return total; // done\n"
    "今天天气很好，我们一起去公园散步。今天的天气真的很好。人民的公园，人民的天气。 é è ê café déjà vu naïve "
    "🤖🤖👩‍👩‍👧\n"
    "aaaaaaaaaaaaaaaaaaaaaaaa bbbb abababababab    indent\n        deeper indent\n\n\n";

const std::vector<std::string> added = {"<s>", "<|user|>", "｜T｜", "<|user|>x", "</think>"};

const Tokenizer &trained() {
    static const Tokenizer tokenizer = Tokenizer::from_json(test::train_tokenizer_json(corpus, 300, added));
    return tokenizer;
}

/// Random valid UTF-8: words of the corpus, code points of every length, controls, spaces.
std::string random_text(std::mt19937 &random, size_t parts) {
    static const std::string source = corpus;
    std::string text;
    for (size_t i = 0; i < parts; ++i) switch (random() % 6) {
        case 0:
        case 1: {
            size_t begin = random() % source.size(), end = std::min(source.size(), begin + random() % 40);
            while (begin > 0 && (source[begin] & 0xC0) == 0x80) --begin;
            while (end < source.size() && (source[end] & 0xC0) == 0x80) ++end;
            text += source.substr(begin, end - begin);
            break;
        }
        case 2: append_utf8(text, random() % 0x80); break;
        case 3: append_utf8(text, 0x80 + random() % 0x700); break;
        case 4: append_utf8(text, 0x4E00 + random() % 0x5000); break;
        default: append_utf8(text, 0x10000 + random() % 0x100000); break;
        }
    return text;
}

/// The definition: join the lowest-ranked adjacent pair, the leftmost of equals, until none is left.
std::vector<std::string> merge_by_hand(std::string_view bytes, const test::TrainedBpe &bpe) {
    std::map<std::pair<std::string, std::string>, size_t> ranks;
    for (size_t rank = 0; rank < bpe.merges.size(); ++rank) ranks.emplace(bpe.merges[rank], rank);
    std::vector<std::string> parts;
    for (const char c : bytes) parts.emplace_back(1, c);
    for (;;) {
        size_t best = SIZE_MAX, where = 0;
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
            const auto found = ranks.find({parts[i], parts[i + 1]});
            if (found != ranks.end() && found->second < best) best = found->second, where = i;
        }
        if (best == SIZE_MAX) return parts;
        parts[where] += parts[where + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
}

/// One piece is the whole text: what comes out is merging alone.
Tokenizer without_splits(const test::TrainedBpe &bpe, bool ignore_merges = false) {
    JsonValue file = test::tokenizer_file(bpe, {});
    JsonValue model = *file.find("model");
    model.set("ignore_merges", JsonValue::make_bool(ignore_merges));
    file.set("model", model);
    file.set("pre_tokenizer", test::object({{"type", test::text("ByteLevel")},
                                            {"add_prefix_space", JsonValue::make_bool(false)},
                                            {"use_regex", JsonValue::make_bool(false)}}));
    return Tokenizer::from_json(dump_python_json(file));
}

std::vector<std::string> pieces_of(const Tokenizer &tokenizer, std::string_view text) {
    std::vector<std::string> pieces;
    for (const TokenId id : tokenizer.encode(text)) pieces.emplace_back(tokenizer.token_bytes(id));
    return pieces;
}

} // namespace

TEST_CASE("merging is what its definition says, for trained and for arbitrary merges") {
    std::mt19937 random(11);
    std::vector<test::TrainedBpe> models = {test::train_bpe(corpus, 250)};
    const std::vector<std::string> letters = {"a", "b", "c", " "}, characters = {"你", "佀", "é", "a", "好"};
    for (int i = 0; i < 24; ++i) {
        // Merges no training would make: unreachable tokens, two merges with one result, later ranks for the parts.
        // Every second model merges the bytes of characters, some of them early enough to be joined in any context.
        test::TrainedBpe wild = test::train_bpe("", 0);
        std::vector<std::string> pool = letters;
        if (i % 2) pool = {"\xE4", "\xBD", "\xA0", "\x80", "\xC3", "\xA9", "a", "\xE5", "\xA5"};
        const auto merge = [&](const std::string &left, const std::string &right) {
            wild.merges.emplace_back(left, right);
            wild.tokens.push_back(left + right);
            pool.push_back(left + right);
        };
        if (i % 4 == 3) {
            merge("\xE4", "\xBD");
            merge("\xE4\xBD", "\xA0");
            merge("\xC3", "\xA9");
        }
        while (wild.merges.size() < 60) {
            const std::string left = pool[random() % pool.size()], right = pool[random() % pool.size()];
            if (left.size() + right.size() <= 24) merge(left, right);
        }
        if (i % 6 >= 3) std::shuffle(wild.merges.begin(), wild.merges.end(), random);
        models.push_back(std::move(wild));
    }
    for (size_t m = 0; m < models.size(); ++m) {
        const Tokenizer tokenizer = without_splits(models[m]);
        for (int round = 0; round < 80; ++round) {
            std::string text;
            const std::vector<std::string> &units = m % 2 ? letters : characters;
            if (m == 0) text = random_text(random, 1 + random() % 12);
            else
                for (size_t n = 1 + random() % (round % 10 == 0 ? 300 : 30); n > 0; --n)
                    text += units[random() % units.size()];
            CAPTURE(m, text);
            REQUIRE(pieces_of(tokenizer, text) == merge_by_hand(text, models[m]));
        }
    }
}

TEST_CASE("ignore_merges takes a piece that is a token as it is") {
    test::TrainedBpe bpe = test::train_bpe("", 0);
    bpe.merges = {{"a", "b"}, {"b", "c"}, {"a", "bc"}};
    bpe.tokens.insert(bpe.tokens.end(), {"ab", "bc", "abc"});
    CHECK(pieces_of(without_splits(bpe, false), "abc") == std::vector<std::string>{"ab", "c"});
    CHECK(pieces_of(without_splits(bpe, true), "abc") == std::vector<std::string>{"abc"});
    CHECK(pieces_of(without_splits(bpe, true), "abcc") == std::vector<std::string>{"ab", "c", "c"});
    CHECK(without_splits(bpe, false).find_token("abc") >= 0);
}

TEST_CASE("decode(encode(x)) is x for every text") {
    std::mt19937 random(12);
    for (int round = 0; round < 400; ++round) {
        std::string text = random_text(random, random() % 40);
        if (round % 3 == 0) text += added[random() % added.size()] + random_text(random, 5);
        CAPTURE(text);
        REQUIRE(trained().decode(trained().encode(text)) == text);
        const std::vector<TokenId> ordinary = trained().encode_ordinary(text);
        REQUIRE(trained().decode(ordinary) == text);
        for (const TokenId id : ordinary) REQUIRE_FALSE(trained().is_added(id));
    }
    std::string every;
    for (uint32_t c = 0; c < 0x110000; c += 1 + c / 64)
        if (c < 0xD800 || c >= 0xE000) append_utf8(every, c);
    CHECK(trained().decode(trained().encode(every)) == every);
    CHECK(trained().encode("").empty());
}

TEST_CASE("a long piece takes a bounded time") {
    for (const char *unit : {"a", "ab", "今天", " "}) {
        std::string text;
        while (text.size() < 1'000'000) text += unit;
        REQUIRE(trained().decode(trained().encode(text)) == text);
    }
}

TEST_CASE("added tokens: leftmost, then longest, and never inside untrusted text") {
    const Tokenizer &t = trained();
    const TokenId user = t.find_token("<|user|>"), user_x = t.find_token("<|user|>x"), bar = t.find_token("｜T｜");
    REQUIRE(user >= 0);
    CHECK(t.encode("<|user|>") == std::vector<TokenId>{user});
    CHECK(t.encode("<|user|>x<|user|>") == std::vector<TokenId>{user_x, user});
    CHECK(t.encode("｜T｜T｜").front() == bar);
    CHECK(t.encode("｜T｜T｜").size() > 1);
    CHECK(t.is_added(user));
    CHECK_FALSE(t.is_special(user));
    CHECK(t.is_special(t.find_token("<s>")));
    CHECK(t.decode(t.encode("a<s>b<|user|>"), true) == "ab<|user|>");

    // The longer token reaches into untrusted text, the shorter does not.
    const std::string text = "<|user|>x";
    const ByteRange tail{8, 9}, inside{3, 4}, nothing{3, 3};
    CHECK(t.encode(text, std::span(&tail, 1)).front() == user);
    for (const TokenId id : t.encode(text, std::span(&inside, 1))) CHECK_FALSE(t.is_added(id));
    CHECK(t.encode(text, std::span(&nothing, 1)) == t.encode(text));
    CHECK(t.encode_ordinary(text) == t.encode(text, std::span(&inside, 1)));

    std::mt19937 random(13);
    for (int round = 0; round < 300; ++round) {
        std::string mixed;
        std::vector<ByteRange> ranges;
        std::vector<TokenId> control;
        for (size_t i = random() % 8; i > 0; --i) {
            const std::string &token = added[random() % added.size()];
            if (random() % 2) {
                const size_t begin = mixed.size();
                mixed += "\n" + token + random_text(random, 2) + "\n";
                ranges.push_back({begin, mixed.size()});
            } else {
                mixed += token + "\n";
                control.push_back(t.find_token(token));
            }
        }
        std::vector<TokenId> seen;
        const std::vector<TokenId> ids = t.encode(mixed, ranges);
        for (const TokenId id : ids)
            if (t.is_added(id)) seen.push_back(id);
        REQUIRE(seen == control);
        REQUIRE(t.decode(ids) == mixed);
    }
    const ByteRange beyond{3, 30}, backwards{5, 4};
    CHECK_THROWS_AS(t.encode(text, std::span(&beyond, 1)), Error);
    CHECK_THROWS_AS(t.encode(text, std::span(&backwards, 1)), Error);
    const ByteRange overlapping[] = {{0, 3}, {2, 5}};
    CHECK_THROWS_AS(t.encode(text, overlapping), Error);
}

TEST_CASE("bad bytes and unknown ids are errors that say where") {
    const auto message = [](auto &&body) -> std::string {
        try {
            body();
        } catch (const Error &e) {
            CHECK(e.status == DSV4_E_INVALID);
            return e.what();
        }
        return "";
    };
    CHECK(message([] { trained().encode("abc\xFFz"); }) ==
          "text to encode: expected UTF-8, found byte 255 at offset 3 of 5");
    CHECK(message([] { trained().encode_ordinary("\xE4\xBD"); }).find("offset 0") != std::string::npos);
    const auto size = static_cast<TokenId>(trained().vocab_size());
    for (const TokenId id : {-1, size, INT32_MAX, INT32_MIN}) {
        CHECK(message([&] { trained().decode(std::vector<TokenId>{id}); }).find(std::to_string(id)) !=
              std::string::npos);
        CHECK_FALSE(trained().has_token(id));
        CHECK_FALSE(trained().is_added(id));
    }
}

TEST_CASE("several threads use one tokenizer") {
    std::mt19937 random(14);
    std::vector<std::string> texts;
    std::vector<std::vector<TokenId>> expected;
    for (int i = 0; i < 40; ++i) {
        texts.push_back(random_text(random, 60));
        expected.push_back(trained().encode(texts.back()));
    }
    std::vector<std::thread> threads;
    std::vector<size_t> wrong(4);
    for (size_t n = 0; n < wrong.size(); ++n)
        threads.emplace_back([&, n] {
            for (int round = 0; round < 10; ++round)
                for (size_t i = 0; i < texts.size(); ++i) wrong[n] += trained().encode(texts[i]) != expected[i];
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(wrong == std::vector<size_t>(4));
}
