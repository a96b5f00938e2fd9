// What Python and the kernels agree on: one struct per family of ops, with the shape on each line. All arrays are dense
// and row-major. The structs know neither torch nor Python.
#pragma once

#include <cstdint>

namespace nlbench {

// Why a kernel refused its input; `row` is the first row of the batch at fault. On the CPU it has then written nothing.
enum class Fault : int { none = 0, label_range = 1, index_range = 2, index_repeated = 3, draw_range = 4 };

struct Outcome {
  Fault fault;
  int64_t row;
};

enum class Op : int { elr = 0, elr_soft = 1, alr = 2, update_targets = 3 };
enum class Type : int { float32 = 0, bfloat16 = 1, float64 = 2 };  // targets are never bfloat16

constexpr int kOps = 4, kTypes = 3;

// Marks of faults on a GPU: one for each Op, and augment's.
constexpr int kAugmentFlag = kOps, kFlags = kOps + 1;

// The losses with a soft target per example. Which members an op reads stands in front of the colon.
struct LossBatch {
  Op op;
  Type logits_type, targets_type;
  const void* logits;       // [B, C] logits_type
  const int64_t* labels;    // elr: [B], values in [0, C)
  const void* soft_labels;  // elr_soft: [B, C] targets_type
  const int64_t* index;     // all but elr_soft: [B], rows of targets, no repeats
  void* targets;            // [N, C] targets_type, row index[b] is rewritten; elr_soft: [B, C], read only
  void* dlogits;            // all but update_targets: [B, C] logits_type, out: scale * d rows[b] / d logits[b], or null
  void* rows;               // all but update_targets: [B] float32, or float64 for float64 logits, out: a loss per row
  int64_t B, C, N;
  double beta;   // weight of the old target
  double lam;    // weight of the second term: the regulariser, or the entropy
  double scale;  // factor on the gradient
  bool clamp;    // update_targets: clamp and renormalise the prediction first, as elr does
};

// Checks labels and index, then runs on at most `threads` threads. The result does not depend on their number.
Outcome loss_cpu(const LossBatch& batch, int threads);

// The instruction set that loss_cpu uses: "portable", "avx2" or "avx512". The best one that the processor has, unless
// the environment variable NLBENCH_ISA names another. Setting one that the processor lacks changes nothing: false.
const char* isa();
bool set_isa(const char* name);

// Whether an OpenMP runtime was found in the process; without it everything runs on the calling thread.
bool has_threads();

// Images of a batch, cropped, flipped and normalised. Entries of the table are moved and never computed with, so of a
// pixel's type the size alone counts.
struct AugmentBatch {
  const uint8_t* images;  // [N, H, W, 3]
  const int64_t* index;   // [B], rows of images; may repeat
  const int64_t* draws;   // [N, 3], rows dy, dx in [0, 2 * padding], flip in {0, 1}; or null: no crop, no flip
  const void* table;      // [3, 256], the normalised value of each byte, per channel
  void* out;              // [B, 3, H, W] if planar, else [B, H, W, 3], out
  int64_t B, N, H, W, padding;
  int pixel_bytes;  // of an entry of table and out: 2, 4 or 8
  bool planar;
};

// Checks index and draws, then runs on at most `threads` threads. The result does not depend on their number.
Outcome augment_cpu(const AugmentBatch& batch, int threads);

}  // namespace nlbench
