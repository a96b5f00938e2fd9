#include <algorithm>
#include <utility>

#include "checks.h"
#include "ops.h"
#include "threads.h"

namespace nlbench {
namespace {

// Where the values of a pixel go: beside each other, or each into the plane of its channel.
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

  // `count` pixels from `bytes` on through the table, forwards (step 3) or backwards (step -3).
  void write_pixels(const uint8_t* bytes, int64_t step, int64_t count, const Pixel* table) {
    for (int64_t x = 0; x < count; ++x, bytes += step)
      write(table[bytes[0]], table[256 + bytes[1]], table[512 + bytes[2]]);
  }

  // The border is black before normalisation, so it takes the table's entry for zero.
  void write_border(int64_t count, const Pixel* table) {
    for (int64_t x = 0; x < count; ++x) write(table[0], table[256], table[512]);
  }
};

// Shows the window of `image` whose corner lies at (top, left), mirrored when `flip`; outside the image is border.
// Meanwhile it asks for `next`, the image after this one, which lies anywhere in memory: a row at a time, since a
// processor keeps few requests open.
template <class Pixel, bool planar>
void write_window(const uint8_t* image, const uint8_t* next, int64_t H, int64_t W, int64_t top, int64_t left, bool flip,
                  const Pixel* table, Output<Pixel, planar> out) {
  const int64_t first = std::clamp<int64_t>(left, 0, W);  // columns [first, last) of the image are seen
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
      out.write_pixels(row + (last - 1) * 3, -3, seen, table);
    } else {
      out.write_pixels(row + first * 3, 3, seen, table);
    }
    out.write_border(after, table);
  }
}

template <class Pixel, bool planar>
void write_images(void* data, int64_t begin, int64_t end) {
  const AugmentBatch& batch = *static_cast<const AugmentBatch*>(data);
  const int64_t H = batch.H, W = batch.W;
  const Pixel* table = static_cast<const Pixel*>(batch.table);
  for (int64_t b = begin; b < end; ++b) {
    const uint8_t* image = batch.images + batch.index[b] * 3 * H * W;
    const uint8_t* next = b + 1 < end ? batch.images + batch.index[b + 1] * 3 * H * W : image;
    Output<Pixel, planar> out{static_cast<Pixel*>(batch.out) + b * 3 * H * W, H * W};
    if (batch.draws == nullptr) {
      out.write_pixels(image, 3, H * W, table);
      continue;
    }
    const int64_t* draw = batch.draws + batch.index[b] * 3;
    write_window(image, next, H, W, draw[0] - batch.padding, draw[1] - batch.padding, draw[2] == 1, table, out);
  }
}

template <class Pixel>
void write_batch(const AugmentBatch& batch, int threads) {
  AugmentBatch job = batch;
  in_pieces(batch.B, threads, batch.planar ? write_images<Pixel, true> : write_images<Pixel, false>, &job);
}

// Below this many values per thread, waking a second one costs more than it saves (measured: a thread writes a value in
// about 0.6 ns, and a parallel region costs about 5 us).
constexpr int64_t kValuesPerThread = 32768;

}  // namespace

Outcome augment_cpu(const AugmentBatch& batch, int threads) {
  for (int64_t b = 0; b < batch.B; ++b) {
    if (!within(batch.index[b], batch.N)) return {Fault::index_range, b};
    if (batch.draws == nullptr) continue;
    const int64_t* draw = batch.draws + batch.index[b] * 3;
    const int64_t shifts = 2 * batch.padding + 1;
    if (!within(draw[0], shifts) || !within(draw[1], shifts) || !within(draw[2], 2)) return {Fault::draw_range, b};
  }

  const int64_t paying = 3 * batch.B * batch.H * batch.W / kValuesPerThread;
  const int used = paying < threads ? int(paying) : threads;
  if (batch.pixel_bytes == 2) write_batch<uint16_t>(batch, used);
  if (batch.pixel_bytes == 4) write_batch<uint32_t>(batch, used);
  if (batch.pixel_bytes == 8) write_batch<uint64_t>(batch, used);
  return {Fault::none, 0};
}

}  // namespace nlbench
