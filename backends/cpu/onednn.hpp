// oneDNN for products of many tokens, as a variant of its own.
#pragma once
#include <memory>

namespace dsv4::cpu {

/// One thread's engine, stream and primitives. Throws when built without oneDNN.
std::shared_ptr<void> onednn_state();

} // namespace dsv4::cpu
