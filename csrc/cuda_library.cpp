#include "cuda_library.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace nlbench {
namespace {

NlbenchLossCuda launch_loss = nullptr;
NlbenchAugmentCuda launch_augment = nullptr;
NlbenchStrongCuda launch_strong = nullptr;

constexpr const char* kNotLoaded = "the CUDA kernels are not loaded";

std::string said(const char* error) { return error == nullptr ? "" : error; }

}  // namespace

#if defined(__linux__)

std::string load_cuda(const std::string& path) {
  // The library is never closed.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::string("the CUDA kernels cannot be loaded: ") + dlerror();
  const auto hash = reinterpret_cast<NlbenchSourceHash>(dlsym(library, "nlbench_source_hash"));
  const auto loss = reinterpret_cast<NlbenchLossCuda>(dlsym(library, "nlbench_loss_cuda"));
  const auto augment = reinterpret_cast<NlbenchAugmentCuda>(dlsym(library, "nlbench_augment_cuda"));
  const auto strong = reinterpret_cast<NlbenchStrongCuda>(dlsym(library, "nlbench_strong_cuda"));
  if (hash == nullptr || loss == nullptr || augment == nullptr || strong == nullptr ||
      std::string(hash()) != NLBENCH_SOURCE_HASH) {
    return path + " is not from the same sources as the CPU kernels: build and install again";
  }
  launch_loss = loss;
  launch_augment = augment;
  launch_strong = strong;
  return "";
}

#else

std::string load_cuda(const std::string&) { return "CUDA kernels are built for Linux only"; }

#endif

std::string loss_cuda(const LossBatch& batch, int32_t* flags, int device, void* stream) {
  return launch_loss == nullptr ? kNotLoaded : said(launch_loss(&batch, flags, device, stream));
}

std::string augment_cuda(const AugmentBatch& batch, int32_t* flags, int device, void* stream) {
  return launch_augment == nullptr ? kNotLoaded
                                   : said(launch_augment(&batch, flags, device, stream));
}

std::string strong_cuda(const StrongBatch& batch, int32_t* flags, int device, void* stream) {
  return launch_strong == nullptr ? kNotLoaded : said(launch_strong(&batch, flags, device, stream));
}

}  // namespace nlbench
