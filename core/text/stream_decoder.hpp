// Turns tokens into text as they come, in whole code points.
#pragma once
#include <string>
#include <string_view>

namespace dsv4 {

/// A token may end inside a code point. The unfinished bytes wait for the next token; bytes that can no longer become a
/// code point turn into U+FFFD (one for each ill-formed part, as Unicode recommends). All that comes out is UTF-8.
class StreamDecoder {
  public:
    /// Appends what has become whole to `out`.
    void push(std::string_view bytes, std::string &out);
    /// The end of the text: waiting bytes become U+FFFD. The decoder can then be used anew.
    void finish(std::string &out);
    /// Bytes held back: at most 3.
    size_t pending() const { return pending_.size(); }

  private:
    std::string pending_;
};

} // namespace dsv4
