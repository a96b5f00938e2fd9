#include "threads.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#endif

namespace nlbench {
namespace {

// The function that GCC calls for `#pragma omp parallel`. LLVM's and Intel's runtimes export it
// too.
using Parallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

#if defined(__linux__)

struct Runtime {
  char path[4096];
  bool is_torchs;
};

// Several packages bring a copy of libgomp. torch's is preferred, because its threads are running.
int look_at(dl_phdr_info* library, size_t, void* data) {
  auto* found = static_cast<Runtime*>(data);
  const char* path = library->dlpi_name;
  const char* slash = std::strrchr(path, '/');
  const char* name = slash == nullptr ? path : slash + 1;
  const bool is_openmp = std::strncmp(name, "libgomp", 7) == 0 ||
                         std::strncmp(name, "libiomp5", 8) == 0 ||
                         std::strncmp(name, "libomp", 6) == 0;
  const bool is_torchs = std::strstr(path, "/torch") != nullptr;
  if (is_openmp && (found->path[0] == '\0' || (is_torchs && !found->is_torchs)) &&
      std::strlen(path) < sizeof found->path) {
    std::strcpy(found->path, path);
    found->is_torchs = is_torchs;
  }
  return 0;
}

Parallel find_parallel() {
  Runtime found{};
  dl_iterate_phdr(look_at, &found);
  if (found.path[0] == '\0') return nullptr;
  // The library is never closed: it must outlive every call.
  void* library = dlopen(found.path, RTLD_LAZY | RTLD_NOLOAD);
  return library == nullptr ? nullptr : reinterpret_cast<Parallel>(dlsym(library, "GOMP_parallel"));
}

#else

Parallel find_parallel() { return nullptr; }

#endif

Parallel parallel() {
  static const Parallel found = find_parallel();
  return found;
}

struct Work {
  int64_t count, pieces;
  void (*part)(void* data, int64_t first, int64_t last);
  void* data;
  std::atomic<int64_t> next;
};

// The runtime may start fewer threads than requested, so each thread takes pieces until none is
// left.
void take_pieces(void* data) {
  auto* work = static_cast<Work*>(data);
  for (int64_t i; (i = work->next.fetch_add(1)) < work->pieces;) {
    work->part(work->data, work->count * i / work->pieces, work->count * (i + 1) / work->pieces);
  }
}

}  // namespace

bool has_threads() { return parallel() != nullptr; }

void in_pieces(int64_t count, int threads, void (*part)(void*, int64_t, int64_t), void* data) {
  const int64_t pieces = std::min<int64_t>(threads, count);
  if (pieces < 2 || parallel() == nullptr) {
    part(data, 0, count);
    return;
  }
  Work work{count, pieces, part, data, {0}};
  parallel()(take_pieces, &work, unsigned(pieces), 0);
}

}  // namespace nlbench
