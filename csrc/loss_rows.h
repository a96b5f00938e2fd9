// From a batch to its rows on the CPU. Each instruction set has a file that fills a table with the same functions,
// compiled over its own lane group and with its own flags.
#pragma once

#include "ops.h"

namespace nlbench {

// Rows [first, last) of the batch. `scratch` has scratch_size(C) entries on a 64-byte boundary.
using LossRows = void (*)(const LossBatch& batch, int64_t first, int64_t last, double* scratch);

constexpr int64_t scratch_size(int64_t C) { return C + 16; }

struct LossTable {
  LossRows rows[kOps][kTypes][kTypes];  // by op, type of the logits, type of the targets
};

void fill_portable(LossTable& table);
void fill_avx2(LossTable& table);    // where the build has NLBENCH_X86: float32 and bfloat16 logits
void fill_avx512(LossTable& table);  // likewise

}  // namespace nlbench
