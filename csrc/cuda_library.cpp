#include "cuda_library.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace nlbench {
namespace {

NlbenchLossCuda launch = nullptr;

}  // namespace

#if defined(__linux__)

std::string load_cuda(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open
  if (library == nullptr) return std::string("the CUDA kernels cannot be loaded: ") + dlerror();
  const auto hash = reinterpret_cast<NlbenchSourceHash>(dlsym(library, "nlbench_source_hash"));
  const auto found = reinterpret_cast<NlbenchLossCuda>(dlsym(library, "nlbench_loss_cuda"));
  if (hash == nullptr || found == nullptr || std::string(hash()) != NLBENCH_SOURCE_HASH) {
    return path + " is not from the same sources as the CPU kernels: build and install again";
  }
  launch = found;
  return "";
}

#else

std::string load_cuda(const std::string&) { return "CUDA kernels are built for Linux only"; }

#endif

std::string loss_cuda(const LossBatch& batch, int32_t* flags, int device, void* stream) {
  if (launch == nullptr) return "the CUDA kernels are not loaded";
  const char* error = launch(&batch, flags, device, stream);
  return error == nullptr ? "" : error;
}

}  // namespace nlbench
