// The part of the HIP runtime that this backend uses, in CUDA's terms: lets nvcc build the HIP plugin, so that its own
// code paths can be executed on an NVIDIA card. The released headers for that do not compile with CUDA 13.
#pragma once
#include <cuda_runtime.h>

using hipError_t = cudaError_t;
using hipStream_t = cudaStream_t;
using hipEvent_t = cudaEvent_t;
using hipGraph_t = cudaGraph_t;
using hipGraphExec_t = cudaGraphExec_t;
using hipStreamCaptureStatus = cudaStreamCaptureStatus;

#define DSV4_SAME(name) constexpr auto hip##name = cuda##name
DSV4_SAME(Success);
DSV4_SAME(ErrorNotSupported);
DSV4_SAME(ErrorInvalidValue);
DSV4_SAME(ErrorInvalidConfiguration);
DSV4_SAME(ErrorInvalidDeviceFunction);
DSV4_SAME(ErrorInvalidResourceHandle);
DSV4_SAME(ErrorStreamCaptureInvalidated);
DSV4_SAME(ErrorStreamCaptureUnsupported);
DSV4_SAME(MemcpyHostToDevice);
DSV4_SAME(MemcpyDeviceToHost);
DSV4_SAME(MemcpyDeviceToDevice);
DSV4_SAME(StreamNonBlocking);
DSV4_SAME(StreamCaptureModeRelaxed);
DSV4_SAME(StreamCaptureStatusNone);
DSV4_SAME(FuncAttributeMaxDynamicSharedMemorySize);
#undef DSV4_SAME

#define DSV4_SAME(name)                                                                                                \
    template <class... A> auto hip##name(A... a) { return cuda##name(a...); }
DSV4_SAME(GetLastError)
DSV4_SAME(GetErrorString)
DSV4_SAME(GetDeviceCount)
DSV4_SAME(GetDevice)
DSV4_SAME(SetDevice)
DSV4_SAME(MemGetInfo)
DSV4_SAME(Malloc)
DSV4_SAME(Free)
DSV4_SAME(StreamCreateWithFlags)
DSV4_SAME(StreamSynchronize)
DSV4_SAME(StreamDestroy)
DSV4_SAME(StreamWaitEvent)
DSV4_SAME(StreamBeginCapture)
DSV4_SAME(StreamEndCapture)
DSV4_SAME(StreamIsCapturing)
DSV4_SAME(MemcpyAsync)
DSV4_SAME(MemsetAsync)
DSV4_SAME(EventCreate)
DSV4_SAME(EventRecord)
DSV4_SAME(EventSynchronize)
DSV4_SAME(EventElapsedTime)
DSV4_SAME(EventDestroy)
DSV4_SAME(GraphDestroy)
DSV4_SAME(GraphLaunch)
DSV4_SAME(GraphExecDestroy)
DSV4_SAME(LaunchKernel)
DSV4_SAME(FuncSetAttribute)
#undef DSV4_SAME

inline cudaError_t hipGetDeviceProperties(cudaDeviceProp *p, int device) { return cudaGetDeviceProperties(p, device); }
