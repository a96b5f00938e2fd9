// bfloat16 as stored in memory: the upper half of a float32.
#pragma once

#include <cstdint>
#include <cstring>

#include "loss_row.h"

namespace nlbench {

struct BFloat16 {
  uint16_t bits;
};

NLBENCH_INLINE float widened(BFloat16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float out;
  memcpy(&out, &bits, sizeof out);
  return out;
}

// Rounds to the nearest, ties to even. Any NaN becomes the one that torch writes.
NLBENCH_INLINE BFloat16 rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (value != value) return {0x7FC0};
  return {uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
}

}  // namespace nlbench
