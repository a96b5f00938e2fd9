// What Python and the kernels agree on: one struct per op, with the shape on each line. All arrays are dense and
// row-major. The structs know neither torch nor Python.
#pragma once

#include <cstdint>

namespace nlbench {

// Why a kernel refused its input. It has then written nothing; `row` is the first row of the batch at fault.
enum class Fault : int { none = 0, label_range = 1, index_range = 2, index_repeated = 3, draw_range = 4 };

struct Outcome {
  Fault fault;
  int64_t row;
};

template <class Logit, class Target>
struct ElrRows {
  const Logit* logits;    // [B, C]
  const int64_t* labels;  // [B], values in [0, C)
  const int64_t* index;   // [B], rows of targets, no repeats
  Target* targets;        // [N, C], row index[b] is rewritten
  Logit* dlogits;         // [B, C], out: scale * d rows[b] / d logits[b]
  Logit* rows;            // [B], out: one loss per row; the caller takes the mean
  int64_t B, C, N;
  double beta, lam, scale;
};

template <class Logit, class Target>
Outcome elr_step_cpu(const ElrRows<Logit, Target>& batch);

template <class Pixel>
struct AugmentRows {
  const uint8_t* images;  // [N, H, W, 3]
  const int64_t* index;   // [B], rows of images; may repeat
  const int64_t* draws;   // [N, 3], rows dy, dx in [0, 2 * padding], flip in {0, 1}; or null: no crop, no flip
  const Pixel* table;     // [3, 256], the normalised value of each byte, per channel
  Pixel* out;             // [B, H, W, 3], out
  int64_t B, N, H, W, padding;
};

// Moves table entries and computes nothing with them, so Pixel is any type of the right size.
template <class Pixel>
Outcome augment_cpu(const AugmentRows<Pixel>& batch);

}  // namespace nlbench
