// The lane group of one value, for any processor; on every CPU also for float64 logits.
#pragma once

#include <cmath>

#include "bfloat16.h"
#include "loss_row.h"

namespace nlbench {
// Unnamed, so that each file that includes this has its own code, compiled with its own flags.
namespace {

template <class Real>
struct ScalarLanes {
  using Scalar = Real;
  using Narrow = Real;
  using Wide = double;
  // Double is as fast as float here.
  static constexpr bool kHasNarrow = false;
  static constexpr int64_t kLanes = 1;
  struct All {};

  Real* scratch;  // [C]

  template <class F>
  NLBENCH_INLINE void each(int64_t C, F f) {
    for (int64_t c = 0; c < C; ++c) f(c, All{});
  }
  NLBENCH_INLINE void keep(int64_t c, Real e) { scratch[c] = e; }
  template <class Z>
  NLBENCH_INLINE Real kept(int64_t c, const Z*, Real, All) {
    return scratch[c];
  }
  NLBENCH_INLINE Real max(Real x) { return x; }
  template <int n>
  NLBENCH_INLINE void sum(const double (&x)[n], double (&out)[n]) {
    for (int i = 0; i < n; ++i) out[i] = x[i];
  }

  static NLBENCH_INLINE Real larger(Real a, Real b) { return a > b ? a : b; }
  template <class V>
  static NLBENCH_INLINE V splat(double x) {
    return V(x);
  }
  template <class V>
  static NLBENCH_INLINE V as(Real x) {
    return x;
  }

  static NLBENCH_INLINE float to_scalar(float x) { return x; }
  static NLBENCH_INLINE double to_scalar(double x) { return x; }
  static NLBENCH_INLINE float to_scalar(BFloat16 x) { return widened(x); }
  template <class Z>
  static NLBENCH_INLINE Real load_logits(const Z* z, All) {
    return to_scalar(*z);
  }
  template <class V, class T>
  static NLBENCH_INLINE V load(const T* t, All) {
    return *t;
  }
  static NLBENCH_INLINE void store(float* out, double x, All) { *out = float(x); }
  static NLBENCH_INLINE void store(double* out, double x, All) { *out = x; }
  static NLBENCH_INLINE void store(BFloat16* out, double x, All) { *out = rounded(float(x)); }

  static NLBENCH_INLINE double exp(double x) { return ::exp(x); }
  static NLBENCH_INLINE float exp(float x) { return exp_nonpositive<ScalarLanes>(x); }
  template <class V>
  static NLBENCH_INLINE V fma(V a, V b, V c) {
    return a * b + c;
  }
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, for |x| < 2^22.
  static NLBENCH_INLINE float round(float x) { return (x + 12582912.0f) - 12582912.0f; }
  static NLBENCH_INLINE float times_power_of_two(float y, float n) {
    const float sum = n + 12582912.0f;
    uint32_t bits, shift;
    memcpy(&bits, &y, sizeof bits);
    memcpy(&shift, &sum, sizeof shift);
    bits += shift << 23;
    memcpy(&y, &bits, sizeof y);
    return y;
  }
  static NLBENCH_INLINE float zero_below(float x, float bound, float y) {
    return x < bound ? 0.0f : (x != x ? x : y);
  }

  // Both comparisons are false for NaN, so clamp returns it: a diverged row must have NaN in all
  // its results.
  static NLBENCH_INLINE double clamp(double p, double low, double high) {
    return p < low ? low : p > high ? high : p;
  }
  static NLBENCH_INLINE bool between(double p, double low, double high) {
    return p >= low && p <= high;
  }
  static NLBENCH_INLINE double where(bool mask, double x) { return mask ? x : 0.0; }
  static NLBENCH_INLINE double only(All, double x) { return x; }
  // 0 * infinity is 0.
  static NLBENCH_INLINE double times(double a, double b) { return a == 0 ? 0.0 : a * b; }
  template <class V>
  static NLBENCH_INLINE V one_at(int64_t lane) {
    return lane == 0;
  }
};

}  // namespace
}  // namespace nlbench
