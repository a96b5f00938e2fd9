// Threads from the OpenMP runtime that is in the process already. Linking one of our own would bring a second pool,
// whose threads would fight torch's for the cores.
#pragma once

#include <cstdint>

namespace nlbench {

// Calls part(data, first, last) for `count` items in at most `threads` contiguous pieces, which may run at once. Which
// pieces there are depends on count and threads alone. Serial where no OpenMP runtime is loaded.
void in_pieces(int64_t count, int threads, void (*part)(void* data, int64_t first, int64_t last), void* data);

bool has_threads();

}  // namespace nlbench
