// Checks of a batch's integers. They run before a kernel writes anything, on every call.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"

namespace nlbench {

inline bool within(int64_t value, int64_t end) { return value >= 0 && value < end; }

// The first row whose index occurred in an earlier row, or -1. Values must be >= 0. An open-addressing hash set at
// most half full: linear in B whatever N is, where a bitmap over N would cost more than the loss on large data.
inline int64_t first_repeat(const int64_t* index, int64_t B) {
  int bits = 1;
  while ((int64_t(1) << bits) < 2 * B) ++bits;
  const uint64_t mask = (uint64_t(1) << bits) - 1;
  std::vector<int64_t> slots(mask + 1, -1);
  for (int64_t b = 0; b < B; ++b) {
    uint64_t slot = (uint64_t(index[b]) * 0x9E3779B97F4A7C15u) >> (64 - bits);  // Fibonacci hashing
    for (; slots[slot] != -1; slot = (slot + 1) & mask) {
      if (slots[slot] == index[b]) return b;
    }
    slots[slot] = index[b];
  }
  return -1;
}

}  // namespace nlbench
