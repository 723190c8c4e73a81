/* Exports what sample.h declares; with EXTRA one more; with FEWER one less. */
#include "sample.h"
#ifdef EXTRA
DSV4_API void sample_undeclared(void);
void sample_undeclared(void) {}
#endif
int sample_open(const char *path, sample_object **out, int flags) { return path && out ? flags : 0; }
#ifndef FEWER
void sample_close(sample_object *object) { (void)object; }
#endif
const char *sample_name(void) { return "sample"; }
