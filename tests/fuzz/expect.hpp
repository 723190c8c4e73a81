// A property that does not hold ends the fuzzing process where a debugger and libFuzzer can see it.
#pragma once
#include <cstdio>
#include <cstdlib>

#define FUZZ_EXPECT(condition)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                        \
            std::abort();                                                                                              \
        }                                                                                                              \
    } while (false)
