// Threads of the OpenMP runtime that the process has already loaded. Linking another runtime would
// bring a second pool of threads, which would compete with torch's for the cores.
#pragma once

#include <cstdint>

namespace nlbench {

// Calls part(data, first, last) for `count` items, in at most `threads` contiguous pieces that may
// run in parallel. The pieces depend only on count and threads. Runs serially without an OpenMP
// runtime.
void in_pieces(int64_t count, int threads, void (*part)(void* data, int64_t first, int64_t last),
               void* data);

bool has_threads();

}  // namespace nlbench
