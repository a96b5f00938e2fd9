// Checks of the integers of a batch. They run on every call, before a kernel writes anything.
#pragma once

#include <cstdint>

#include "ops.h"

namespace nlbench {

inline bool within(int64_t value, int64_t end) { return value >= 0 && value < end; }

// Returns the first row whose value is not in [0, end), or -1.
int64_t first_outside(const int64_t* values, int64_t B, int64_t end);

// Returns the first row whose index occurred in an earlier row, or -1. Values must be >= 0.
int64_t first_repeat(const int64_t* index, int64_t B);

// Returns the first row whose index is not in [0, N), or whose image has draws that are not in the
// ranges of AugmentBatch. `draws` may be null.
Outcome check_images(const int64_t* index, const int64_t* draws, int64_t B, int64_t N,
                     int64_t padding);

}  // namespace nlbench
