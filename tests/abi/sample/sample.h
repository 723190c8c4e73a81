/* A header in the manner of dsv4.h, for the test of check_exports.sh. */
#include "dsv4/export.h"
/* DSV4_API void dsv4_in_a_comment(void); */
#ifdef __cplusplus
extern "C" {
#endif
typedef struct sample_object sample_object;
DSV4_API int sample_open(const char *path, sample_object **out, /* a comment (with brackets) */
                         int flags);
DSV4_API void sample_close(sample_object *object);
DSV4_API const char *
sample_name(void);
typedef int (*sample_callback)(void *user_data);
#ifdef __cplusplus
}
#endif
