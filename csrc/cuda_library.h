// The CUDA kernels are in a separate library that is opened on demand, so that the package can be
// imported where that library cannot be loaded.
#pragma once

#include <string>

#include "ops.h"

namespace nlbench {

// Opens the library at `path`. Returns the reason why it cannot be used, or "".
std::string load_cuda(const std::string& path);

// Starts the batch on `stream` of `device`, where its pointers must be valid, and does not wait for
// it. Returns "" or the error message of CUDA. A row whose label or index is out of range is
// skipped: its loss is NaN, its gradient zero, and the fault's number is written to flags[op].
// Repeated indices are not detected.
std::string loss_cuda(const LossBatch& batch, int32_t* flags, int device, void* stream);

// The same for images. An image whose index or draws are out of range is all NaN, and the fault's
// number is written to flags[kAugmentFlag].
std::string augment_cuda(const AugmentBatch& batch, int32_t* flags, int device, void* stream);

// The same for strong views, with flags[kStrongFlag].
std::string strong_cuda(const StrongBatch& batch, int32_t* flags, int device, void* stream);

}  // namespace nlbench

// The functions that the library exports. Both sides are built from the same sources; comparing the
// hash of the sources detects an old copy of the library.
extern "C" {
using NlbenchLossCuda = const char* (*)(const nlbench::LossBatch* batch, int32_t* flags, int device,
                                        void* stream);
using NlbenchAugmentCuda = const char* (*)(const nlbench::AugmentBatch* batch, int32_t* flags,
                                           int device, void* stream);
using NlbenchStrongCuda = const char* (*)(const nlbench::StrongBatch* batch, int32_t* flags,
                                          int device, void* stream);
using NlbenchSourceHash = const char* (*)();
}
