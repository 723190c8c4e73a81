// Cuts text into the pieces inside which BPE merges: the Split stages of a tokenizer.json, run with PCRE2.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Receives the pieces in order; together they are the text.
class PieceSink {
  public:
    virtual void piece(std::string_view bytes) = 0;

  protected:
    ~PieceSink() = default;
};

/// An ordered list of "isolated" splits: each stage cuts every piece of the stage before into matches of its pattern
/// and the text between them. Immutable; concurrent calls of split() are fine.
class Pretokenizer {
  public:
    /// Patterns are in the dialect of tokenizer.json files (Oniguruma, Ruby syntax). Throws Error(DSV4_E_MODEL) naming
    /// the pattern that does not compile.
    explicit Pretokenizer(const std::vector<std::string> &patterns);
    ~Pretokenizer();
    Pretokenizer(Pretokenizer &&) noexcept;
    Pretokenizer &operator=(Pretokenizer &&) noexcept;

    /// The working memory of one thread's calls.
    class Scratch {
      public:
        Scratch();
        ~Scratch();
        Scratch(const Scratch &) = delete;
        Scratch &operator=(const Scratch &) = delete;

      private:
        friend class Pretokenizer;
        struct Impl;
        std::unique_ptr<Impl> impl_;
    };

    /// `text` must be valid UTF-8.
    void split(std::string_view text, Scratch &scratch, PieceSink &sink) const;

  private:
    struct Stage;
    void split_stage(size_t stage, std::string_view text, Scratch &scratch, PieceSink &sink) const;

    std::vector<Stage> stages_;
};

/// The pattern as PCRE2 must be given it: \s and \S mean Unicode White_Space (PCRE2's own \s has U+180E too), \h a
/// hexadecimal digit, \uHHHH a code point. Throws where the two dialects differ in ways not handled.
std::string translate_pattern(std::string_view oniguruma);

/// A pattern that matches `text` itself.
std::string quote_pattern(std::string_view text);

} // namespace dsv4
