// Where the pages of mapped weights lie, on machines with several memory nodes.
#pragma once
#include <cstdint>
#include "backends/cpu/kernels.hpp"

namespace dsv4::cpu {

/// Whole pages. A page that two parts share goes with the first.
struct PageRange {
    uint8_t *begin, *end;
};
/// The pages of the rows that part `part` of `parts` reads of rows [row0, row1), cut as split() cuts them.
PageRange pages_of(const Matrix &w, int32_t row0, int32_t row1, int32_t step, int part, int parts);
/// Reads the pages in, on that node where they are not in memory yet, and moves those of them that only this process
/// has mapped. Whatever the kernel refuses, it leaves as it was: this is about speed alone.
void bring(const PageRange &range, int node);

} // namespace dsv4::cpu
