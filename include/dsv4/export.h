/* Which symbols libdsv4 shows: those marked DSV4_API, and no others. */
#ifndef DSV4_EXPORT_H
#define DSV4_EXPORT_H
#if defined(_WIN32)
#if defined(DSV4_BUILDING)
#define DSV4_API __declspec(dllexport)
#else
#define DSV4_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define DSV4_API __attribute__((visibility("default")))
#else
#define DSV4_API
#endif
#endif
