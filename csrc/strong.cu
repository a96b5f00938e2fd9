// Strong views on a GPU, in one launch per batch, with a block of threads per image. Its threads
// draw the same operations, and carry them out together, value by value. cuda_library.h has the
// contract.
#include <algorithm>

#include "cuda_launch.h"
#include "cuda_library.h"
#include "strong_view.h"

namespace nlbench {
namespace {

// What the threads of a block share besides the planes of their image.
struct Shared {
  int histogram[3][256];
  uint8_t map[3][256];
  unsigned long long sum;
};

// The planes of an image that a block of threads changes. Places in an image are counted in 32
// bits, in which a GPU divides faster.
struct Canvas {
  const StrongBatch& batch;
  Shared& shared;
  uint8_t *now, *next;
  uint32_t H, W, size;  // rows, columns, pixels

  __device__ Canvas(const StrongBatch& batch, Shared& shared, uint8_t* memory)
      : batch(batch),
        shared(shared),
        now(memory),
        next(memory + 3 * batch.H * batch.W),
        H(uint32_t(batch.H)),
        W(uint32_t(batch.W)),
        size(H * W) {}

  __device__ void read(const uint8_t* image, const int64_t* draw) {
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
      const uint32_t pixel = i / 3, c = i % 3;
      const int64_t from = draw == nullptr ? pixel : shown(draw, pixel / W, pixel % W);
      now[c * size + pixel] = from < 0 ? 0 : image[3 * from + c];
    }
    __syncthreads();
  }

  // Returns the pixel that a draw shows at a place, or -1 for the border.
  __device__ int64_t shown(const int64_t* draw, int64_t y, int64_t x) const {
    const int64_t column = (draw[2] ? W - 1 - x : x) + draw[1] - batch.padding;
    const int64_t from_y = padded(y + draw[0] - batch.padding, H, batch.reflect);
    const int64_t from_x = padded(column, W, batch.reflect);
    return from_y < 0 || from_x < 0 ? -1 : from_y * W + from_x;
  }

  __device__ void apply(const Drawn& drawn) {
    const double* p = drawn.parameters;
    if (is_pointwise(drawn.op)) {
      for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
        now[i] = pointwise(drawn.op, p, now[i]);
      }
    } else if (drawn.op == ViewOp::autocontrast || drawn.op == ViewOp::equalize) {
      spread(drawn.op);
    } else if (drawn.op == ViewOp::contrast) {
      change_contrast(Mix(p));
    } else if (drawn.op == ViewOp::color) {
      change_color(Mix(p));
    } else if (drawn.op == ViewOp::sharpness) {
      sharpen(Mix(p));
    } else if (drawn.op == ViewOp::affine) {
      move(Affine(p));
    } else if (drawn.op == ViewOp::square) {
      fill(place_square(p, drawn.y, drawn.x, H, W), uint8_t(int(p[5])));
    }
    __syncthreads();
  }

  __device__ void spread(ViewOp op) {
    int* counts = &shared.histogram[0][0];
    for (uint32_t i = threadIdx.x; i < 3 * 256; i += kThreads) counts[i] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
      atomicAdd(&shared.histogram[i / size][now[i]], 1);
    }
    __syncthreads();
    const uint32_t c = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0 && c < 3) {
      if (op == ViewOp::equalize) {
        fill_equalize(shared.histogram[c], int(size), shared.map[c]);
      } else {
        fill_stretch(shared.histogram[c], shared.map[c]);
      }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
      now[i] = shared.map[i / size][now[i]];
    }
  }

  __device__ int grey_at(uint32_t i) const {
    return grey(now[i], now[size + i], now[2 * size + i]);
  }

  __device__ void change_contrast(const Mix& mix) {
    if (threadIdx.x == 0) shared.sum = 0;
    __syncthreads();
    unsigned long long own = 0;
    for (uint32_t i = threadIdx.x; i < size; i += kThreads) own += grey_at(i);
    // Integers have the same sum in every order.
    atomicAdd(&shared.sum, own);
    __syncthreads();
    const float mean = float(int64_t(shared.sum)) / float(size);
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) now[i] = mix.blend(now[i], mean);
  }

  __device__ void change_color(const Mix& mix) {
    for (uint32_t i = threadIdx.x; i < size; i += kThreads) {
      const float other = float(grey_at(i));
      for (int c = 0; c < 3; ++c) now[c * size + i] = mix.blend(now[c * size + i], other);
    }
  }

  __device__ void sharpen(const Mix& mix) {
    if (H < 3 || W < 3) return;
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
      const uint32_t y = i % size / W, x = i % W;
      const uint8_t* at = now + i;
      const int64_t row = W;
      next[i] = at[0];
      if (y == 0 || y == H - 1 || x == 0 || x == W - 1) continue;
      int sum = at[-row - 1] + at[-row] + at[-row + 1] + at[-1] + at[0];
      sum += at[1] + at[row - 1] + at[row] + at[row + 1];
      next[i] = mix.sharpen(at[0], blurred(sum, at[0]));
    }
    turn();
  }

  __device__ void move(const Affine& from) {
    for (uint32_t i = threadIdx.x; i < size; i += kThreads) {
      const int64_t at = from.at(i / W, i % W, H, W);
      for (int c = 0; c < 3; ++c) next[c * size + i] = at < 0 ? 0 : now[c * size + at];
    }
    turn();
  }

  __device__ void fill(const Area& area, uint8_t level) {
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
      if (area.has(i % size / W, i % W)) now[i] = level;
    }
  }

  __device__ void turn() {
    uint8_t* before = now;
    now = next, next = before;
  }
};

// Finds whether the index and the draws of image `b` are in range.
__device__ Fault check_image(const StrongBatch& batch, int64_t b) {
  const int64_t row = batch.index[b], shifts = 2 * batch.padding + 1;
  if (uint64_t(row) >= uint64_t(batch.N)) return Fault::index_range;
  if (batch.draws == nullptr) return Fault::none;
  const int64_t* draw = batch.draws + 3 * row;
  const bool good = uint64_t(draw[0]) < uint64_t(shifts) && uint64_t(draw[1]) < uint64_t(shifts) &&
                    uint64_t(draw[2]) < 2;
  return good ? Fault::none : Fault::draw_range;
}

template <class Pixel, bool planar>
__global__ void __launch_bounds__(kThreads) strong_kernel(StrongBatch batch, int32_t* flags) {
  __shared__ Shared shared;
  __shared__ uint8_t planes[2 * kSharedValues];
  const int64_t b = blockIdx.x;
  const uint32_t W = uint32_t(batch.W), size = uint32_t(batch.H) * W;
  Pixel* out = static_cast<Pixel*>(batch.out) + 3 * b * size;

  const Fault fault = check_image(batch, b);
  if (fault != Fault::none) {
    if (threadIdx.x == 0) flags[kStrongFlag] = int(fault);
    // All bits but the sign are 1: NaN in every format.
    for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) out[i] = Pixel(Pixel(-1) >> 1);
    return;
  }

  const int64_t row = batch.index[b];
  const int64_t* draw = batch.draws == nullptr ? nullptr : batch.draws + 3 * row;
  const uint64_t example = uint64_t(batch.examples[b]);
  const bool fits = 3 * size <= kSharedValues;
  Canvas canvas(batch, shared, fits ? planes : batch.scratch + 6 * b * size);
  canvas.read(batch.images + 3 * row * size, batch.crop_first ? draw : nullptr);
  for (int round = 0; round < batch.rounds; ++round) {
    const int64_t entry = draw_entry(batch, example, round);
    for (int slot = 0; slot < batch.slots; ++slot) {
      canvas.apply(draw_slot(batch, example, round, entry, slot));
    }
  }

  const Pixel* table = static_cast<const Pixel*>(batch.table);
  const Area square = draw_square(batch, example);
  const int level = int(batch.policy[5]);
  if (batch.crop_first) draw = nullptr;
  for (uint32_t i = threadIdx.x; i < 3 * size; i += kThreads) {
    const uint32_t pixel = planar ? i % size : i / 3, c = planar ? i / size : i % 3;
    const uint32_t y = pixel / W, x = pixel % W;
    const int64_t from = draw == nullptr ? pixel : canvas.shown(draw, y, x);
    int value = from < 0 ? 0 : canvas.now[c * size + from];
    const bool cut = square.has(y, x);
    if (cut && level >= 0) value = level;
    out[i] = cut && level < 0 ? Pixel(0) : table[256 * c + value];
  }
}

template <class Pixel, bool planar>
const char* launch(const StrongBatch& batch, int32_t* flags, int device, cudaStream_t stream) {
  return on_device(device, [&] {
    const auto kernel = strong_kernel<Pixel, planar>;
    NLBENCH_LAUNCH(kernel, unsigned(batch.B), kThreads, stream)(batch, flags);
  });
}

template <class Pixel>
const char* launch_pixels(const StrongBatch& batch, int32_t* flags, int device,
                          cudaStream_t stream) {
  if (batch.planar) return launch<Pixel, true>(batch, flags, device, stream);
  return launch<Pixel, false>(batch, flags, device, stream);
}

}  // namespace
}  // namespace nlbench

NLBENCH_EXPORT const char* nlbench_strong_cuda(const nlbench::StrongBatch* batch, int32_t* flags,
                                               int device, void* stream) {
  if (batch->B == 0 || batch->H == 0 || batch->W == 0) return nullptr;
  if (batch->B > nlbench::kMost) return "more than 2^31 - 1 images: use smaller batches";
  if (batch->H > nlbench::kMost / 3 / batch->W) return "an image of more than 2^31 - 1 values";
  const auto on = static_cast<cudaStream_t>(stream);
  if (batch->pixel_bytes == 2) return nlbench::launch_pixels<uint16_t>(*batch, flags, device, on);
  if (batch->pixel_bytes == 4) return nlbench::launch_pixels<uint32_t>(*batch, flags, device, on);
  return nlbench::launch_pixels<uint64_t>(*batch, flags, device, on);
}
