// A backend that is the reference until a given call, which fails. The test that opens the same file arms it.
#include <atomic>
#include <cstdio>
#include <tuple>
#include <type_traits>
#include <utility>

#include "backends/reference/ops.hpp"

using namespace dsv4::reference;

namespace {

std::atomic<int64_t> calls_left{-1};  // until the failing one; negative: none will fail
std::atomic<int32_t> failure{DSV4_E_DEVICE};
std::atomic<int64_t> calls{0};

/// Every call of a table passes here first.
bool fails(dsv4_error *err) {
    ++calls;
    if (calls_left < 0 || calls_left-- > 0) return false;
    err->status = failure;
    err->native_code = 719;
    std::snprintf(err->message, sizeof err->message, "faulty: this call was told to fail");
    return true;
}

template <const auto &table, auto member, class Fn> struct Counted;
template <const auto &table, auto member, class... Args>
struct Counted<table, member, dsv4_status (*)(Args...)> {
    static dsv4_status call(Args... args) {
        if (fails(std::get<sizeof...(Args) - 1>(std::tuple<Args...>(args...)))) return failure;
        return (table.*member)(args...);
    }
};
template <const auto &table, auto... members> auto counted() {
    auto out = table;
    ((out.*members = Counted<table, members, std::decay_t<decltype(table.*members)>>::call), ...);
    return out;
}

const void *faulty_ops(dsv4_device *, uint32_t family) {
    using Memory = dsv4_memory_ops;
    using Model = dsv4_model_ops;
    using Attention = dsv4_attention_ops;
    static const auto memory =
        counted<memory_ops, &Memory::queue_create, &Memory::queue_wait, &Memory::buffer_create, &Memory::buffer_write,
                &Memory::buffer_read, &Memory::buffer_copy>();
    static const auto model =
        counted<model_ops, &Model::block_bytes, &Model::block_create, &Model::cache_bytes, &Model::cache_create,
                &Model::cache_read, &Model::batch_create, &Model::batch_set>();
    static const auto ends = counted<ends_ops, &dsv4_ends_ops::embed, &dsv4_ends_ops::head>();
    static const auto hc = counted<hc_ops, &dsv4_hc_ops::pre, &dsv4_hc_ops::post>();
    static const auto attention =
        counted<attention_ops, &Attention::project, &Attention::compress, &Attention::select, &Attention::attend,
                &Attention::output>();
    static const auto moe = counted<moe_ops, &dsv4_moe_ops::route, &dsv4_moe_ops::experts>();
    static const auto mtp = counted<mtp_ops, &dsv4_mtp_ops::join>();
    using Sample = dsv4_sample_ops;
    static const auto sample =
        counted<sample_ops, &Sample::sampler_create, &Sample::set, &Sample::sample, &Sample::read>();
    switch (family) {
    case DSV4_FAMILY_MEMORY: return &memory;
    case DSV4_FAMILY_MODEL: return &model;
    case DSV4_FAMILY_ENDS: return &ends;
    case DSV4_FAMILY_HC: return &hc;
    case DSV4_FAMILY_ATTENTION: return &attention;
    case DSV4_FAMILY_MOE: return &moe;
    case DSV4_FAMILY_MTP: return &mtp;
    case DSV4_FAMILY_SAMPLE: return &sample;
    default: return nullptr;
    }
}

dsv4_status faulty_open(const dsv4_device_options *options, dsv4_device **out, dsv4_error *err) {
    return fails(err) ? dsv4_status(failure) : device_open(options, out, err);
}
dsv4_status faulty_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
    return fails(err) ? dsv4_status(failure) : device_query(device, info, err);
}
dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *) {
    *devices = *score = 1;
    return DSV4_OK;
}
void shutdown() {}

const dsv4_backend backend = {sizeof(dsv4_backend), DSV4_BACKEND_ABI, "faulty",     "0.1.0",    probe, faulty_open,
                              device_close,         faulty_query,     faulty_ops, shutdown};

} // namespace

extern "C" {

DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t, uint32_t, const dsv4_host *, const dsv4_backend **out,
                                                   dsv4_error *) {
    *out = &backend;
    return DSV4_OK;
}

/// The call after `after` more of them fails with `status`; after < 0: none does. Returns how many there were since the
/// last arming.
DSV4_BACKEND_EXPORT int64_t dsv4_faulty_arm(int64_t after, int32_t status) {
    failure = status;
    calls_left = after;
    return calls.exchange(0);
}

} // extern "C"
