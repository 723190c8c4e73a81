// The unit tests of this folder for nvcc, in one program: there they ask a card what the emulation is asked elsewhere.
#include "tests/conformance/gpu/choose_test.cu"
#include "tests/conformance/gpu/dialect_test.cu"
#include "tests/conformance/gpu/linear_test.cu"
