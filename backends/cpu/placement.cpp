// Mapped files belong to the page cache: a page lies on the node of whoever read it in first, this process or another.
// Which rows a part reads never changes, so they can be brought to it once, at load. Only with pinned threads: others
// wander between nodes, and no place is right.
#include "backends/cpu/placement.hpp"
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "backends/cpu/machine.hpp"
#include "backends/cpu/objects.hpp"

namespace dsv4::cpu {

namespace {

// <numaif.h> is libnuma's; these are the kernel's own numbers.
constexpr int policy_preferred = 1, move_pages_flag = 2;
constexpr int most_nodes = 1024;
constexpr int madvise_populate_read = 22; // since Linux 5.14

/// Pages of files count as available wherever they are, so what was placed before is compared too. An eighth is left to
/// caches and everybody else: beyond that, placing one block would push out another.
bool still_fits(dsv4_device &device, uint64_t bytes) {
    const uint64_t available = available_memory(), most = available - available / 8;
    if (bytes > most || device.placed > most - bytes) return false;
    device.placed += bytes;
    return true;
}

void place(const dsv4_device &device, const Matrix &w, int32_t row0, int32_t row1, int32_t step) {
    const auto parts = int(device.node_of_part.size());
    for (int part = 0; part < parts; ++part)
        bring(pages_of(w, row0, row1, step, part, parts), device.node_of_part[size_t(part)]);
}

} // namespace

PageRange pages_of(const Matrix &w, int32_t row0, int32_t row1, int32_t step, int part, int parts) {
    const auto page = uintptr_t(sysconf(_SC_PAGESIZE));
    const Range r = split(row0, row1, step, part, parts);
    const auto at = [&](int32_t row) { return uintptr_t(w.data) + uintptr_t(row) * uintptr_t(w.row_bytes); };
    const auto up = [&](uintptr_t a) { return (a + page - 1) / page * page; };
    // The first page of all begins before its matrix.
    const uintptr_t begin = r.begin == row0 ? at(r.begin) / page * page : up(at(r.begin)), end = up(at(r.end));
    return {reinterpret_cast<uint8_t *>(begin), reinterpret_cast<uint8_t *>(end > begin ? end : begin)};
}

void bring(const PageRange &range, int node) {
#if defined(SYS_mbind) && defined(SYS_set_mempolicy) && defined(SYS_get_mempolicy)
    const auto bytes = size_t(range.end - range.begin);
    if (!bytes || node < 0 || node >= most_nodes) return;
    constexpr int word = 8 * int(sizeof(unsigned long));
    unsigned long mask[most_nodes / word] = {};
    mask[node / word] |= 1ul << (node % word);
    // A file's pages are allocated by the policy of the thread that reads them in, not by that of the mapping.
    int before = 0;
    unsigned long before_mask[most_nodes / word] = {};
    const bool set = syscall(SYS_get_mempolicy, &before, before_mask, most_nodes, nullptr, 0) == 0 &&
                     syscall(SYS_set_mempolicy, policy_preferred, mask, most_nodes) == 0;
    madvise(range.begin, bytes, madvise_populate_read);
    if (set) syscall(SYS_set_mempolicy, before, before_mask, most_nodes);
    syscall(SYS_mbind, range.begin, bytes, policy_preferred, mask, most_nodes, move_pages_flag);
#else
    (void)range, (void)node;
#endif
}

void place_weights(dsv4_device &device, const dsv4_block &block) {
    if (device.node_of_part.empty()) return;
    const Kernels &k = *device.kernels;
    const auto step_of = [&](const Matrix &w) { return takes_narrow(device, w) ? k.narrow_row_step : k.f32_row_step; };
    uint64_t bytes = 0;
    const auto count = [&](const Matrix &w) { bytes += w.data ? uint64_t(w.rows) * uint64_t(w.row_bytes) : 0; };
    for (const Matrix &w : block.matrices) count(w);
    if (block.stored.empty())
        for (const auto &part : block.experts)
            for (const Matrix &w : part) count(w);
    if (!still_fits(device, bytes)) return;
    for (int32_t role = 0; role < 80; ++role) {
        const Matrix &w = block.matrices[role];
        if (!w.data || role == DSV4_ROLE_EMBED) continue; // one row of it a token
        const int32_t groups = role == DSV4_ROLE_WO_A ? block.shape.o_groups : 1, rows = w.rows / groups;
        for (int32_t g = 0; g < groups; ++g) place(device, w, g * rows, (g + 1) * rows, step_of(w));
    }
    if (!block.stored.empty()) return; // they are read into memory of their own
    for (int part = 0; part < 3; ++part)
        for (const Matrix &w : block.experts[part])
            if (w.data) place(device, w, 0, w.rows, part == 1 ? 32 : step_of(w)); // experts() cuts w2 so
}

} // namespace dsv4::cpu
