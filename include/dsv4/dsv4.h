/* libdsv4: run DeepSeek-V4 inside your own process. This file is the whole public surface; it is C99. */
#ifndef DSV4_DSV4_H
#define DSV4_DSV4_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "dsv4/export.h"
#ifdef __cplusplus
extern "C" {
#endif

#define DSV4_VERSION_MAJOR 0
#define DSV4_VERSION_MINOR 1
#define DSV4_VERSION_PATCH 0
#define DSV4_VERSION 0x00000100u /* major<<16 | minor<<8 | patch, of this header */

#define DSV4_INIT(s) (memset(&(s), 0, sizeof(s)), (void)((s).struct_size = (uint32_t)sizeof(s)))

typedef struct dsv4_str {
    const char *data;
    size_t size;
} dsv4_str;

typedef int32_t dsv4_status; /* fixed width: an enum's size is the compiler's business */
enum {
    DSV4_OK = 0,
    DSV4_END = 1,            /* the stream is finished; not an error */
    DSV4_PENDING = 2,        /* poll: nothing yet; not an error */
    DSV4_E_INVALID = -1,     /* the call breaks this header's contract */
    DSV4_E_CANCELLED = -2,   /* the cancel token fired */
    DSV4_E_NO_MEMORY = -3,   /* host or device; nothing was changed */
    DSV4_E_CONTEXT = -4,     /* prompt + output do not fit; session unchanged */
    DSV4_E_MODEL = -5,       /* the file is not a model this build runs */
    DSV4_E_UNSUPPORTED = -6, /* option, struct field or backend newer than this library */
    DSV4_E_DEVICE = -7,      /* device lost: this session is dead, the process is not */
    DSV4_E_INTERNAL = -8     /* our bug; the message is worth reporting */
};

typedef struct dsv4_error { /* yours, on your stack: no thread-local, nothing to free */
    uint32_t struct_size;
    dsv4_status status;
    int32_t native_code; /* cudaError_t, hipError_t, errno ...; 0 if none */
    uint32_t reserved;
    char message[240]; /* one line, NUL-terminated UTF-8 */
} dsv4_error;

#ifdef __cplusplus
}
#endif
#endif
