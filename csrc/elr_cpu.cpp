#include "checks.h"
#include "elr_row.h"
#include "ops.h"

namespace nlbench {

template <class Logit, class Target>
Outcome elr_step_cpu(const ElrRows<Logit, Target>& batch) {
  for (int64_t b = 0; b < batch.B; ++b) {
    if (!within(batch.labels[b], batch.C)) return {Fault::label_range, b};
    if (!within(batch.index[b], batch.N)) return {Fault::index_range, b};
  }
  const int64_t repeat = first_repeat(batch.index, batch.B);
  if (repeat >= 0) return {Fault::index_repeated, repeat};

  for (int64_t b = 0; b < batch.B; ++b) {
    batch.rows[b] = Logit(elr_row(batch.logits + b * batch.C, batch.labels[b], batch.targets + batch.index[b] * batch.C,
                                  batch.dlogits + b * batch.C, batch.C, batch.beta, batch.lam, batch.scale));
  }
  return {Fault::none, 0};
}

template Outcome elr_step_cpu(const ElrRows<float, float>&);
template Outcome elr_step_cpu(const ElrRows<float, double>&);
template Outcome elr_step_cpu(const ElrRows<double, float>&);
template Outcome elr_step_cpu(const ElrRows<double, double>&);

}  // namespace nlbench
