// The arithmetic of strong views, which the CPU and CUDA share: random words that belong to an
// example, the choice of operations from a policy's table, and what an operation makes of a value.
// The results equal torchvision's on uint8 tensors; docs/kernels.md says how closely.
#pragma once

#include <cmath>
#include <cstdint>

#include "loss_row.h"
#include "ops.h"

namespace nlbench {

// ---- Random words
// --------------------------------------------------------------------------------

struct Words {
  uint32_t v[4];
};

// Philox4x32-10 (Salmon et al., SC 2011): four random words that depend on key and counter alone.
NLBENCH_INLINE Words philox(uint64_t key, uint64_t example, uint32_t round, uint32_t slot) {
  uint32_t c[4] = {uint32_t(example), uint32_t(example >> 32), round, slot};
  uint32_t low = uint32_t(key), high = uint32_t(key >> 32);
  for (int i = 0; i < 10; ++i) {
    const uint64_t first = uint64_t(0xD2511F53u) * c[0], second = uint64_t(0xCD9E8D57u) * c[2];
    const uint32_t next[4] = {uint32_t(second >> 32) ^ c[1] ^ low, uint32_t(second),
                              uint32_t(first >> 32) ^ c[3] ^ high, uint32_t(first)};
    for (int k = 0; k < 4; ++k) c[k] = next[k];
    low += 0x9E3779B9u, high += 0xBB67AE85u;
  }
  return {{c[0], c[1], c[2], c[3]}};
}

// Maps a word to an integer in [0, count).
NLBENCH_INLINE int64_t pick(uint32_t word, int64_t count) {
  return int64_t(uint64_t(word) * uint64_t(count) >> 32);
}

// ---- A policy's table
// ----------------------------------------------------------------------------

// nlbench/ops/policies.py makes the table and says what its numbers mean.
constexpr int kParameters = 6;
constexpr int kSlotHead = 3;  // operation, probability, number of strengths

enum class ViewOp : int {
  identity = 0,
  affine = 1,
  posterize = 2,
  solarize = 3,
  add_solarize = 4,
  autocontrast = 5,
  equalize = 6,
  invert = 7,
  color = 8,
  brightness = 9,
  contrast = 10,
  sharpness = 11,
  square = 12
};

// An operation that was drawn, with its parameters and two words for its own draws.
struct Drawn {
  ViewOp op;
  const double* parameters;
  uint32_t y, x;
};

// Returns which entry of the policy round `round` has drawn.
NLBENCH_INLINE int64_t draw_entry(const StrongBatch& batch, uint64_t example, int round) {
  return pick(philox(batch.seed, example, uint32_t(round), 0).v[0], batch.entries);
}

// Returns the operation of a slot of an entry, which is the identity if it is not to be applied.
NLBENCH_INLINE Drawn draw_slot(const StrongBatch& batch, uint64_t example, int round, int64_t entry,
                               int slot) {
  const int64_t width = kSlotHead + kParameters * int64_t(batch.strengths);
  const double* row = batch.policy + kParameters + (entry * batch.slots + slot) * width;
  const Words words = philox(batch.seed, example, uint32_t(round), uint32_t(slot) + 1);
  const bool applied = double(words.v[0]) < row[1] * 4294967296.0;
  const int64_t strength = pick(words.v[1], int64_t(row[2]));
  return {applied ? ViewOp(int(row[0])) : ViewOp::identity,
          row + kSlotHead + kParameters * strength, words.v[2], words.v[3]};
}

// Rows [top, bottom) and columns [left, right) of an image.
struct Area {
  int64_t top, bottom, left, right;

  NLBENCH_INLINE bool has(int64_t y, int64_t x) const {
    return y >= top && y < bottom && x >= left && x < right;
  }
};

NLBENCH_INLINE void place_side(uint32_t word, double before, double size, bool moved, int64_t side,
                               int64_t& begin, int64_t& end) {
  begin = int64_t(floor(double(word) * double(side) / 4294967296.0 - before));
  // Either the square is moved inside at this edge, or its part outside is lost.
  if (moved && begin < 0) begin = 0;
  end = begin + int64_t(size);
  if (begin < 0) begin = 0;
  if (end > side) end = side;
}

// Places a square by its parameters: rows and columns before its random point, height and width,
// whether it is moved inside, and the level that fills it (-1 for zero after normalisation).
NLBENCH_INLINE Area place_square(const double* p, uint32_t y, uint32_t x, int64_t H, int64_t W) {
  Area area;
  place_side(y, p[0], p[2], p[4] != 0, H, area.top, area.bottom);
  place_side(x, p[1], p[3], p[4] != 0, W, area.left, area.right);
  return area;
}

// The policy's last square, which comes after everything else.
NLBENCH_INLINE Area draw_square(const StrongBatch& batch, uint64_t example) {
  const Words words = philox(batch.seed, example, uint32_t(batch.rounds), 0);
  return place_square(batch.policy, words.v[0], words.v[1], batch.H, batch.W);
}

// ---- Crop and flip
// -------------------------------------------------------------------------------

// Returns the place along an axis that padding with black (-1) or a reflection shows at `at`.
NLBENCH_INLINE int64_t padded(int64_t at, int64_t side, bool reflect) {
  if (at >= 0 && at < side) return at;
  if (!reflect) return -1;
  if (at < 0) at = -at;
  return at < side ? at : 2 * (side - 1) - at;
}

// ---- What operations make of values
// --------------------------------------------------------------

// Returns x * y + z, computed in double and then rounded to float. The CPU, CUDA and the reference
// in torch carry out the same operations, so that they give the same bits.
NLBENCH_INLINE float multiply_add(float x, float y, float z) {
  return float(double(x) * double(y) + double(z));
}

NLBENCH_INLINE uint8_t to_byte(float x) {
  x = x < 0 ? 0 : x;
  x = x > 255 ? 255 : x;
  return uint8_t(int(x));
}

NLBENCH_INLINE int grey(int red, int green, int blue) {
  const float red_green = multiply_add(float(green), 0.587f, float(red) * 0.2989f);
  return int(multiply_add(float(blue), 0.114f, red_green));
}

// The factor of an operation that mixes two images, and what it leaves to the second one.
struct Mix {
  float ratio, rest;

  explicit NLBENCH_INLINE Mix(const double* p) : ratio(float(p[0])), rest(float(1.0 - p[0])) {}

  NLBENCH_INLINE uint8_t blend(int value, float other) const {
    return to_byte(multiply_add(other, rest, float(value) * ratio));
  }

  // The same up to rounding, as torchvision has it for a blurred image.
  NLBENCH_INLINE uint8_t sharpen(int value, int blur) const {
    return to_byte(multiply_add(float(blur - value), rest, float(value)));
  }
};

// Returns the rounded mean of nine values, of which the middle counts five times.
// `sum` is their plain sum.
NLBENCH_INLINE int blurred(int sum, int middle) { return (2 * (sum + 4 * middle) + 13) / 26; }

NLBENCH_INLINE bool is_pointwise(ViewOp op) {
  return op == ViewOp::posterize || op == ViewOp::solarize || op == ViewOp::add_solarize ||
         op == ViewOp::invert || op == ViewOp::brightness;
}

// The operations whose result depends on the value alone.
NLBENCH_INLINE uint8_t pointwise(ViewOp op, const double* p, int value) {
  if (op == ViewOp::posterize) return uint8_t(value & int(p[0]));
  if (op == ViewOp::invert) return uint8_t(255 - value);
  if (op == ViewOp::brightness) return to_byte(float(value) * float(p[0]));
  if (op == ViewOp::solarize) return uint8_t(float(value) < float(p[0]) ? value : 255 - value);
  int moved = value + int(p[0]);
  moved = moved < 0 ? 0 : moved > 255 ? 255 : moved;
  return uint8_t(moved < p[1] ? moved : 255 - moved);
}

// Stretches the values of a channel that lie in [low, high].
NLBENCH_INLINE uint8_t stretched(int value, int low, int high) {
  if (low == high) return uint8_t(value);
  return to_byte(float(value - low) / (float(high - low) * float(1.0 / 255.0)));
}

// Fills the 256 entries of a channel's map from its histogram.
NLBENCH_INLINE void fill_stretch(const int* histogram, uint8_t* map) {
  int low = 0, high = 255;
  while (low < 255 && histogram[low] == 0) ++low;
  while (high > 0 && histogram[high] == 0) --high;
  for (int v = 0; v < 256; ++v) map[v] = v < low ? 0 : v > high ? 255 : stretched(v, low, high);
}

NLBENCH_INLINE void fill_equalize(const int* histogram, int pixels, uint8_t* map) {
  int high = 255;
  while (high > 0 && histogram[high] == 0) --high;
  const int step = (pixels - histogram[high]) / 255;
  int below = step / 2;
  for (int v = 0; v < 256; ++v) {
    const int level = step == 0 ? v : below / step;
    map[v] = uint8_t(level > 255 ? 255 : level);
    below += histogram[v];
  }
}

// The map from places of the result to those of the image, in units of 2^-32 pixels. Integers keep
// it the same on every device.
struct Affine {
  int64_t xx, xy, x0, yx, yy, y0;

  explicit NLBENCH_INLINE Affine(const double* p)
      : xx(int64_t(p[0])),
        xy(int64_t(p[1])),
        x0(int64_t(p[2])),
        yx(int64_t(p[3])),
        yy(int64_t(p[4])),
        y0(int64_t(p[5])) {}

  // Returns the offset of the nearest pixel in its plane, or -1 outside of the image.
  NLBENCH_INLINE int64_t at(int64_t y, int64_t x, int64_t H, int64_t W) const {
    const int64_t from_x = (xx * x + xy * y + x0) >> 32, from_y = (yx * x + yy * y + y0) >> 32;
    const bool inside = uint64_t(from_x) < uint64_t(W) && uint64_t(from_y) < uint64_t(H);
    return inside ? from_y * W + from_x : -1;
  }
};

}  // namespace nlbench
