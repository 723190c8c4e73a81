// The operator tables of this backend, one file per family. A vendor backend may start from these and replace one
// operator at a time (plugins/template does).
#pragma once
#include "backends/reference/objects.hpp"

namespace dsv4::reference {

extern const dsv4_memory_ops memory_ops;
extern const dsv4_model_ops model_ops;
extern const dsv4_ends_ops ends_ops;
extern const dsv4_hc_ops hc_ops;
extern const dsv4_attention_ops attention_ops;
extern const dsv4_moe_ops moe_ops;
extern const dsv4_mtp_ops mtp_ops;
extern const dsv4_sample_ops sample_ops;

dsv4_status device_open(const dsv4_device_options *options, dsv4_device **out, dsv4_error *err);
void device_close(dsv4_device *device);
dsv4_status device_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err);
const void *ops(dsv4_device *device, uint32_t family);

}  // namespace dsv4::reference
