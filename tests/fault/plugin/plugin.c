/* A backend that does nothing, right or wrong in one way: KIND_* says which. */
#include "dsv4/dsv4_backend.h"

static const dsv4_host *host_;

static void say(const char *text) {
    dsv4_str line;
    line.data = text;
    line.size = strlen(text);
    if (host_ && host_->log) host_->log(host_->self, 2, line);
}

static void fill(dsv4_error *err, dsv4_status status, const char *text) {
    if (!err || err->struct_size < sizeof *err) return;
    err->status = status;
    strncpy(err->message, text, sizeof err->message - 1);
}

static dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *err) {
    *devices = 1;
    *score = 7;
    fill(err, 0, "");
#if defined(KIND_CANNOT_RUN)
    *score = 0;
    fill(err, DSV4_E_DEVICE, "no such accelerator here");
#elif defined(KIND_PROBE_FAILS)
    fill(err, DSV4_E_DEVICE, "the driver is older than 5.0");
    return DSV4_E_DEVICE;
#endif
    return DSV4_OK;
}

static dsv4_status device_open(const dsv4_device_options *options, dsv4_device **out, dsv4_error *err) {
    (void)options;
    *out = NULL;
    fill(err, DSV4_E_UNSUPPORTED, "a test plugin has no devices");
    return DSV4_E_UNSUPPORTED;
}
static void device_close(dsv4_device *device) { (void)device; }
#ifndef KIND_NULL_FUNCTION
static dsv4_status device_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
    (void)device;
    (void)info;
    (void)err;
    return DSV4_E_INVALID;
}
#endif
static const void *ops(dsv4_device *device, uint32_t family) {
    (void)device;
    (void)family;
    return NULL;
}
static void shutdown(void) { say("shutdown"); }

#ifdef KIND_SMALL_TABLE
#define TABLE_SIZE offsetof(dsv4_backend, ops)
#else
#define TABLE_SIZE sizeof(dsv4_backend)
#endif
#ifdef KIND_OTHER_ABI
#define TABLE_ABI 99
#else
#define TABLE_ABI DSV4_BACKEND_ABI
#endif
#ifdef KIND_OTHER_NAME
#define TABLE_NAME "somebody-else"
#else
#define TABLE_NAME "test"
#endif
#ifdef KIND_NULL_FUNCTION
#define TABLE_QUERY NULL
#else
#define TABLE_QUERY device_query
#endif

static const dsv4_backend backend = {TABLE_SIZE,   TABLE_ABI,    TABLE_NAME,  "for tests", probe,
                                     device_open,  device_close, TABLE_QUERY, ops,         shutdown};

#ifdef KIND_UNRESOLVED
void dsv4_test_function_that_nobody_has(void);
#endif

#ifdef KIND_NO_SYMBOL
DSV4_BACKEND_EXPORT const dsv4_backend *dsv4_backend_entry_of_another_kind(const dsv4_host *host);
DSV4_BACKEND_EXPORT const dsv4_backend *dsv4_backend_entry_of_another_kind(const dsv4_host *host) {
    host_ = host;
    return &backend;
}
#else
DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t abi_min, uint32_t abi_max, const dsv4_host *host,
                                                   const dsv4_backend **out, dsv4_error *err);
DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t abi_min, uint32_t abi_max, const dsv4_host *host,
                                                   const dsv4_backend **out, dsv4_error *err) {
    host_ = host;
    say("entry");
#ifdef KIND_UNRESOLVED
    dsv4_test_function_that_nobody_has();
#endif
    if (abi_min > DSV4_BACKEND_ABI || abi_max < DSV4_BACKEND_ABI) {
        fill(err, DSV4_E_UNSUPPORTED, "built for another plugin ABI");
        return DSV4_E_UNSUPPORTED;
    }
    *out = &backend;
#if defined(KIND_ENTRY_FAILS)
    fill(err, DSV4_E_DEVICE, "the licence server did not answer");
    return DSV4_E_DEVICE;
#elif defined(KIND_NO_TABLE)
    *out = NULL;
#endif
    return DSV4_OK;
}
#endif
