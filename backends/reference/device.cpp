// The device: the CPU, one thread, with a choice of numerics.
#include <cstring>
#include <sys/sysinfo.h>
#include "backends/reference/ops.hpp"

namespace dsv4::reference {

dsv4_status device_open(const dsv4_device_options *options, dsv4_device **out, dsv4_error *err) {
    return guard(err, [&] {
        dsv4_device_options o{};
        std::memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
        if (o.index != 0) fail(DSV4_E_INVALID, "device %u; there is one, 0", o.index);
        if (o.variant.size) fail(DSV4_E_UNSUPPORTED, "variant '%.*s'; there are none", int(o.variant.size), o.variant.data);
        if (o.numerics < DSV4_NUMERICS_DEFAULT || o.numerics > DSV4_NUMERICS_OFFICIAL)
            fail(DSV4_E_UNSUPPORTED, "numerics %d; there are exact (1) and official (2)", o.numerics);
        *out = new dsv4_device{o.numerics == DSV4_NUMERICS_OFFICIAL};
    });
}

void device_close(dsv4_device *device) { delete device; }

dsv4_status device_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
    return guard(err, [&] {
        dsv4_device_info ours{};
        ours.struct_size = info->struct_size;
        ours.capabilities = DSV4_CAP_ROW_INDEPENDENT | DSV4_CAP_EXACT | DSV4_CAP_OFFICIAL | DSV4_CAP_MAPPED_WEIGHTS |
                            DSV4_CAP_RANDOM_WEIGHTS;
        ours.numerics = device->official ? DSV4_NUMERICS_OFFICIAL : DSV4_NUMERICS_EXACT;
        ours.threads = 1;
        struct sysinfo machine;
        if (sysinfo(&machine) == 0) {
            ours.memory_total = uint64_t(machine.totalram) * machine.mem_unit;
            ours.memory_free = uint64_t(machine.freeram + machine.bufferram) * machine.mem_unit;
        }
        std::snprintf(ours.name, sizeof ours.name, "scalar C++");
        std::snprintf(ours.variant, sizeof ours.variant, "float32");
        std::memcpy(info, &ours, info->struct_size < sizeof ours ? info->struct_size : sizeof ours);
    });
}

const void *ops(dsv4_device *, uint32_t family) {
    switch (family) {
    case DSV4_FAMILY_MEMORY: return &memory_ops;
    case DSV4_FAMILY_MODEL: return &model_ops;
    case DSV4_FAMILY_ENDS: return &ends_ops;
    case DSV4_FAMILY_HC: return &hc_ops;
    case DSV4_FAMILY_ATTENTION: return &attention_ops;
    case DSV4_FAMILY_MOE: return &moe_ops;
    case DSV4_FAMILY_MTP: return &mtp_ops;
    case DSV4_FAMILY_SAMPLE: return &sample_ops;
    default: return nullptr;
    }
}

}  // namespace dsv4::reference
