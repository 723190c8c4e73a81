// The only check that reads tensor data, of the small tensors: a NaN in a scale, a norm or a mixing weight would poison
// everything after it, silently. Whole matrices are not read: their pages would all have to come from disk.
#include <cstring>

#include "core/error.hpp"
#include "core/model/inventory.hpp"
#include "core/model/json_reader.hpp"

namespace dsv4 {

namespace {

[[noreturn]] void fail(const Checkpoint &files, uint32_t source, uint64_t index, const std::string &expected,
                       const std::string &found) {
    const TensorEntry &e = files.tensors()[source];
    throw Error(DSV4_E_MODEL, std::string(files.file(e).name()) + ": " + printable(e.name) + ": expected " + expected +
                                  ", found " + found + " at index " + std::to_string(index) + " of " +
                                  shape_text(files.shape(e)));
}

void check_scale(const Checkpoint &files, const dsv4_tensor &t, uint32_t source) {
    const auto *bytes = static_cast<const unsigned char *>(t.scale);
    if (t.scale_dtype == DSV4_E8M0) {
        if (const void *nan = std::memchr(bytes, 0xFF, t.scale_bytes))
            fail(files, source, static_cast<uint64_t>(static_cast<const unsigned char *>(nan) - bytes), "powers of two",
                 "NaN (byte 255)");
        return;
    }
    for (uint64_t i = 0; i < t.scale_bytes / 4; ++i) {
        uint32_t bits = 0;
        std::memcpy(&bits, bytes + 4 * i, 4);
        if ((bits & 0x7F800000u) == 0x7F800000u)
            fail(files, source, i, "finite scales", (bits & 0x7FFFFFu) ? "NaN" : "an infinity");
    }
}

void check_finite(const Checkpoint &files, const dsv4_tensor &t, uint32_t source) {
    const auto *bytes = static_cast<const unsigned char *>(t.data);
    const uint64_t width = t.dtype == DSV4_F32 ? 4 : 2;
    const uint32_t exponent = t.dtype == DSV4_F32 ? 0x7F800000u : t.dtype == DSV4_BF16 ? 0x7F80u : 0x7C00u;
    const uint32_t mantissa = (exponent & (0u - exponent)) - 1;
    for (uint64_t i = 0; i < t.bytes / width; ++i) {
        uint32_t bits = 0;
        std::memcpy(&bits, bytes + width * i, width);  // little endian, as the file
        if ((bits & exponent) == exponent)
            fail(files, source, i, "finite numbers", (bits & mantissa) ? "NaN" : "an infinity");
    }
}

template <class Id> void check_ids(const Checkpoint &files, const dsv4_tensor &t, uint32_t source, int32_t experts) {
    const auto *bytes = static_cast<const unsigned char *>(t.data);
    for (uint64_t i = 0; i < t.bytes / sizeof(Id); ++i) {
        Id id = 0;
        std::memcpy(&id, bytes + sizeof(Id) * i, sizeof id);
        if (id < 0 || id >= experts)
            fail(files, source, i, "experts from 0 to " + std::to_string(experts - 1), std::to_string(id));
    }
}

} // namespace

void check_values(const ModelWeights &weights, const BlockWeights &block) {
    const Checkpoint &files = *weights.checkpoint;
    const int32_t experts = weights.config().shape.experts;
    for (size_t i = 0; i < block.tensors.size(); ++i) {
        const dsv4_tensor &t = block.tensors[i];
        const bool plain = t.dtype == DSV4_F32 || t.dtype == DSV4_BF16 || t.dtype == DSV4_F16;
        if (plain && t.rank == 1) check_finite(files, t, block.sources[i].weight);
        if (t.scale) check_scale(files, t, block.sources[i].scale);
        if (t.dtype == DSV4_I64) check_ids<int64_t>(files, t, block.sources[i].weight, experts);
        if (t.dtype == DSV4_I32) check_ids<int32_t>(files, t, block.sources[i].weight, experts);
    }
}

void check_scales(const ModelWeights &weights) {
    check_values(weights, weights.ends);
    for (const BlockWeights &b : weights.layers) check_values(weights, b);
    for (const BlockWeights &b : weights.mtp) check_values(weights, b);
}

} // namespace dsv4
