// The part of the HIP runtime that this backend uses, in CUDA's terms: lets nvcc build the HIP plugin, so that its own
// code paths can be executed on an NVIDIA card. The released headers for that do not compile with CUDA 13.
#pragma once
#include <cuda_runtime.h>

#define hipError_t cudaError_t
#define hipStream_t cudaStream_t
#define hipEvent_t cudaEvent_t
#define hipGraph_t cudaGraph_t
#define hipGraphExec_t cudaGraphExec_t
#define hipDeviceProp_t cudaDeviceProp
