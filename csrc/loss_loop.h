// The loop over the rows of a batch for one lane group, and how it fills a LossTable. One file per
// instruction set includes it. Everything is in an unnamed namespace, because the linker must not
// replace the code for one processor by that for another.
#pragma once

#include "bfloat16.h"
#include "loss_dispatch.h"
#include "loss_row.h"

namespace nlbench {
namespace {

template <class G, Op op, class Z, class T>
void loss_rows(const LossBatch& batch, int64_t first, int64_t last, double* scratch) {
  const int64_t C = batch.C;
  const Z* logits = static_cast<const Z*>(batch.logits);
  T* targets = static_cast<T*>(batch.targets);
  Z* dlogits = static_cast<Z*>(batch.dlogits);
  auto* rows = static_cast<typename G::Scalar*>(batch.rows);
  G group{reinterpret_cast<typename G::Scalar*>(scratch)};

  for (int64_t b = first; b < last; ++b) {
    const Z* z = logits + b * C;
    Z* grad = dlogits == nullptr ? nullptr : dlogits + b * C;
    if constexpr (op == Op::elr_soft) {
      const SoftLabel<T> label{static_cast<const T*>(batch.soft_labels) + b * C};
      rows[b] = typename G::Scalar(
          elr_row(group, z, label, targets + b * C, grad, C, 1.0, batch.lam, batch.scale));
    } else {
      // Target rows are scattered over memory, so a whole row is prefetched early: several rows
      // ahead if rows are short.
      const int64_t ahead = b + (C <= 256 ? 4 : 1);
      if (ahead < last) {
        const T* next = targets + batch.index[ahead] * C;
        for (int64_t c = 0; c < C; c += 64 / int64_t(sizeof(T))) __builtin_prefetch(next + c, 1);
      }
      T* t = targets + batch.index[b] * C;
      if constexpr (op == Op::elr) {
        const HardLabel label{batch.labels[b]};
        rows[b] = typename G::Scalar(
            elr_row(group, z, label, t, grad, C, batch.beta, batch.lam, batch.scale));
      } else if constexpr (op == Op::alr) {
        rows[b] =
            typename G::Scalar(alr_row(group, z, t, grad, C, batch.beta, batch.lam, batch.scale));
      } else {
        update_row(group, z, t, C, batch.beta, batch.clamp);
      }
    }
  }
}

template <class G, Op op, class Z>
constexpr void fill_targets(LossRows (&by_targets)[kTypes]) {
  by_targets[int(Type::float32)] = loss_rows<G, op, Z, float>;
  by_targets[int(Type::float64)] = loss_rows<G, op, Z, double>;
}

template <class G, class Z>
constexpr void fill_ops(LossTable& table, Type logits) {
  fill_targets<G, Op::elr, Z>(table.rows[int(Op::elr)][int(logits)]);
  fill_targets<G, Op::elr_soft, Z>(table.rows[int(Op::elr_soft)][int(logits)]);
  fill_targets<G, Op::alr, Z>(table.rows[int(Op::alr)][int(logits)]);
  fill_targets<G, Op::update_targets, Z>(table.rows[int(Op::update_targets)][int(logits)]);
}

}  // namespace
}  // namespace nlbench
