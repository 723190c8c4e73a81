#include "dsv4/dsv4.h"

extern "C" uint32_t dsv4_version(void) { return DSV4_VERSION; }
