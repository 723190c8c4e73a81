// A vocabulary's tokens as a trie of their bytes, and sets of tokens.
#pragma once
#include <cstdint>
#include <vector>

namespace dsv4 {

using TokenMask = std::vector<uint64_t>;  ///< bit t of word t / 64: token t is allowed
inline void mask_set(TokenMask &mask, uint32_t token) { mask[token >> 6] |= uint64_t{1} << (token & 63); }
inline bool mask_has(const TokenMask &mask, uint32_t token) { return mask[token >> 6] >> (token & 63) & 1; }

/// A trie in preorder: node i's subtree is [i, end(i)); node 0 is the root.
struct TrieNode {
    uint32_t end;
    int32_t token;  ///< first token with exactly these bytes, -1 none
    uint8_t byte;
    uint8_t depth;  ///< tokens of 255 bytes and more are left out
    bool shared = false;  ///< more than one token has these bytes
};

}  // namespace dsv4
