// The interface between Python and the kernels: one struct per family of ops, with the shape on
// each line. All arrays are dense and row-major. The structs know neither torch nor Python.
#pragma once

#include <cstdint>

namespace nlbench {

// The reason why a kernel refused its input. `row` is the first wrong row of the batch. On the CPU
// nothing has been written then.
enum class Fault : int {
  none = 0,
  label_range = 1,
  index_range = 2,
  index_repeated = 3,
  draw_range = 4
};

struct Outcome {
  Fault fault;
  int64_t row;
};

enum class Op : int { elr = 0, elr_soft = 1, alr = 2, update_targets = 3 };
enum class Type : int { float32 = 0, bfloat16 = 1, float64 = 2 };  // targets are never bfloat16

constexpr int kOps = 4, kTypes = 3;

// On a GPU each Op has a flag for its faults, and augment and strong_augment have one each.
constexpr int kAugmentFlag = kOps, kStrongFlag = kOps + 1, kFlags = kOps + 2;

// The losses with a soft target per example. The ops that use a member are named before the colon.
struct LossBatch {
  Op op;
  Type logits_type, targets_type;
  const void* logits;       // [B, C] logits_type
  const int64_t* labels;    // elr: [B], values in [0, C)
  const void* soft_labels;  // elr_soft: [B, C] targets_type
  const int64_t* index;     // all but elr_soft: [B], rows of targets, no repeats
  void* targets;            // [N, C] targets_type, row index[b] is updated; elr_soft: [B, C], read
  // The next two are outputs of all ops but update_targets.
  void* dlogits;  // [B, C] logits_type, scale * d rows[b] / d logits[b]; or null: not wanted
  void* rows;     // [B] float32, or float64 for float64 logits, the loss of each row
  int64_t B, C, N;
  double beta;   // weight of the old target
  double lam;    // weight of the second term: the regulariser, or the entropy
  double scale;  // factor on the gradient
  bool clamp;    // update_targets: clamp and renormalise the prediction first, as elr does
};

// Checks labels and index, then runs on at most `threads` threads. The result does not depend on
// their number.
Outcome loss_cpu(const LossBatch& batch, int threads);

// Returns the instruction set that loss_cpu uses: "portable", "avx2" or "avx512". It is the best
// that the processor has, unless the environment variable NLBENCH_ISA names another. set_isa
// returns false and changes nothing if the processor lacks the instruction set.
const char* isa();
bool set_isa(const char* name);

// Returns whether the process has an OpenMP runtime. Without one, everything runs on the calling
// thread.
bool has_threads();

// The images of a batch, to be cropped, flipped and normalised. Table entries are only copied, so
// the kernel needs their size in bytes, not their type.
struct AugmentBatch {
  const uint8_t* images;  // [N, H, W, 3]
  const int64_t* index;   // [B], rows of images; may repeat
  // [N, 3], rows dy, dx in [0, 2 * padding], flip in {0, 1}; or null: no crop, no flip.
  const int64_t* draws;
  const void* table;  // [3, 256], the normalised value of each byte, per channel
  void* out;          // [B, 3, H, W] if planar, else [B, H, W, 3], out
  int64_t B, N, H, W, padding;
  int pixel_bytes;  // size of an entry of table and out: 2, 4 or 8
  bool planar;
};

// Checks index and draws, then runs on at most `threads` threads. The result does not depend on
// their number.
Outcome augment_cpu(const AugmentBatch& batch, int threads);

// The images of a batch, to be changed by a policy's operations, cropped, flipped and normalised.
struct StrongBatch {
  const uint8_t* images;    // [N, H, W, 3]
  const int64_t* index;     // [B], rows of images; may repeat
  const int64_t* examples;  // [B], whose random words the images get
  const int64_t* draws;     // as in AugmentBatch
  const double* policy;     // [6 + entries * slots * (3 + 6 * strengths)], see strong_view.h
  const void* table;        // as in AugmentBatch
  void* out;                // as in AugmentBatch
  uint8_t* scratch;  // on a GPU: [B, 2, 3, H, W] for images of over kSharedValues values, or null
  int64_t B, N, H, W, padding;
  uint64_t seed;
  int rounds, entries, slots, strengths;  // draws of an entry; the table's sizes
  int pixel_bytes;
  bool planar;
  bool crop_first;  // crop and flip come before the operations, not after them
  bool reflect;     // the padding is a reflection of the image, not black
};

// A block of a GPU's threads keeps two images of at most this many values in shared memory.
constexpr int64_t kSharedValues = 12288;

// Checks index and draws, then runs on at most `threads` threads. The result does not depend on
// their number.
Outcome strong_cpu(const StrongBatch& batch, int threads);

}  // namespace nlbench
