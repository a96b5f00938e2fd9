// Crop, flip and normalisation on a GPU, in one launch per batch, with a thread per 16 bytes of the
// output. cuda_library.h has the contract.
#include "cuda_launch.h"
#include "cuda_library.h"
#include "pack.h"

namespace nlbench {
namespace {

// The place of a value in its image, counted in the order of the output in memory.
template <bool planar>
struct Place {
  uint32_t y, x, c;

  __device__ Place(uint32_t at, uint32_t H, uint32_t W) {
    if constexpr (planar) {
      x = at % W, y = at / W % H, c = at / W / H;
    } else {
      c = at % 3, x = at / 3 % W, y = at / 3 / W;
    }
  }

  __device__ void advance(uint32_t H, uint32_t W) {
    if constexpr (planar) {
      if (++x < W) return;
      x = 0;
      if (++y < H) return;
      y = 0, ++c;
    } else {
      if (++c < 3) return;
      c = 0;
      if (++x < W) return;
      x = 0, ++y;
    }
  }
};

__device__ bool in_range(int64_t value, int64_t end) { return uint64_t(value) < uint64_t(end); }

// Reads the draws of image `row`, or returns a fault. Without draws, it gives those that change
// nothing.
__device__ Fault read_draw(const AugmentBatch& batch, int64_t row, int64_t (&draw)[3]) {
  draw[0] = draw[1] = batch.padding, draw[2] = 0;
  if (!in_range(row, batch.N)) return Fault::index_range;
  if (batch.draws == nullptr) return Fault::none;
  for (int i = 0; i < 3; ++i) draw[i] = batch.draws[3 * row + i];
  const int64_t shifts = 2 * batch.padding + 1;
  const bool good = in_range(draw[0], shifts) && in_range(draw[1], shifts) && in_range(draw[2], 2);
  return good ? Fault::none : Fault::draw_range;
}

template <class Pixel, bool planar, int width>
__global__ void __launch_bounds__(kThreads) augment_kernel(AugmentBatch batch, int32_t* flags) {
  const uint32_t H = uint32_t(batch.H), W = uint32_t(batch.W), size = 3 * H * W;
  const uint32_t blocks = (size - 1) / (kThreads * width) + 1;  // for an image
  const int64_t b = blockIdx.x / blocks;
  const uint32_t begin = (blockIdx.x % blocks * kThreads + threadIdx.x) * width;
  if (begin >= size) return;

  const int64_t row = batch.index[b];
  int64_t draw[3];
  const Fault fault = read_draw(batch, row, draw);
  if (fault != Fault::none && begin == 0) flags[kAugmentFlag] = int(fault);

  const Pixel* table = static_cast<const Pixel*>(batch.table);
  const uint8_t* image = batch.images + row * size;  // read only if there is no fault
  Place<planar> place(begin, H, W);
  Pack<Pixel, width> values;
#pragma unroll
  for (int i = 0; i < width; ++i, place.advance(H, W)) {
    const int64_t y = place.y + draw[0] - batch.padding;
    const int64_t x = (draw[2] ? W - 1 - place.x : place.x) + draw[1] - batch.padding;
    if (fault != Fault::none) {
      // All bits but the sign are 1: NaN in every format.
      values.v[i] = Pixel(Pixel(-1) >> 1);
    } else {
      // The border is black before normalisation.
      const bool inside = in_range(y, H) && in_range(x, W);
      values.v[i] = table[256 * place.c + (inside ? image[3 * (y * W + x) + place.c] : 0)];
    }
  }
  *reinterpret_cast<Pack<Pixel, width>*>(static_cast<Pixel*>(batch.out) + b * size + begin) =
      values;
}

template <class Pixel, bool planar, int width>
const char* launch(const AugmentBatch& batch, int32_t* flags, int device, cudaStream_t stream) {
  const int64_t blocks = batch.B * ((3 * batch.H * batch.W - 1) / (kThreads * width) + 1);
  if (blocks > kMost) return "more than 2^31 - 1 blocks of threads: use smaller batches";
  return on_device(device, [&] {
    const auto kernel = augment_kernel<Pixel, planar, width>;
    NLBENCH_LAUNCH(kernel, unsigned(blocks), kThreads, stream)(batch, flags);
  });
}

template <class Pixel, bool planar>
const char* launch_widest(const AugmentBatch& batch, int32_t* flags, int device,
                          cudaStream_t stream) {
  constexpr int widest = 16 / sizeof(Pixel);
  if (3 * batch.H * batch.W % widest == 0 && aligned(batch.out, 16)) {
    return launch<Pixel, planar, widest>(batch, flags, device, stream);
  }
  return launch<Pixel, planar, 1>(batch, flags, device, stream);
}

template <class Pixel>
const char* launch_pixels(const AugmentBatch& batch, int32_t* flags, int device,
                          cudaStream_t stream) {
  if (batch.planar) return launch_widest<Pixel, true>(batch, flags, device, stream);
  return launch_widest<Pixel, false>(batch, flags, device, stream);
}

}  // namespace
}  // namespace nlbench

NLBENCH_EXPORT const char* nlbench_augment_cuda(const nlbench::AugmentBatch* batch, int32_t* flags,
                                                int device, void* stream) {
  if (batch->B == 0 || batch->H == 0 || batch->W == 0) return nullptr;
  if (batch->H > nlbench::kMost / 3 / batch->W) return "an image of more than 2^31 - 1 values";
  const auto on = static_cast<cudaStream_t>(stream);
  if (batch->pixel_bytes == 2) return nlbench::launch_pixels<uint16_t>(*batch, flags, device, on);
  if (batch->pixel_bytes == 4) return nlbench::launch_pixels<uint32_t>(*batch, flags, device, on);
  return nlbench::launch_pixels<uint64_t>(*batch, flags, device, on);
}
