#include <cstdlib>
#include <cstring>
#include <vector>

#include "checks.h"
#include "loss_dispatch.h"
#include "ops.h"
#include "threads.h"

namespace nlbench {
namespace {

struct Isa {
  const char* name;
  bool there;
  LossTable table;
};

constexpr int kIsas = 3;

const Isa* isas() {
  static const Isa* all = [] {
    static Isa made[kIsas] = {{"portable", true, {}}, {"avx2", false, {}}, {"avx512", false, {}}};
    for (Isa& isa : made) fill_portable(isa.table);
#if defined(NLBENCH_X86)
    // Both also ask whether the operating system saves the registers.
    made[1].there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    made[2].there = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (made[1].there) fill_avx2(made[1].table);
    if (made[2].there) fill_avx512(made[2].table);
#endif
    return made;
  }();
  return all;
}

const Isa* find_isa(const char* name) {
  for (int i = 0; name != nullptr && i < kIsas; ++i) {
    if (std::strcmp(isas()[i].name, name) == 0 && isas()[i].there) return isas() + i;
  }
  return nullptr;
}

const Isa*& current_isa() {
  static const Isa* chosen = [] {
    const Isa* wanted = find_isa(std::getenv("NLBENCH_ISA"));
    const Isa* best = isas();
    for (int i = 0; i < kIsas; ++i) best = isas()[i].there ? isas() + i : best;
    return wanted != nullptr ? wanted : best;
  }();
  return chosen;
}

// Below this many entries per thread a second thread costs more time than it saves. (Measured: a
// thread needs about 1 ns per entry, and starting a parallel region takes about 5 us.)
constexpr int64_t kEntriesPerThread = 16384;
constexpr int64_t kStackScratch = 2048;

struct Job {
  const LossBatch* batch;
  LossRows rows;
};

void run_rows(void* data, int64_t first, int64_t last) {
  const Job& job = *static_cast<const Job*>(data);
  const int64_t size = scratch_size(job.batch->C);
  if (size <= kStackScratch) {
    alignas(64) double scratch[kStackScratch];
    job.rows(*job.batch, first, last, scratch);
  } else {
    thread_local std::vector<double> kept;
    if (int64_t(kept.size()) < size + 8) kept.resize(size + 8);
    const uintptr_t address = reinterpret_cast<uintptr_t>(kept.data());
    job.rows(*job.batch, first, last, reinterpret_cast<double*>((address + 63) / 64 * 64));
  }
}

}  // namespace

const char* isa() { return current_isa()->name; }

bool set_isa(const char* name) {
  const Isa* wanted = find_isa(name);
  if (wanted != nullptr) current_isa() = wanted;
  return wanted != nullptr;
}

Outcome loss_cpu(const LossBatch& batch, int threads) {
  if (batch.op == Op::elr) {
    const int64_t bad = first_outside(batch.labels, batch.B, batch.C);
    if (bad >= 0) return {Fault::label_range, bad};
  }
  if (batch.op != Op::elr_soft) {
    const int64_t bad = first_outside(batch.index, batch.B, batch.N);
    if (bad >= 0) return {Fault::index_range, bad};
    const int64_t repeat = first_repeat(batch.index, batch.B);
    if (repeat >= 0) return {Fault::index_repeated, repeat};
  }
  if (batch.B == 0 || batch.C == 0) return {Fault::none, 0};

  Job job{
      &batch,
      current_isa()->table.rows[int(batch.op)][int(batch.logits_type)][int(batch.targets_type)]};
  const int64_t paying = batch.B * batch.C / kEntriesPerThread;
  in_pieces(batch.B, paying < threads ? int(paying) : threads, run_rows, &job);
  return {Fault::none, 0};
}

}  // namespace nlbench
