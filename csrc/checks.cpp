#include "checks.h"

#include <vector>

namespace nlbench {

int64_t first_outside(const int64_t* values, int64_t B, int64_t end) {
  // There is no branch in the loop, so that the compiler vectorises it.
  uint64_t outside = 0;
  for (int64_t b = 0; b < B; ++b) outside |= uint64_t(uint64_t(values[b]) >= uint64_t(end));
  if (!outside) return -1;
  int64_t b = 0;
  while (within(values[b], end)) ++b;
  return b;
}

namespace {

struct Slot {
  int64_t index;
  uint64_t call;  // number of the call that filled the slot; it is free in all other calls
};

}  // namespace

// A hash set with open addressing, at most half full. Its cost is linear in B and does not depend
// on N, while a bitmap over N would cost more than the loss on large data. Each thread keeps its
// set, and the numbers of the calls make clearing it unnecessary.
int64_t first_repeat(const int64_t* index, int64_t B) {
  int bits = 1;
  while ((int64_t(1) << bits) < 2 * B) ++bits;
  const uint64_t mask = (uint64_t(1) << bits) - 1;
  thread_local std::vector<Slot> slots;
  thread_local uint64_t call = 0;
  if (slots.size() <= mask) slots.assign(mask + 1, Slot{0, 0});
  ++call;
  for (int64_t b = 0; b < B; ++b) {
    uint64_t at = (uint64_t(index[b]) * 0x9E3779B97F4A7C15u) >> (64 - bits);  // Fibonacci hashing
    for (; slots[at].call == call; at = (at + 1) & mask) {
      if (slots[at].index == index[b]) return b;
    }
    slots[at] = {index[b], call};
  }
  return -1;
}

Outcome check_images(const int64_t* index, const int64_t* draws, int64_t B, int64_t N,
                     int64_t padding) {
  const int64_t shifts = 2 * padding + 1;
  for (int64_t b = 0; b < B; ++b) {
    if (!within(index[b], N)) return {Fault::index_range, b};
    if (draws == nullptr) continue;
    const int64_t* draw = draws + index[b] * 3;
    if (!within(draw[0], shifts) || !within(draw[1], shifts) || !within(draw[2], 2))
      return {Fault::draw_range, b};
  }
  return {Fault::none, 0};
}

}  // namespace nlbench
