#include "checks.h"

#include <vector>

namespace nlbench {

int64_t first_outside(const int64_t* values, int64_t B, int64_t end) {
  uint64_t outside = 0;  // without a branch in the loop, so that it vectorises
  for (int64_t b = 0; b < B; ++b) outside |= uint64_t(uint64_t(values[b]) >= uint64_t(end));
  if (!outside) return -1;
  int64_t b = 0;
  while (within(values[b], end)) ++b;
  return b;
}

namespace {

struct Slot {
  int64_t index;
  uint64_t call;  // the slot is taken if this is the current call's number
};

}  // namespace

// An open-addressing hash set at most half full: linear in B whatever N is, where a bitmap over N would cost more than
// the loss on large data. It stays with the thread, and numbering the calls saves clearing it.
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

}  // namespace nlbench
