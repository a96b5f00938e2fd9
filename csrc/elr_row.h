// The mathematics of one row of the ELR loss. Liu et al., NeurIPS 2020, arXiv:2007.00151, eq. 6 and Lemma 2.
//
//   p = softmax(z)    q = clamp(p, 1e-4, 1 - 1e-4)    t <- beta * t + (1 - beta) * q / sum(q)    s = <t, q>
//   loss    = log sum exp(z) - z_y + lam * log(1 - s)
//   dloss_c = p_c - [c = y] + lam * p_c / (1 - s) * (sum_k m_k t_k p_k - m_c t_c),   m_k = [p_k within the bounds]
#pragma once

#include <cmath>
#include <cstdint>

namespace nlbench {

// Sums and products are double whatever the type of the logits; only the exponentials are taken in that type. Late in
// training 1 - s is about 1e-4, the difference of two numbers near one, and float32 keeps three digits of it. The
// largest exponential is exactly 1, so 1 - p of a confident class keeps the relative precision of the small ones.
using Wide = double;

constexpr Wide kProbMin = 1e-4;
constexpr Wide kProbMax = 1.0 - 1e-4;

// Both comparisons are false for NaN, which passes through: a diverged row must show in loss, gradient and target.
inline Wide clamp_prob(Wide p) { return p < kProbMin ? kProbMin : (p > kProbMax ? kProbMax : p); }

// The clamp's own gradient: one within the bounds and at them, zero outside.
inline bool clamp_passes(Wide p) { return p >= kProbMin && p <= kProbMax; }

// `z`, `grad` and `t` have C entries. `grad` holds the exponentials until the last pass overwrites them. Returns the
// row's loss. `t` is rounded to its type when stored; loss and gradient use the value before rounding.
template <class Logit, class Target>
Wide elr_row(const Logit* z, int64_t label, Target* t, Logit* grad, int64_t C, Wide beta, Wide lam, Wide scale) {
  Logit z_max = z[0];
  for (int64_t c = 1; c < C; ++c) z_max = z[c] > z_max ? z[c] : z_max;

  Wide exp_sum = 0;
  for (int64_t c = 0; c < C; ++c) {
    grad[c] = std::exp(z[c] - z_max);
    exp_sum += Wide(grad[c]);
  }

  const Wide inv_exp_sum = 1 / exp_sum;
  Wide q_sum = 0;
  for (int64_t c = 0; c < C; ++c) q_sum += clamp_prob(Wide(grad[c]) * inv_exp_sum);

  // The target takes this prediction in before the loss sees it, as in the authors' code, and it takes the
  // renormalised q in, while the inner product is with q as clamped.
  const Wide weight = (1 - beta) / q_sum;
  Wide s = 0, passed = 0;  // <t, q> and sum_k m_k t_k p_k
  for (int64_t c = 0; c < C; ++c) {
    const Wide p = Wide(grad[c]) * inv_exp_sum;
    const Wide q = clamp_prob(p);
    const Wide tq = (beta * Wide(t[c]) + weight * q) * q;
    s += tq;
    passed += clamp_passes(p) ? tq : Wide(0);  // where the clamp passes, q = p
  }

  const Wide push = lam / (1 - s);
  const Wide loss = Wide(z_max) - Wide(z[label]) + std::log(exp_sum) + lam * std::log(1 - s);
  for (int64_t c = 0; c < C; ++c) {
    const Wide p = Wide(grad[c]) * inv_exp_sum;
    const Wide target = beta * Wide(t[c]) + weight * clamp_prob(p);
    t[c] = Target(target);
    const Wide pull = passed - (clamp_passes(p) ? target : Wide(0));
    grad[c] = Logit(scale * (p - Wide(c == label) + push * p * pull));
  }
  return loss;
}

}  // namespace nlbench
