// The table of functions that run the rows of a batch on the CPU. Each instruction set has a file
// that fills such a table; its functions are compiled for its lane group and with its compiler
// flags.
#pragma once

#include "ops.h"

namespace nlbench {

// Runs rows [first, last) of the batch. `scratch` has scratch_size(C) entries, aligned to 64 bytes.
using LossRows = void (*)(const LossBatch& batch, int64_t first, int64_t last, double* scratch);

constexpr int64_t scratch_size(int64_t C) { return C + 16; }

struct LossTable {
  LossRows rows[kOps][kTypes][kTypes];  // by op, type of the logits, type of the targets
};

void fill_portable(LossTable& table);
// These two exist if the build has NLBENCH_X86. They fill in float32 and bfloat16 logits.
void fill_avx2(LossTable& table);
void fill_avx512(LossTable& table);

}  // namespace nlbench
