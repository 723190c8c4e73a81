// Checkpoints with what the oracle computes on them: those of this folder, and those beside the repository when there.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/model/safetensors.hpp"

namespace dsv4::test {

inline std::vector<std::string> checkpoints_in(const std::string &folder) {
    std::vector<std::string> out;
    std::error_code ec;
    for (std::filesystem::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
        if (std::filesystem::exists(it->path() / "vectors.safetensors")) out.push_back(it->path().string());
    std::sort(out.begin(), out.end());
    return out;
}

inline std::string fixture(const std::string &name) { return DSV4_SOURCE_DIR "/tests/golden/fixtures/" + name; }
inline std::vector<std::string> fixtures() { return checkpoints_in(DSV4_SOURCE_DIR "/tests/golden/fixtures"); }
/// DSV4_TEST_VECTORS names another folder.
inline std::vector<std::string> published_vectors() {
    const char *folder = std::getenv("DSV4_TEST_VECTORS");
    return checkpoints_in(folder ? folder : DSV4_SOURCE_DIR "/../shared/vectors");
}

class Vectors {
  public:
    explicit Vectors(const std::string &checkpoint) {
        std::ifstream file(checkpoint + "/vectors.safetensors", std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(file), {});
        read_safetensors_header(bytes_, "vectors.safetensors", 0, table_);
    }
    bool has(const std::string &name) const { return find(name) != nullptr; }
    std::vector<int64_t> shape(const std::string &name) const {
        const auto s = table_.shape(get(name));
        return {s.begin(), s.end()};
    }
    /// F32, BF16, I32 or U8, as floats.
    std::vector<float> floats(const std::string &name) const {
        const TensorEntry &e = get(name);
        const auto *data = bytes_.data() + e.begin;
        std::vector<float> out(size_t(e.bytes) * 8 / size_t(bits_of(e.type)));
        for (size_t i = 0; i < out.size(); ++i) {
            if (e.type == FileType::kF32) {
                std::memcpy(&out[i], data + 4 * i, 4);
            } else if (e.type == FileType::kBF16) {
                const uint32_t bits = uint32_t(data[2 * i] | data[2 * i + 1] << 8) << 16;
                std::memcpy(&out[i], &bits, 4);
            } else if (e.type == FileType::kI32) {
                int32_t v;
                std::memcpy(&v, data + 4 * i, 4);
                out[i] = float(v);
            } else {
                out[i] = float(data[i]);
            }
        }
        return out;
    }
    std::vector<int32_t> ints(const std::string &name) const {
        const std::vector<float> values = floats(name);
        return {values.begin(), values.end()};
    }

  private:
    const TensorEntry *find(const std::string &name) const {
        for (const TensorEntry &e : table_.entries)
            if (e.name == name) return &e;
        return nullptr;
    }
    const TensorEntry &get(const std::string &name) const {
        if (const TensorEntry *e = find(name)) return *e;
        throw Error(DSV4_E_MODEL, "vectors.safetensors: no " + name);
    }
    std::vector<unsigned char> bytes_;
    TensorTable table_;
};

/// |a - b| / |b|
inline double relative_error(const float *a, const float *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; ++i) {
        difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
        norm += double(b[i]) * b[i];
    }
    return std::sqrt(difference / norm);
}

} // namespace dsv4::test
