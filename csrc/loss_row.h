// The mathematics of one row of each loss: one row of logits, the loss of one example. It is
// written once for all processors, in terms of a group of lanes.
//
// A lane group G (scalar_lanes.h, avx2_lanes.h, avx512_lanes.h, cuda_lanes.h) defines how the
// columns of a row are visited and summed:
//   G::Narrow      some values of the row in the logits' arithmetic type, used for exponentials
//   G::Wide        the same values in double; both types have + - * and the functions used below
//   each(C, f)     calls f(c, lanes), visiting each column once; `lanes` marks those in use
//   sum(x, out)    sums several accumulators over the row, in an order that depends only on C
//
// Exponentials are float32 for float32 and bfloat16 logits; their sum is double. The rest of the
// arithmetic is double for a confident row: late in training 1 - <t, q> is about 1e-4, the
// difference of two numbers near one, of which float32 keeps three digits. (The largest exponential
// is exactly 1, so 1 - p of a confident class has the relative precision of the small ones.) If
// every p <= 1/2, nothing cancels, and float32 is enough, at twice the speed or better.
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
  double log_sum;  // log p_c = (z_c - z_max) - log_sum
};

// The group keeps the exponentials. If the logits have NaN or +inf, or nothing but -inf, inv_sum is
// NaN, and so is everything computed from it in the row.
template <class G, class Z>
NLBENCH_INLINE Softmax<G> softmax(G& group, const Z* z, int64_t C) {
  using Narrow = typename G::Narrow;
  using Wide = typename G::Wide;
  Narrow top = G::template splat<Narrow>(-INFINITY);
  group.each(C, [&](int64_t c, auto lanes)
                    NLBENCH_LAMBDA { top = G::larger(G::load_logits(z + c, lanes), top); });
  const typename G::Scalar z_max = group.max(top);

  const Narrow shift = G::template splat<Narrow>(z_max);
  Wide total[1] = {G::template splat<Wide>(0)};
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const Narrow e = G::exp(G::load_logits(z + c, lanes) - shift);
    group.keep(c, e);
    total[0] = total[0] + G::template as<Wide>(e);
  });
  double sum[1];
  group.sum(total, sum);
  return {z_max, 1 / sum[0], ::log(sum[0])};
}

// Returns whether float32 is enough for the row's arithmetic, as explained above. For very long
// rows it is not, because accumulators would lose digits.
template <class G, class T>
NLBENCH_INLINE bool narrow_will_do(const Softmax<G>& soft, int64_t C) {
  return G::kHasNarrow && sizeof(T) == sizeof(float) && soft.inv_sum <= 0.5 && C <= 256 * G::kLanes;
}

// One integer label, a one-hot row that is never stored.
struct HardLabel {
  static constexpr bool kSoft = false;
  int64_t label;
  template <class V, class G, class L>
  NLBENCH_INLINE V at(int64_t c, L) const {
    return G::template one_at<V>(label - c);
  }
};

template <class T>
struct SoftLabel {
  static constexpr bool kSoft = true;
  const T* row;
  template <class V, class G, class L>
  NLBENCH_INLINE V at(int64_t c, L lanes) const {
    return G::template load<V>(row + c, lanes);
  }
};

// ELR and ELR+. Liu et al., NeurIPS 2020, arXiv:2007.00151, eq. 6 and Lemma 2; order and clamp of
// shengliu66/ELR.
//
//   p       = softmax(z)
//   q       = clamp(p, 1e-4, 1 - 1e-4)
//   t      <- beta * t + (1 - beta) * q / sum(q)
//   s       = <t, q>
//   loss    = -sum_c y_c log p_c + lam * log(1 - s)
//   dloss_c = p_c * sum(y) - y_c + lam * p_c / (1 - s) * (sum_k m_k t_k p_k - m_c t_c)
//   m_k     = 1 if p_k is within the bounds of the clamp, else 0
//
// The target is updated before the loss uses it. The update uses q renormalised, the inner product
// uses q only clamped. With soft labels (ELR+) t is a mixed target and is not updated. `t` is
// rounded to its type when stored; loss and gradient use the value before rounding.
template <class V, class G, class Label, class Z, class T>
NLBENCH_INLINE double elr_row_in(G& group, const Softmax<G>& soft, const Z* z, Label y, T* t,
                                 Z* grad, int64_t C, double beta, double lam, double scale) {
  constexpr bool kSoft = Label::kSoft;
  const V inv_sum = G::template splat<V>(soft.inv_sum), zero = G::template splat<V>(0);

  // <t, q> = beta * <t_old, q> + w * <q, q> with w = (1 - beta) / sum(q), so that one pass over the
  // row computes both the sum and the products.
  V part[5] = {zero, zero, zero, zero, zero};
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const V p = G::template as<V>(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const V q = G::only(lanes, G::clamp(p, kProbMin, kProbMax));
    const auto passes = G::between(p, kProbMin, kProbMax);  // where q = p
    const V tq = G::template load<V>(t + c, lanes) * q;
    part[0] = part[0] + tq;
    part[1] = part[1] + G::where(passes, tq);
    if constexpr (kSoft) {
      const V label = y.template at<V, G>(c, lanes);
      const V log_e =
          G::template as<V>(G::load_logits(z + c, lanes)) - G::template splat<V>(soft.z_max);
      part[2] = part[2] + label;
      part[3] = part[3] + G::times(label, G::template splat<V>(soft.log_sum) - log_e);
    } else {
      const V qq = q * q;
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
    ce = double(soft.z_max) - double(G::to_scalar(z[y.label])) + soft.log_sum;
  }
  const double loss = ce + lam * ::log(1 - s);
  if (kSoft && grad == nullptr) return loss;

  // scale * (p * (label_sum + push * (passed - m t)) - y), push = lam / (1 - s)
  const double push = lam / (1 - s);
  const V base = G::template splat<V>(scale * (label_sum + push * passed));
  const V slope = G::template splat<V>(-scale * push), minus_scale = G::template splat<V>(-scale);
  const V old_weight = G::template splat<V>(beta), new_weight = G::template splat<V>(weight);
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const V p = G::template as<V>(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    V target = G::template load<V>(t + c, lanes);
    if constexpr (!kSoft) {
      target = G::fma(old_weight, target, new_weight * G::clamp(p, kProbMin, kProbMax));
      G::store(t + c, target, lanes);
    }
    if (grad != nullptr) {
      const V pull = G::fma(slope, G::where(G::between(p, kProbMin, kProbMax), target), base);
      G::store(grad + c, G::fma(minus_scale, y.template at<V, G>(c, lanes), p * pull), lanes);
    }
  });
  return loss;
}

template <class G, class Label, class Z, class T>
NLBENCH_INLINE double elr_row(G& group, const Z* z, Label y, T* t, Z* grad, int64_t C, double beta,
                              double lam, double scale) {
  const Softmax<G> soft = softmax(group, z, C);
  if constexpr (G::kHasNarrow && sizeof(T) == sizeof(float)) {
    if (narrow_will_do<G, T>(soft, C)) {
      return elr_row_in<typename G::Narrow>(group, soft, z, y, t, grad, C, beta, lam, scale);
    }
  }
  return elr_row_in<typename G::Wide>(group, soft, z, y, t, grad, C, beta, lam, scale);
}

// ALR. Zhang et al., arXiv:2502.00386, in our parametrisation.
//
//   p = softmax(z)    t <- alpha * t + (1 - alpha) * p    H = -sum_c p_c log p_c
//   loss    = -sum_c t_c log p_c + lam_e * H
//   dloss_c = p_c * sum(t) - t_c - lam_e * p_c * (log p_c + H)
//
// 0 * log 0 is 0, both in the entropy and for a target of exactly zero.
template <class V, class G, class Z, class T>
NLBENCH_INLINE double alr_row_in(G& group, const Softmax<G>& soft, const Z* z, T* t, Z* grad,
                                 int64_t C, double alpha, double lam_e, double scale) {
  const V inv_sum = G::template splat<V>(soft.inv_sum), zero = G::template splat<V>(0);
  const V z_max = G::template splat<V>(soft.z_max), log_sum = G::template splat<V>(soft.log_sum);
  const V old_weight = G::template splat<V>(alpha), new_weight = G::template splat<V>(1 - alpha);

  V part[3] = {zero, zero, zero};
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const V p = G::template as<V>(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const V log_p = (G::template as<V>(G::load_logits(z + c, lanes)) - z_max) - log_sum;
    const V target = G::fma(old_weight, G::template load<V>(t + c, lanes), new_weight * p);
    part[0] = part[0] + target;
    part[1] = part[1] + G::times(target, log_p);
    part[2] = part[2] + G::times(p, log_p);
  });
  double sum[3];
  group.sum(part, sum);
  const double entropy = -sum[2];

  const V base = G::template splat<V>(sum[0] - lam_e * entropy),
          minus_lam = G::template splat<V>(-lam_e);
  const V factor = G::template splat<V>(scale);
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const V p = G::template as<V>(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const V target = G::fma(old_weight, G::template load<V>(t + c, lanes), new_weight * p);
    G::store(t + c, target, lanes);
    if (grad != nullptr) {
      const V log_p = (G::template as<V>(G::load_logits(z + c, lanes)) - z_max) - log_sum;
      G::store(grad + c, factor * (G::times(p, G::fma(minus_lam, log_p, base)) - target), lanes);
    }
  });
  return -sum[1] + lam_e * entropy;
}

template <class G, class Z, class T>
NLBENCH_INLINE double alr_row(G& group, const Z* z, T* t, Z* grad, int64_t C, double alpha,
                              double lam_e, double scale) {
  const Softmax<G> soft = softmax(group, z, C);
  if constexpr (G::kHasNarrow && sizeof(T) == sizeof(float)) {
    if (narrow_will_do<G, T>(soft, C)) {
      return alr_row_in<typename G::Narrow>(group, soft, z, t, grad, C, alpha, lam_e, scale);
    }
  }
  return alr_row_in<typename G::Wide>(group, soft, z, t, grad, C, alpha, lam_e, scale);
}

// t <- beta * t + (1 - beta) * p. With `clamp`, p is clamped and renormalised first.
template <class G, class Z, class T>
NLBENCH_INLINE void update_row(G& group, const Z* z, T* t, int64_t C, double beta, bool clamp) {
  using V = typename G::Wide;
  const Softmax<G> soft = softmax(group, z, C);
  const V inv_sum = G::template splat<V>(soft.inv_sum);
  // Without `clamp` all probabilities are within these bounds.
  const double low = clamp ? kProbMin : 0, high = clamp ? kProbMax : 1;
  double sum[1] = {1};
  if (clamp) {
    V part[1] = {G::template splat<V>(0)};
    group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
      const V p = G::template as<V>(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
      part[0] = part[0] + G::only(lanes, G::clamp(p, low, high));
    });
    group.sum(part, sum);
  }
  const V old_weight = G::template splat<V>(beta),
          new_weight = G::template splat<V>((1 - beta) / sum[0]);
  group.each(C, [&](int64_t c, auto lanes) NLBENCH_LAMBDA {
    const V p = G::template as<V>(group.kept(c, z, soft.z_max, lanes)) * inv_sum;
    const V target =
        G::fma(old_weight, G::template load<V>(t + c, lanes), new_weight * G::clamp(p, low, high));
    G::store(t + c, target, lanes);
  });
}

// exp(x) for x <= 0, accurate to 1 ulp, for lane groups of float32 that have no exponential. It is
// zero for x below log(2^-126). x = n log 2 + r, where n is an integer and |r| <= log(2) / 2.
// exp(r) is a minimax polynomial: a Taylor series whose coefficients are changed so that the
// largest error on that interval is smallest (Cephes, expf).
template <class G>
NLBENCH_INLINE typename G::Narrow exp_nonpositive(typename G::Narrow x) {
  using F = typename G::Narrow;
  const auto number = [](float value) NLBENCH_LAMBDA { return G::template splat<F>(value); };
  const F n = G::round(x * number(1.44269504088896341f));
  // This constant has 9 bits, so that its product with n is exact even if it is not fused.
  F r = G::fma(n, number(-0.693359375f), x);
  r = G::fma(n, number(2.12194440e-4f), r);
  F y = number(1.9875691500e-4f);
  y = G::fma(y, r, number(1.3981999507e-3f));
  y = G::fma(y, r, number(8.3334519073e-3f));
  y = G::fma(y, r, number(4.1665795894e-2f));
  y = G::fma(y, r, number(1.6666665459e-1f));
  y = G::fma(y, r, number(5.0000001201e-1f));
  y = G::fma(y, r * r, r) + number(1.0f);
  return G::zero_below(x, -87.3365447f, G::times_power_of_two(y, n));
}

}  // namespace nlbench
