// The lane group of a GPU: a warp or a block of threads, each with `width` adjacent values at a
// time.
#pragma once

#include <cmath>
#include <type_traits>

#include "bfloat16.h"
#include "loss_row.h"
#include "pack.h"

namespace nlbench {

template <class X, int n>
NLBENCH_INLINE Pack<X, n> operator+(Pack<X, n> a, const Pack<X, n>& b) {
#pragma unroll
  for (int i = 0; i < n; ++i) a.v[i] += b.v[i];
  return a;
}
template <class X, int n>
NLBENCH_INLINE Pack<X, n> operator-(Pack<X, n> a, const Pack<X, n>& b) {
#pragma unroll
  for (int i = 0; i < n; ++i) a.v[i] -= b.v[i];
  return a;
}
template <class X, int n>
NLBENCH_INLINE Pack<X, n> operator*(Pack<X, n> a, const Pack<X, n>& b) {
#pragma unroll
  for (int i = 0; i < n; ++i) a.v[i] *= b.v[i];
  return a;
}

// Width 4 reads and writes 16 bytes of float32 at once. It needs aligned pointers and a multiple of
// 4 as C. `warps` is 1 for a warp per row; for a block per row it is the number of warps in the
// block.
template <class Real, int width, int warps>
struct CudaLanes {
  using Scalar = Real;
  using Narrow = Pack<Real, width>;
  using Wide = Pack<double, width>;
  static constexpr bool kHasNarrow = !std::is_same_v<Real, double>;
  static constexpr int kThreads = 32 * warps;
  static constexpr int64_t kLanes = kThreads * width;
  struct All {};

  int thread;      // number among the threads that share the row
  double* shared;  // [8][warps], through which the warps of a block exchange values

  template <class F>
  NLBENCH_INLINE void each(int64_t C, F f) {
    for (int64_t c = int64_t(thread) * width; c < C; c += kLanes) f(c, All{});
  }

  // Exponentials are not stored. The logits are in the cache, so computing one again is faster than
  // fetching it.
  NLBENCH_INLINE void keep(int64_t, const Narrow&) {}
  template <class Z>
  NLBENCH_INLINE Narrow kept(int64_t c, const Z* z, Real z_max, All lanes) {
    return exp(load_logits(z + c, lanes) - splat<Narrow>(z_max));
  }

  NLBENCH_INLINE Real max(const Narrow& x) {
    Real most = x.v[0];
#pragma unroll
    for (int i = 1; i < width; ++i) most = x.v[i] > most ? x.v[i] : most;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const Real other = __shfl_xor_sync(0xFFFFFFFF, most, step);
      most = other > most ? other : most;
    }
    if constexpr (warps > 1) {
      if (thread % 32 == 0) shared[thread / 32] = most;
      __syncthreads();
      most = Real(shared[0]);
      for (int warp = 1; warp < warps; ++warp)
        most = shared[warp] > most ? Real(shared[warp]) : most;
      __syncthreads();
    }
    return most;
  }

  // There are no atomics: the threads of a warp add in pairs and the warps in their order, so that
  // the order of additions is the same in every run.
  template <class V, int n>
  NLBENCH_INLINE void sum(const V (&x)[n], double (&out)[n]) {
#pragma unroll
    for (int k = 0; k < n; ++k) {
      double total = 0;
#pragma unroll
      for (int i = 0; i < width; ++i) total += double(x[k].v[i]);
#pragma unroll
      for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xFFFFFFFF, total, step);
      out[k] = total;
    }
    if constexpr (warps > 1) {
      static_assert(n <= 8);
      if (thread % 32 == 0) {
        for (int k = 0; k < n; ++k) shared[k * warps + thread / 32] = out[k];
      }
      __syncthreads();
      for (int k = 0; k < n; ++k) {
        out[k] = 0;
        for (int warp = 0; warp < warps; ++warp) out[k] += shared[k * warps + warp];
      }
      __syncthreads();
    }
  }

  static NLBENCH_INLINE Narrow larger(Narrow a, const Narrow& b) {
#pragma unroll
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
  }
  template <class V>
  static NLBENCH_INLINE V splat(double x) {
    V out;
#pragma unroll
    for (int i = 0; i < width; ++i) out.v[i] = x;
    return out;
  }
  template <class V>
  static NLBENCH_INLINE V as(const Narrow& x) {
    V out;
#pragma unroll
    for (int i = 0; i < width; ++i) out.v[i] = x.v[i];
    return out;
  }

  static NLBENCH_INLINE float to_scalar(float x) { return x; }
  static NLBENCH_INLINE double to_scalar(double x) { return x; }
  static NLBENCH_INLINE float to_scalar(BFloat16 x) { return widened(x); }
  template <class Z>
  static NLBENCH_INLINE Narrow load_logits(const Z* z, All) {
    const auto raw = *reinterpret_cast<const Pack<Z, width>*>(z);
    Narrow out;
#pragma unroll
    for (int i = 0; i < width; ++i) out.v[i] = to_scalar(raw.v[i]);
    return out;
  }
  template <class V, class T>
  static NLBENCH_INLINE V load(const T* t, All) {
    const auto raw = *reinterpret_cast<const Pack<T, width>*>(t);
    V out;
#pragma unroll
    for (int i = 0; i < width; ++i) out.v[i] = raw.v[i];
    return out;
  }
  static NLBENCH_INLINE void round_to(float& out, double x) { out = float(x); }
  static NLBENCH_INLINE void round_to(double& out, double x) { out = x; }
  static NLBENCH_INLINE void round_to(BFloat16& out, double x) { out = rounded(float(x)); }
  template <class X, class V>
  static NLBENCH_INLINE void store(X* out, const V& x, All) {
    Pack<X, width> raw;
#pragma unroll
    for (int i = 0; i < width; ++i) round_to(raw.v[i], x.v[i]);
    *reinterpret_cast<Pack<X, width>*>(out) = raw;
  }

  static NLBENCH_INLINE Narrow exp(Narrow x) {
#pragma unroll
    for (int i = 0; i < width; ++i) x.v[i] = ::exp(x.v[i]);
    return x;
  }
  template <class V>
  static NLBENCH_INLINE V fma(V a, const V& b, const V& c) {
#pragma unroll
    for (int i = 0; i < width; ++i) a.v[i] = ::fma(a.v[i], b.v[i], c.v[i]);
    return a;
  }
  // Both comparisons are false for NaN, so clamp returns it.
  template <class X>
  static NLBENCH_INLINE Pack<X, width> clamp(Pack<X, width> p, double low, double high) {
#pragma unroll
    for (int i = 0; i < width; ++i)
      p.v[i] = p.v[i] < X(low) ? X(low) : p.v[i] > X(high) ? X(high) : p.v[i];
    return p;
  }
  template <class X>
  static NLBENCH_INLINE Pack<bool, width> between(const Pack<X, width>& p, double low,
                                                  double high) {
    Pack<bool, width> out;
#pragma unroll
    for (int i = 0; i < width; ++i) out.v[i] = p.v[i] >= X(low) && p.v[i] <= X(high);
    return out;
  }
  template <class V>
  static NLBENCH_INLINE V where(const Pack<bool, width>& mask, V x) {
#pragma unroll
    for (int i = 0; i < width; ++i) x.v[i] = mask.v[i] ? x.v[i] : 0;
    return x;
  }
  template <class V>
  static NLBENCH_INLINE V only(All, const V& x) {
    return x;
  }
  // 0 * infinity is 0.
  template <class V>
  static NLBENCH_INLINE V times(V a, const V& b) {
#pragma unroll
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] == 0 ? a.v[i] : a.v[i] * b.v[i];
    return a;
  }
  template <class V>
  static NLBENCH_INLINE V one_at(int64_t lane) {
    V out;
#pragma unroll
    for (int i = 0; i < width; ++i) out.v[i] = lane == i;
    return out;
  }
};

}  // namespace nlbench
