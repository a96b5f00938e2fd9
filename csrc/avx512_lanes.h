// The lane group of sixteen values, for AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

#include <cmath>

#include "bfloat16.h"
#include "loss_row.h"

namespace nlbench {
// Unnamed, so that each file that includes this has its own code, compiled with its own flags.
namespace {

struct Avx512Narrow {
  __m512 v;
};
NLBENCH_INLINE Avx512Narrow operator+(Avx512Narrow a, Avx512Narrow b) {
  return {_mm512_add_ps(a.v, b.v)};
}
NLBENCH_INLINE Avx512Narrow operator-(Avx512Narrow a, Avx512Narrow b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
NLBENCH_INLINE Avx512Narrow operator*(Avx512Narrow a, Avx512Narrow b) {
  return {_mm512_mul_ps(a.v, b.v)};
}

struct Avx512Wide {
  __m512d low, high;
};
NLBENCH_INLINE Avx512Wide operator+(Avx512Wide a, Avx512Wide b) {
  return {_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
}
NLBENCH_INLINE Avx512Wide operator-(Avx512Wide a, Avx512Wide b) {
  return {_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)};
}
NLBENCH_INLINE Avx512Wide operator*(Avx512Wide a, Avx512Wide b) {
  return {_mm512_mul_pd(a.low, b.low), _mm512_mul_pd(a.high, b.high)};
}

struct Avx512Lanes {
  using Scalar = float;
  using Narrow = Avx512Narrow;
  using Wide = Avx512Wide;
  template <class V>
  static constexpr bool is_narrow = sizeof(V) == sizeof(Narrow);
  static constexpr bool kHasNarrow = true;
  static constexpr int64_t kLanes = 16;
  struct All {
    static constexpr __mmask16 mask = 0xFFFF;
  };
  struct Some {
    __mmask16 mask;
  };

  float* scratch;  // [C rounded up to kLanes], on a 64-byte boundary

  template <class F>
  NLBENCH_INLINE void each(int64_t C, F f) {
    int64_t c = 0;
    for (; c + kLanes <= C; c += kLanes) f(c, All{});
    if (c < C) f(c, Some{__mmask16((1u << (C - c)) - 1)});
  }
  NLBENCH_INLINE void keep(int64_t c, Narrow e) { _mm512_store_ps(scratch + c, e.v); }
  template <class Z, class L>
  NLBENCH_INLINE Narrow kept(int64_t c, const Z*, float, L) {
    return {_mm512_load_ps(scratch + c)};
  }
  NLBENCH_INLINE float max(Narrow x) { return _mm512_reduce_max_ps(x.v); }

  // Each step of the reduction from sixteen lanes to one handles two accumulators.
  template <class V, int n>
  NLBENCH_INLINE void sum(const V (&x)[n], double (&out)[n]) {
    for (int i = 0; i < n; i += 2) {
      const __m256d a = quarter(x[i]);
      const __m256d both = _mm256_hadd_pd(a, i + 1 < n ? quarter(x[i + 1 < n ? i + 1 : i]) : a);
      const __m128d done = _mm_add_pd(_mm256_castpd256_pd128(both), _mm256_extractf128_pd(both, 1));
      out[i] = _mm_cvtsd_f64(done);
      if (i + 1 < n) out[i + 1] = _mm_cvtsd_f64(_mm_unpackhi_pd(done, done));
    }
  }
  static NLBENCH_INLINE __m256d quarter(Wide x) {
    const __m512d eight = _mm512_add_pd(x.low, x.high);
    return _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  }
  static NLBENCH_INLINE __m256d quarter(Narrow x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    return _mm256_cvtps_pd(
        _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1)));
  }

  // Returns b where a is NaN.
  static NLBENCH_INLINE Narrow larger(Narrow a, Narrow b) { return {_mm512_max_ps(a.v, b.v)}; }
  template <class V>
  static NLBENCH_INLINE V splat(double x) {
    if constexpr (is_narrow<V>) {
      return {_mm512_set1_ps(float(x))};
    } else {
      return {_mm512_set1_pd(x), _mm512_set1_pd(x)};
    }
  }
  template <class V>
  static NLBENCH_INLINE V as(Narrow x) {
    if constexpr (is_narrow<V>) {
      return x;
    } else {
      return {_mm512_cvtps_pd(_mm512_castps512_ps256(x.v)),
              _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1))};
    }
  }
  static NLBENCH_INLINE __m512 narrowed(Narrow x) { return x.v; }
  static NLBENCH_INLINE __m512 narrowed(Wide x) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.low)),
                              _mm512_cvtpd_ps(x.high), 1);
  }

  static NLBENCH_INLINE float to_scalar(float x) { return x; }
  static NLBENCH_INLINE float to_scalar(BFloat16 x) { return widened(x); }
  template <class L>
  static NLBENCH_INLINE Narrow load_logits(const float* z, L lanes) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes.mask, z)};
  }
  template <class L>
  static NLBENCH_INLINE Narrow load_logits(const BFloat16* z, L lanes) {
    const __m256i halves = _mm256_maskz_loadu_epi16(lanes.mask, z);
    const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    return {_mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), lanes.mask, _mm512_castsi512_ps(bits))};
  }
  template <class V, class L>
  static NLBENCH_INLINE V load(const float* t, L lanes) {
    return as<V>(Narrow{_mm512_maskz_loadu_ps(lanes.mask, t)});
  }
  template <class V, class L>
  static NLBENCH_INLINE V load(const double* t, L lanes) {
    return {_mm512_maskz_loadu_pd(__mmask8(lanes.mask), t),
            _mm512_maskz_loadu_pd(lanes.mask >> 8, t + 8)};
  }
  template <class V, class L>
  static NLBENCH_INLINE void store(float* out, V x, L lanes) {
    _mm512_mask_storeu_ps(out, lanes.mask, narrowed(x));
  }
  template <class L>
  static NLBENCH_INLINE void store(double* out, Wide x, L lanes) {
    _mm512_mask_storeu_pd(out, __mmask8(lanes.mask), x.low);
    _mm512_mask_storeu_pd(out + 8, lanes.mask >> 8, x.high);
  }
  template <class V, class L>
  static NLBENCH_INLINE void store(BFloat16* out, V x, L lanes) {
    const __m512 value = narrowed(x);
    const __m512i bits = _mm512_castps_si512(value), odd = _mm512_srli_epi32(bits, 16);
    const __m512i half =
        _mm512_add_epi32(_mm512_and_si512(odd, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7FFF));
    __m512i upper = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    upper = _mm512_mask_mov_epi32(upper, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q),
                                  _mm512_set1_epi32(0x7FC0));
    _mm256_mask_storeu_epi16(out, lanes.mask, _mm512_cvtepi32_epi16(upper));
  }

  static NLBENCH_INLINE Narrow exp(Narrow x) { return exp_nonpositive<Avx512Lanes>(x); }
  static NLBENCH_INLINE Narrow round(Narrow x) {
    return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static NLBENCH_INLINE Narrow times_power_of_two(Narrow y, Narrow n) {
    return {_mm512_scalef_ps(y.v, n.v)};
  }
  static NLBENCH_INLINE Narrow zero_below(Narrow x, float bound, Narrow y) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(bound), _CMP_NLT_UQ), y.v)};
  }

  static NLBENCH_INLINE Narrow fma(Narrow a, Narrow b, Narrow c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  static NLBENCH_INLINE Wide fma(Wide a, Wide b, Wide c) {
    return {_mm512_fmadd_pd(a.low, b.low, c.low), _mm512_fmadd_pd(a.high, b.high, c.high)};
  }
  // max and min return their second operand if one is NaN, so NaN stays NaN.
  static NLBENCH_INLINE Narrow clamp(Narrow p, double low, double high) {
    const __m512 least = _mm512_set1_ps(float(low)), most = _mm512_set1_ps(float(high));
    return {_mm512_min_ps(most, _mm512_max_ps(least, p.v))};
  }
  static NLBENCH_INLINE Wide clamp(Wide p, double low, double high) {
    const __m512d least = _mm512_set1_pd(low), most = _mm512_set1_pd(high);
    return {_mm512_min_pd(most, _mm512_max_pd(least, p.low)),
            _mm512_min_pd(most, _mm512_max_pd(least, p.high))};
  }
  static NLBENCH_INLINE __mmask16 between(Narrow p, double low, double high) {
    const __m512 least = _mm512_set1_ps(float(low)), most = _mm512_set1_ps(float(high));
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(p.v, least, _CMP_GE_OQ), p.v, most,
                                   _CMP_LE_OQ);
  }
  static NLBENCH_INLINE __mmask16 between(Wide p, double low, double high) {
    const __m512d least = _mm512_set1_pd(low), most = _mm512_set1_pd(high);
    const __mmask8 first = _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(p.low, least, _CMP_GE_OQ),
                                                   p.low, most, _CMP_LE_OQ);
    const __mmask8 second = _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(p.high, least, _CMP_GE_OQ),
                                                    p.high, most, _CMP_LE_OQ);
    return __mmask16(first | second << 8);
  }
  static NLBENCH_INLINE Narrow where(__mmask16 mask, Narrow x) {
    return {_mm512_maskz_mov_ps(mask, x.v)};
  }
  static NLBENCH_INLINE Wide where(__mmask16 mask, Wide x) {
    return {_mm512_maskz_mov_pd(__mmask8(mask), x.low), _mm512_maskz_mov_pd(mask >> 8, x.high)};
  }
  template <class V>
  static NLBENCH_INLINE V only(All, V x) {
    return x;
  }
  template <class V>
  static NLBENCH_INLINE V only(Some lanes, V x) {
    return where(lanes.mask, x);
  }
  // 0 * infinity is 0.
  static NLBENCH_INLINE Narrow times(Narrow a, Narrow b) {
    return {
        _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_NEQ_UQ), a.v, b.v)};
  }
  static NLBENCH_INLINE Wide times(Wide a, Wide b) {
    const __m512d zero = _mm512_setzero_pd();
    return {_mm512_maskz_mul_pd(_mm512_cmp_pd_mask(a.low, zero, _CMP_NEQ_UQ), a.low, b.low),
            _mm512_maskz_mul_pd(_mm512_cmp_pd_mask(a.high, zero, _CMP_NEQ_UQ), a.high, b.high)};
  }
  template <class V>
  static NLBENCH_INLINE V one_at(int64_t lane) {
    return where(uint64_t(lane) < uint64_t(kLanes) ? __mmask16(1u << lane) : __mmask16(0),
                 splat<V>(1));
  }
};

}  // namespace
}  // namespace nlbench
