#include <algorithm>
#include <cstring>
#include <utility>

#include "checks.h"
#include "ops.h"
#include "threads.h"

namespace nlbench {
namespace {

// load() reads eight bytes of an image, byte() gives the i-th of them in the order of memory.
uint64_t load(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

uint8_t byte(uint64_t word, int i) {
  constexpr bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
  return uint8_t(word >> 8 * (little ? i : 7 - i));
}

// The place where the values of a pixel are written: next to each other, or each in the plane of
// its channel.
template <class Pixel, bool planar>
struct Output {
  Pixel* at;
  int64_t plane;

  void write(Pixel red, Pixel green, Pixel blue) {
    at[0] = red;
    at[planar ? plane : 1] = green;
    at[planar ? 2 * plane : 2] = blue;
    at += planar ? 1 : 3;
  }

  // Writes the table's values for the pixel whose red is the i-th byte of `word`.
  void write_pixel(uint64_t word, int i, const Pixel* table) {
    write(table[byte(word, i)], table[256 + byte(word, i + 1)], table[512 + byte(word, i + 2)]);
  }

  // Writes the table's values for `count` pixels that begin at `bytes`, in reverse order if `flip`.
  // Two loads read four pixels. With a load for each byte it took a tenth longer, since loads and
  // stores limit the speed.
  template <bool flip>
  void write_pixels(const uint8_t* bytes, int64_t count, const Pixel* table) {
    for (; count >= 4; count -= 4) {
      const uint8_t* four = flip ? bytes + 3 * (count - 4) : bytes;
      const uint64_t low = load(four), high = load(four + 4);  // bytes 0 to 7 and 4 to 11
      write_pixel(flip ? high : low, flip ? 5 : 0, table);
      write_pixel(flip ? high : low, flip ? 2 : 3, table);
      write_pixel(flip ? low : high, flip ? 3 : 2, table);
      write_pixel(flip ? low : high, flip ? 0 : 5, table);
      if (!flip) bytes += 12;
    }
    for (; count > 0; --count) {
      const uint8_t* one = flip ? bytes + 3 * (count - 1) : bytes;
      write(table[one[0]], table[256 + one[1]], table[512 + one[2]]);
      if (!flip) bytes += 3;
    }
  }

  // The border is black before normalisation, so its values are the table's entries for zero.
  void write_border(int64_t count, const Pixel* table) {
    for (int64_t x = 0; x < count; ++x) write(table[0], table[256], table[512]);
  }
};

// Writes the window of `image` with its corner at (top, left), mirrored if `flip`. Outside of the
// image there is border. At the same time it prefetches `next`, the image after this one, which may
// be anywhere in memory: one row at a time, since a processor has few requests open at once.
template <class Pixel, bool planar>
void write_window(const uint8_t* image, const uint8_t* next, int64_t H, int64_t W, int64_t top,
                  int64_t left, bool flip, const Pixel* table, Output<Pixel, planar> out) {
  // Columns [first, last) of the image are inside the window.
  const int64_t first = std::clamp<int64_t>(left, 0, W);
  const int64_t last = std::clamp<int64_t>(left + W, 0, W);
  const int64_t seen = last - first;
  int64_t before = std::min(std::max<int64_t>(-left, 0), W), after = W - seen - before;
  if (flip) std::swap(before, after);
  for (int64_t y = top; y < top + H; ++y, next += 3 * W) {
    for (int64_t i = 0; i < 3 * W; i += 64) __builtin_prefetch(next + i);
    if (seen == 0 || !within(y, H)) {
      out.write_border(W, table);
      continue;
    }
    const uint8_t* row = image + y * W * 3;
    out.write_border(before, table);
    if (flip) {
      out.template write_pixels<true>(row + first * 3, seen, table);
    } else {
      out.template write_pixels<false>(row + first * 3, seen, table);
    }
    out.write_border(after, table);
  }
}

template <class Pixel, bool planar>
void write_images(void* data, int64_t begin, int64_t end) {
  const AugmentBatch& batch = *static_cast<const AugmentBatch*>(data);
  const int64_t H = batch.H, W = batch.W;
  const int64_t unchanged[] = {batch.padding, batch.padding, 0};
  const Pixel* table = static_cast<const Pixel*>(batch.table);
  for (int64_t b = begin; b < end; ++b) {
    const uint8_t* image = batch.images + batch.index[b] * 3 * H * W;
    const uint8_t* next = b + 1 < end ? batch.images + batch.index[b + 1] * 3 * H * W : image;
    Output<Pixel, planar> out{static_cast<Pixel*>(batch.out) + b * 3 * H * W, H * W};
    const int64_t* draw = batch.draws == nullptr ? unchanged : batch.draws + batch.index[b] * 3;
    write_window(image, next, H, W, draw[0] - batch.padding, draw[1] - batch.padding, draw[2] == 1,
                 table, out);
  }
}

template <class Pixel>
void write_batch(const AugmentBatch& batch, int threads) {
  AugmentBatch job = batch;
  in_pieces(batch.B, threads, batch.planar ? write_images<Pixel, true> : write_images<Pixel, false>,
            &job);
}

// Below this many values per thread a second thread costs more time than it saves. (Measured: a
// thread writes a value in about 0.6 ns, and starting a parallel region takes about 5 us.)
constexpr int64_t kValuesPerThread = 32768;

}  // namespace

Outcome augment_cpu(const AugmentBatch& batch, int threads) {
  const Outcome outcome = check_images(batch.index, batch.draws, batch.B, batch.N, batch.padding);
  if (outcome.fault != Fault::none) return outcome;

  const int64_t paying = 3 * batch.B * batch.H * batch.W / kValuesPerThread;
  const int used = paying < threads ? int(paying) : threads;
  if (batch.pixel_bytes == 2) write_batch<uint16_t>(batch, used);
  if (batch.pixel_bytes == 4) write_batch<uint32_t>(batch, used);
  if (batch.pixel_bytes == 8) write_batch<uint64_t>(batch, used);
  return outcome;
}

}  // namespace nlbench
