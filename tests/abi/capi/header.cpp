#include "dsv4/dsv4.h"
#include "dsv4/dsv4.h"

/* Macros are checked where they are used. */
uint32_t use_of_macros(void);
uint32_t use_of_macros(void) {
    dsv4_error error;
    DSV4_INIT(error);
    return error.struct_size + DSV4_VERSION;
}
