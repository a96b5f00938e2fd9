// The host side of a launch, shared by the CUDA sources.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

// A test replaces this macro by code that runs without a GPU.
#ifndef NLBENCH_LAUNCH
#define NLBENCH_LAUNCH(kernel, blocks, threads, stream) kernel<<<blocks, threads, 0, stream>>>
#endif

#define NLBENCH_EXPORT extern "C" __attribute__((visibility("default")))

namespace nlbench {

// The threads of a block that works on an image, and on no other image.
constexpr uint32_t kThreads = 256;
// The most that 31 bits hold: blocks of a launch, values of an image.
constexpr int64_t kMost = 0x7FFFFFFF;

inline bool aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// Calls `launch` with `device` as the current device, then restores the caller's device. Returns
// the error message of CUDA, or null.
template <class Launch>
const char* on_device(int device, Launch launch) {
  int before = device;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess && before != device) error = cudaSetDevice(device);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  launch();
  error = cudaGetLastError();
  if (before != device) cudaSetDevice(before);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace nlbench
