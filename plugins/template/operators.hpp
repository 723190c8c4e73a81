// The operators that this backend does itself.
#pragma once
#include "dsv4/dsv4_backend.h"

namespace dsv4::vendor {

dsv4_status hc_post(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                    dsv4_buffer *streams, dsv4_error *err);

} // namespace dsv4::vendor
