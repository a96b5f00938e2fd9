// The CUDA kernels are a library of their own, opened on demand: the package imports where they cannot be.
#pragma once

#include <string>

#include "ops.h"

namespace nlbench {

// Opens the library at `path`. Returns why it cannot be used, or "".
std::string load_cuda(const std::string& path);

// Puts the batch on `stream` of `device`, whose pointers it holds; returns at once with "" or what CUDA says is wrong.
// A row whose label or index is out of range is skipped: its loss is NaN, its gradient zero, and the fault's number is
// written to flags[op]. That indices do not repeat is not checked.
std::string loss_cuda(const LossBatch& batch, int32_t* flags, int device, void* stream);

// The same for images: one whose index or draws are out of range is all NaN, and the fault's number is written to
// flags[kAugmentFlag].
std::string augment_cuda(const AugmentBatch& batch, int32_t* flags, int device, void* stream);

}  // namespace nlbench

// What the library exports. Both sides are built from one tree; the hash of the sources guards against a stale copy.
extern "C" {
using NlbenchLossCuda = const char* (*)(const nlbench::LossBatch* batch, int32_t* flags, int device, void* stream);
using NlbenchAugmentCuda = const char* (*)(const nlbench::AugmentBatch* batch, int32_t* flags, int device,
                                           void* stream);
using NlbenchSourceHash = const char* (*)();
}
