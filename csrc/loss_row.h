// The mathematics of one row of each loss, for every processor: the losses are written once, over a group of lanes.
//
// A lane group G (scalar_lanes.h, avx2_lanes.h, avx512_lanes.h, cuda_lanes.cuh) says how a row is walked and summed:
//   G::Narrow      some values of the row as the logits' arithmetic type holds them; exponentials are taken in it
//   G::Wide        the same values in double, with + - * and the functions used below
//   each(C, f)     calls f(c, lanes) so that all columns are seen once; `lanes` marks those in use
//   sum(x, out)    sums each of several Wide accumulators over the row; the order depends on C alone
//
// Exponentials are float32 for float32 and bfloat16 logits, all sums and products are double. Late in training
// 1 - <t, q> is about 1e-4, the difference of two numbers near one, and float32 keeps three digits of it. The largest
// exponential is exactly 1, so 1 - p of a confident class keeps the relative precision of the small ones.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define NLBENCH_INLINE __device__ __forceinline__
#define NLBENCH_LAMBDA
#else
#define NLBENCH_INLINE inline __attribute__((always_inline))
#define NLBENCH_LAMBDA __attribute__((always_inline))
#endif

namespace nlbench {

constexpr double kProbMin = 1e-4;
constexpr double kProbMax = 1.0 - 1e-4;

template <class G>
struct Softmax {
  typename G::Scalar z_max;
  double inv_sum;  // p_c = exp(z_c - z_max) * inv_sum
  double log_sum;  // log p_c = z_c - log_sum
};

// Leaves the exponentials with the group. A NaN among the logits, an infinite one, or nothing but -inf makes inv_sum
// NaN, and with it all that follows in the row.
template <class G, class Z>
NLBENCH_INLINE Softmax<G> softmax(G& group, const Z* z, int64_t C) {
  typename G::Narrow top = G::lowest();
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA { top = G::larger(G::load_logits(z + c, lanes), top); });
  const typename G::Scalar z_max = group.max(top);

  typename G::Wide total[1] = {G::splat(0)};
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const typename G::Narrow e = G::exp(G::load_logits(z + c, lanes) - G::narrow(z_max));
    group.keep(c, e);
    total[0] = total[0] + G::widen(e);
  });
  double sum[1];
  group.sum(total, sum);
  return {z_max, 1 / sum[0], double(z_max) + ::log(sum[0])};
}

// One integer label: a one-hot row that is never written out.
struct HardLabel {
  static constexpr bool kSoft = false;
  int64_t label;
  template <class G, class L>
  NLBENCH_INLINE typename G::Wide at(int64_t c, L) const {
    return G::one_at(label - c);
  }
};

template <class T>
struct SoftLabel {
  static constexpr bool kSoft = true;
  const T* row;
  template <class G, class L>
  NLBENCH_INLINE typename G::Wide at(int64_t c, L lanes) const {
    return G::load(row + c, lanes);
  }
};

// ELR and ELR+. Liu et al., NeurIPS 2020, arXiv:2007.00151, eq. 6 and Lemma 2; order and clamp of shengliu66/ELR.
//
//   p = softmax(z)    q = clamp(p, 1e-4, 1 - 1e-4)    t <- beta * t + (1 - beta) * q / sum(q)    s = <t, q>
//   loss    = sum_c y_c * (log sum exp(z) - z_c) + lam * log(1 - s)
//   dloss_c = p_c * sum(y) - y_c + lam * p_c / (1 - s) * (sum_k m_k t_k p_k - m_c t_c),  m_k = [p_k within the bounds]
//
// The target takes this prediction in before the loss sees it, and it takes the renormalised q in, while the inner
// product is with q as clamped. With soft labels (ELR+) t is a mixed target and stays as it is. `t` is rounded to its
// type when stored; loss and gradient use the value before rounding.
template <class G, class Label, class Z, class T>
NLBENCH_INLINE double elr_row(G& group, const Z* z, Label y, T* t, Z* grad, int64_t C, double beta, double lam,
                              double scale) {
  using Wide = typename G::Wide;
  constexpr bool kSoft = Label::kSoft;
  const Softmax<G> soft = softmax(group, z, C);
  const Wide inv_sum = G::splat(soft.inv_sum);

  // <t, q> = beta * <t_old, q> + w * <q, q> with w = (1 - beta) / sum(q), so one walk serves the sum and the products.
  // The last two of each branch are the same where the clamp passes (there q = p).
  Wide part[5] = {G::splat(0), G::splat(0), G::splat(0), G::splat(0), G::splat(0)};
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const Wide p = G::widen(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const Wide q = G::only(lanes, G::clamp(p, kProbMin, kProbMax));
    const auto passes = G::between(p, kProbMin, kProbMax);
    const Wide tq = G::load(t + c, lanes) * q;
    part[0] = part[0] + tq;
    part[1] = part[1] + G::where(passes, tq);
    if constexpr (kSoft) {
      const Wide label = y.template at<G>(c, lanes);
      const Wide nll = G::splat(soft.log_sum) - G::widen(G::load_logits(z + c, lanes));
      part[2] = part[2] + label;
      part[3] = part[3] + G::times(label, nll);
    } else {
      const Wide qq = q * q;
      part[2] = part[2] + q;
      part[3] = part[3] + qq;
      part[4] = part[4] + G::where(passes, qq);
    }
  });
  double sum[5];
  group.sum(part, sum);

  double s, passed, label_sum, ce, weight = 0;
  if constexpr (kSoft) {
    s = sum[0], passed = sum[1], label_sum = sum[2], ce = sum[3];
  } else {
    weight = (1 - beta) / sum[2];
    s = beta * sum[0] + weight * sum[3];
    passed = beta * sum[1] + weight * sum[4];
    label_sum = 1;
    ce = soft.log_sum - double(G::to_scalar(z[y.label]));
  }
  if (kSoft && grad == nullptr) return ce + lam * ::log(1 - s);

  // scale * (p * (label_sum + push * (passed - m t)) - y), push = lam / (1 - s)
  const double push = lam / (1 - s);
  const Wide base = G::splat(scale * (label_sum + push * passed)), slope = G::splat(-scale * push);
  const Wide old_weight = G::splat(beta), new_weight = G::splat(weight), minus_scale = G::splat(-scale);
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const Wide p = G::widen(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    Wide target = G::load(t + c, lanes);
    if constexpr (!kSoft) {
      target = G::fma(old_weight, target, new_weight * G::clamp(p, kProbMin, kProbMax));
      G::store(t + c, target, lanes);
    }
    if (grad != nullptr) {
      const Wide pull = G::fma(slope, G::where(G::between(p, kProbMin, kProbMax), target), base);
      G::store(grad + c, G::fma(minus_scale, y.template at<G>(c, lanes), p * pull), lanes);
    }
  });
  return ce + lam * ::log(1 - s);
}

// ALR. Zhang et al., arXiv:2502.00386, in our parametrisation.
//
//   p = softmax(z)    t <- alpha * t + (1 - alpha) * p    H = -sum_c p_c log p_c
//   loss    = -sum_c t_c log p_c + lam_e * H
//   dloss_c = p_c * sum(t) - t_c - lam_e * p_c * (log p_c + H)
//
// 0 * log 0 is 0, in the entropy and for a target that is exactly zero.
template <class G, class Z, class T>
NLBENCH_INLINE double alr_row(G& group, const Z* z, T* t, Z* grad, int64_t C, double alpha, double lam_e,
                              double scale) {
  using Wide = typename G::Wide;
  const Softmax<G> soft = softmax(group, z, C);
  const Wide inv_sum = G::splat(soft.inv_sum), log_sum = G::splat(soft.log_sum);
  const Wide old_weight = G::splat(alpha), new_weight = G::splat(1 - alpha);

  Wide part[3] = {G::splat(0), G::splat(0), G::splat(0)};
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const Wide p = G::widen(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const Wide log_p = G::widen(G::load_logits(z + c, lanes)) - log_sum;
    const Wide target = G::fma(old_weight, G::load(t + c, lanes), new_weight * p);
    part[0] = part[0] + target;
    part[1] = part[1] + G::times(target, log_p);
    part[2] = part[2] + G::times(p, log_p);
  });
  double sum[3];
  group.sum(part, sum);
  const double entropy = -sum[2];

  const Wide base = G::splat(sum[0] - lam_e * entropy), minus_lam = G::splat(-lam_e), factor = G::splat(scale);
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const Wide p = G::widen(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const Wide target = G::fma(old_weight, G::load(t + c, lanes), new_weight * p);
    G::store(t + c, target, lanes);
    if (grad != nullptr) {
      const Wide log_p = G::widen(G::load_logits(z + c, lanes)) - log_sum;
      G::store(grad + c, factor * (G::times(p, G::fma(minus_lam, log_p, base)) - target), lanes);
    }
  });
  return -sum[1] + lam_e * entropy;
}

// t <- beta * t + (1 - beta) * p, or with the clamped and renormalised prediction in the place of p.
template <class G, class Z, class T>
NLBENCH_INLINE void update_row(G& group, const Z* z, T* t, int64_t C, double beta, bool clamp) {
  using Wide = typename G::Wide;
  const Softmax<G> soft = softmax(group, z, C);
  const Wide inv_sum = G::splat(soft.inv_sum);
  // Without the clamp these bounds let everything pass, NaN too.
  const double low = clamp ? kProbMin : 0, high = clamp ? kProbMax : 1;
  double sum[1] = {1};
  if (clamp) {
    Wide part[1] = {G::splat(0)};
    group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
      const Wide p = G::widen(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
      part[0] = part[0] + G::only(lanes, G::clamp(p, low, high));
    });
    group.sum(part, sum);
  }
  const Wide old_weight = G::splat(beta), new_weight = G::splat((1 - beta) / sum[0]);
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const Wide p = G::widen(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    G::store(t + c, G::fma(old_weight, G::load(t + c, lanes), new_weight * G::clamp(p, low, high)), lanes);
  });
}

// exp(x) for x <= 0 to 1 ulp, for lane groups of float32 without an exponential of their own; x below log(2^-126)
// gives zero. x = n log 2 + r with n an integer and |r| <= log(2) / 2; exp(r) is its Taylor series with the
// coefficients moved for the smallest largest error on that interval (Cephes, expf).
template <class G>
NLBENCH_INLINE typename G::Narrow exp_nonpositive(typename G::Narrow x) {
  using F = typename G::Narrow;
  const F n = G::round(x * G::narrow(1.44269504088896341f));
  F r = G::fma(n, G::narrow(-0.693359375f), x);  // 9 bits, so that n times it is exact without a fused product
  r = G::fma(n, G::narrow(2.12194440e-4f), r);
  F y = G::narrow(1.9875691500e-4f);
  y = G::fma(y, r, G::narrow(1.3981999507e-3f));
  y = G::fma(y, r, G::narrow(8.3334519073e-3f));
  y = G::fma(y, r, G::narrow(4.1665795894e-2f));
  y = G::fma(y, r, G::narrow(1.6666665459e-1f));
  y = G::fma(y, r, G::narrow(5.0000001201e-1f));
  y = G::fma(y, r * r, r) + G::narrow(1.0f);
  return G::zero_below(x, -87.3365447f, G::times_power_of_two(y, n));
}

}  // namespace nlbench
