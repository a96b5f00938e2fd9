#include <algorithm>

#include "checks.h"
#include "ops.h"

namespace nlbench {
namespace {

// `count` pixels from `bytes` on through the table, forwards (step 3) or backwards (step -3).
template <class Pixel>
Pixel* write_pixels(const uint8_t* bytes, int64_t step, int64_t count, const Pixel* table, Pixel* out) {
  for (int64_t x = 0; x < count; ++x, bytes += step, out += 3) {
    out[0] = table[bytes[0]];
    out[1] = table[256 + bytes[1]];
    out[2] = table[512 + bytes[2]];
  }
  return out;
}

// The border is black before normalisation, so it takes the table's entry for zero.
template <class Pixel>
Pixel* write_border(int64_t count, const Pixel* table, Pixel* out) {
  for (int64_t x = 0; x < count; ++x, out += 3) {
    out[0] = table[0];
    out[1] = table[256];
    out[2] = table[512];
  }
  return out;
}

// Shows the window of `image` whose corner lies at (top, left), mirrored when `flip`; outside the image is border.
template <class Pixel>
void write_window(const uint8_t* image, int64_t H, int64_t W, int64_t top, int64_t left, bool flip, const Pixel* table,
                  Pixel* out) {
  const int64_t first = std::clamp<int64_t>(left, 0, W);  // columns [first, last) of the image are seen
  const int64_t last = std::clamp<int64_t>(left + W, 0, W);
  const int64_t seen = last - first;
  int64_t before = std::min(std::max<int64_t>(-left, 0), W), after = W - seen - before;
  if (flip) std::swap(before, after);
  for (int64_t y = top; y < top + H; ++y) {
    if (seen == 0 || !within(y, H)) {
      out = write_border(W, table, out);
      continue;
    }
    const uint8_t* row = image + y * W * 3;
    out = write_border(before, table, out);
    out = flip ? write_pixels(row + (last - 1) * 3, -3, seen, table, out)
               : write_pixels(row + first * 3, 3, seen, table, out);
    out = write_border(after, table, out);
  }
}

}  // namespace

template <class Pixel>
Outcome augment_cpu(const AugmentRows<Pixel>& batch) {
  for (int64_t b = 0; b < batch.B; ++b) {
    if (!within(batch.index[b], batch.N)) return {Fault::index_range, b};
    if (batch.draws == nullptr) continue;
    const int64_t* draw = batch.draws + batch.index[b] * 3;
    const int64_t shifts = 2 * batch.padding + 1;
    if (!within(draw[0], shifts) || !within(draw[1], shifts) || !within(draw[2], 2)) return {Fault::draw_range, b};
  }

  const int64_t size = batch.H * batch.W * 3;
  for (int64_t b = 0; b < batch.B; ++b) {
    const uint8_t* image = batch.images + batch.index[b] * size;
    Pixel* out = batch.out + b * size;
    if (batch.draws == nullptr) {
      write_pixels(image, 3, batch.H * batch.W, batch.table, out);
      continue;
    }
    const int64_t* draw = batch.draws + batch.index[b] * 3;
    write_window(image, batch.H, batch.W, draw[0] - batch.padding, draw[1] - batch.padding, draw[2] == 1, batch.table,
                 out);
  }
  return {Fault::none, 0};
}

template Outcome augment_cpu(const AugmentRows<uint16_t>&);
template Outcome augment_cpu(const AugmentRows<uint32_t>&);
template Outcome augment_cpu(const AugmentRows<uint64_t>&);

}  // namespace nlbench
