// The safetensors container: 8 bytes of header length, a JSON header, then bytes. Reads headers only; nothing here
// touches tensor data.
#pragma once
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Element types of the container. Unknown ones are kept: they are an error only where such a tensor is needed.
enum class FileType : uint8_t {
    kUnknown, kBool, kU8, kI8, kI16, kU16, kI32, kU32, kI64, kU64, kF64, kF32, kF16, kBF16, kF8E4M3, kF8E5M2, kF8E8M0,
    kF4
};

/// Bits per element; 0 for kUnknown.
int bits_of(FileType type);

/// One tensor of one file. The strings live as long as the table and the text it was read from.
struct TensorEntry {
    std::string_view name;
    std::string_view type_name; // as written
    uint64_t begin = 0, bytes = 0; // absolute offset in the file
    uint32_t file = 0;             // index of the file in its checkpoint
    uint32_t dims_at = 0;          // into TensorTable::dims
    uint8_t rank = 0;
    FileType type = FileType::kUnknown;
    bool listed = true;            // false: the shard index does not name it
};

struct TensorTable {
    std::vector<TensorEntry> entries;
    std::vector<int64_t> dims;
    std::deque<std::string> decoded; // names that contained escapes

    std::span<const int64_t> shape(const TensorEntry &e) const { return {dims.data() + e.dims_at, e.rank}; }
};

/// "[4096, 1024]"
std::string shape_text(std::span<const int64_t> shape);

/// Reads the header of a whole file (already in memory or mapped) and appends its tensors. Everything a header can get
/// wrong is an Error (DSV4_E_MODEL) naming file, tensor, expected and found: length, syntax, missing fields, offsets out
/// of range or crossing, sizes that do not follow from shape and type, tensors that overlap, names used twice.
void read_safetensors_header(std::span<const unsigned char> file, std::string_view file_name, uint32_t file_index,
                             TensorTable &table);

}  // namespace dsv4
