#include "core/model/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "core/model/json_reader.hpp"

namespace dsv4 {

namespace {

// The limit of the published reader; Pro's largest header is 300 kB.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 16;

struct TypeName {
    std::string_view name;
    FileType type;
    int bits;
};
constexpr std::array<TypeName, 17> kTypes{{{"F8_E8M0", FileType::kF8E8M0, 8},
                                           {"I8", FileType::kI8, 8},
                                           {"F8_E4M3", FileType::kF8E4M3, 8},
                                           {"BF16", FileType::kBF16, 16},
                                           {"F32", FileType::kF32, 32},
                                           {"F16", FileType::kF16, 16},
                                           {"I64", FileType::kI64, 64},
                                           {"I32", FileType::kI32, 32},
                                           {"U8", FileType::kU8, 8},
                                           {"F4", FileType::kF4, 4},
                                           {"F8_E5M2", FileType::kF8E5M2, 8},
                                           {"BOOL", FileType::kBool, 8},
                                           {"I16", FileType::kI16, 16},
                                           {"U16", FileType::kU16, 16},
                                           {"U32", FileType::kU32, 32},
                                           {"U64", FileType::kU64, 64},
                                           {"F64", FileType::kF64, 64}}};

FileType type_named(std::string_view name) {
    for (const TypeName &t : kTypes)
        if (t.name == name) return t.type;
    return FileType::kUnknown;
}

/// Header entries of one file, checked one by one.
class HeaderReader {
  public:
    HeaderReader(std::span<const unsigned char> file, std::string_view file_name, uint32_t file_index,
                 TensorTable &table)
        : file_(file), name_(printable(file_name)), file_index_(file_index), table_(table) {}

    void read() {
        const std::string_view text = header();
        const size_t first = table_.entries.size();
        JsonReader json(text, name_ + ": header", table_.decoded);
        json.object([&](std::string_view tensor) {
            if (tensor == "__metadata__") json.skip_value();
            else read_entry(json, tensor);
        });
        json.end();
        check_overlap(first);
    }

  private:
    [[noreturn]] void fail(std::string_view tensor, const std::string &what) const {
        throw Error(DSV4_E_MODEL, name_ + ": " + printable(tensor) + ": " + what);
    }

    std::string_view header() {
        const uint64_t size = file_.size();
        if (size < 8)
            throw Error(DSV4_E_MODEL, name_ + ": expected a safetensors file, at least 8 bytes, found " +
                                          std::to_string(size));
        uint64_t length = 0;
        for (size_t i = 0; i < 8; ++i) length |= uint64_t{file_[i]} << (8 * i);
        if (length > kMaxHeaderBytes)
            throw Error(DSV4_E_MODEL, name_ + ": expected a header of at most " + std::to_string(kMaxHeaderBytes) +
                                          " bytes, found a length of " + std::to_string(length) +
                                          "; this is not a safetensors file");
        if (length > size - 8)
            throw Error(DSV4_E_MODEL, name_ + ": the header should be " + std::to_string(length) +
                                          " bytes, the file has " + std::to_string(size - 8) +
                                          " after its length: truncated");
        data_begin_ = 8 + length;
        data_bytes_ = size - data_begin_;
        return {reinterpret_cast<const char *>(file_.data()) + 8, static_cast<size_t>(length)};
    }

    void read_entry(JsonReader &json, std::string_view tensor) {
        TensorEntry entry;
        entry.name = tensor;
        entry.file = file_index_;
        entry.dims_at = static_cast<uint32_t>(table_.dims.size());
        bool has_shape = false, has_type = false, has_offsets = false;
        uint64_t offsets[2] = {0, 0};
        json.object([&](std::string_view key) {
            if (key == "dtype" && !has_type) {
                entry.type_name = json.string();
                entry.type = type_named(entry.type_name);
                has_type = true;
            } else if (key == "shape" && !has_shape) {
                json.array([&] { read_dimension(json, tensor, entry); });
                has_shape = true;
            } else if (key == "data_offsets" && !has_offsets) {
                size_t count = 0;
                json.array([&] {
                    const uint64_t offset = json.unsigned_integer();
                    if (count < 2) offsets[count] = offset;
                    ++count;
                });
                if (count != 2) fail(tensor, "data_offsets: expected 2 offsets, found " + std::to_string(count));
                has_offsets = true;
            } else {
                fail(tensor, "expected dtype, shape and data_offsets once each, found \"" + printable(key, 40) + "\"");
            }
        });
        if (!has_type) fail(tensor, "expected a dtype, found none");
        if (!has_shape) fail(tensor, "expected a shape, found none");
        if (!has_offsets) fail(tensor, "expected data_offsets, found none");
        place(entry, offsets[0], offsets[1]);
        table_.entries.push_back(entry);
    }

    void read_dimension(JsonReader &json, std::string_view tensor, TensorEntry &entry) {
        const uint64_t size = json.unsigned_integer();
        if (entry.rank == kMaxRank) fail(tensor, "expected at most " + std::to_string(kMaxRank) + " dimensions");
        if (size > static_cast<uint64_t>(INT64_MAX)) fail(tensor, "shape: dimension " + std::to_string(size) + " overflows");
        table_.dims.push_back(static_cast<int64_t>(size));
        ++entry.rank;
    }

    void place(TensorEntry &entry, uint64_t begin, uint64_t end) const {
        const std::string range = "[" + std::to_string(begin) + ", " + std::to_string(end) + ")";
        if (begin > end) fail(entry.name, "data_offsets: expected begin <= end, found " + range);
        if (end > data_bytes_)
            fail(entry.name, "data_offsets " + range + ": expected to end within the " + std::to_string(data_bytes_) +
                                 " data bytes of the file: truncated, or wrong offsets");
        entry.begin = data_begin_ + begin;
        entry.bytes = end - begin;
        if (entry.type == FileType::kUnknown) return;
        const uint64_t bits = elements(entry) * static_cast<uint64_t>(bits_of(entry.type));
        if (bits % 8 != 0 || bits / 8 != entry.bytes)
            fail(entry.name, "expected " + std::to_string(bits / 8) + " bytes for " + printable(entry.type_name, 20) +
                                 " " + shape_text(table_.shape(entry)) + ", found " + std::to_string(entry.bytes));
    }

    uint64_t elements(const TensorEntry &entry) const {
        // 2^57 elements of 64 bits still fit in 64 bits of bits.
        constexpr uint64_t kMost = uint64_t{1} << 57;
        uint64_t product = 1;
        const auto shape = table_.shape(entry);
        if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
        for (const int64_t dimension : shape) {
            if (static_cast<uint64_t>(dimension) > kMost / product)
                fail(entry.name, "shape " + shape_text(shape) + " overflows");
            product *= static_cast<uint64_t>(dimension);
        }
        return product;
    }

    void check_overlap(size_t first) {
        std::vector<uint32_t> order(table_.entries.size() - first);
        std::iota(order.begin(), order.end(), static_cast<uint32_t>(first));
        const auto &all = table_.entries;
        std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
            return all[a].begin != all[b].begin ? all[a].begin < all[b].begin : all[a].bytes < all[b].bytes;
        });
        uint64_t taken = 0;
        uint32_t owner = 0;
        for (const uint32_t at : order) {
            const TensorEntry &e = all[at];
            if (e.bytes == 0) continue;
            if (e.begin < taken)
                fail(e.name, "expected bytes of its own, found them overlapping " + printable(all[owner].name) +
                                 " by " + std::to_string(std::min(taken, e.begin + e.bytes) - e.begin) + " bytes");
            taken = e.begin + e.bytes;
            owner = at;
        }
    }

    std::span<const unsigned char> file_;
    std::string name_;
    uint32_t file_index_;
    TensorTable &table_;
    uint64_t data_begin_ = 0, data_bytes_ = 0;
};

}  // namespace

int bits_of(FileType type) {
    for (const TypeName &t : kTypes)
        if (t.type == type) return t.bits;
    return 0;
}

std::string shape_text(std::span<const int64_t> shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
    return out + "]";
}

void read_safetensors_header(std::span<const unsigned char> file, std::string_view file_name, uint32_t file_index,
                             TensorTable &table) {
    HeaderReader(file, file_name, file_index, table).read();
}

}  // namespace dsv4
