// What every backend found says of a model, for the plan.
#pragma once
#include <string>
#include <vector>
#include "core/model/plan.hpp"
#include "core/runtime.hpp"

namespace dsv4 {

/// Opens each device of the backend of that name, or of all. A broken one is left out and logged. `sessions`: of the
/// plan, since a backend may keep more for many.
std::vector<PlanDevice> devices_for_plan(const Runtime &runtime, const std::string &backend, const ModelWeights &weights,
                                         uint64_t sessions);

}  // namespace dsv4
