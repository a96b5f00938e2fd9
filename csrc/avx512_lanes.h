// Lane group of sixteen float32 values: AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

#include <cmath>

#include "bfloat16.h"
#include "loss_row.h"

namespace nlbench {
namespace {  // each file that includes this gets its own code, compiled with its own flags

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
  using Narrow = __m512;
  using Wide = Avx512Wide;
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
  NLBENCH_INLINE void keep(int64_t c, __m512 e) { _mm512_store_ps(scratch + c, e); }
  template <class Z, class L>
  NLBENCH_INLINE __m512 kept(int64_t c, const Z*, float, L) {
    return _mm512_load_ps(scratch + c);
  }
  NLBENCH_INLINE float max(__m512 x) { return _mm512_reduce_max_ps(x); }
  template <int n>
  NLBENCH_INLINE void sum(const Wide (&x)[n], double (&out)[n]) {
    for (int i = 0; i < n; ++i) out[i] = _mm512_reduce_add_pd(_mm512_add_pd(x[i].low, x[i].high));
  }

  static NLBENCH_INLINE __m512 lowest() { return _mm512_set1_ps(-INFINITY); }
  static NLBENCH_INLINE __m512 larger(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }  // b where a is NaN
  static NLBENCH_INLINE __m512 narrow(float x) { return _mm512_set1_ps(x); }
  static NLBENCH_INLINE Wide splat(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
  static NLBENCH_INLINE Wide widen(__m512 x) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
  }
  static NLBENCH_INLINE __m512 narrowed(Wide x) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.low)), _mm512_cvtpd_ps(x.high), 1);
  }

  static NLBENCH_INLINE float to_scalar(float x) { return x; }
  static NLBENCH_INLINE float to_scalar(BFloat16 x) { return widened(x); }
  template <class L>
  static NLBENCH_INLINE __m512 load_logits(const float* z, L lanes) {
    return _mm512_mask_loadu_ps(lowest(), lanes.mask, z);
  }
  template <class L>
  static NLBENCH_INLINE __m512 load_logits(const BFloat16* z, L lanes) {
    const __m256i halves = _mm256_maskz_loadu_epi16(lanes.mask, z);
    const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    return _mm512_mask_mov_ps(lowest(), lanes.mask, _mm512_castsi512_ps(bits));
  }
  template <class L>
  static NLBENCH_INLINE Wide load(const float* t, L lanes) {
    return widen(_mm512_maskz_loadu_ps(lanes.mask, t));
  }
  template <class L>
  static NLBENCH_INLINE Wide load(const double* t, L lanes) {
    return {_mm512_maskz_loadu_pd(__mmask8(lanes.mask), t), _mm512_maskz_loadu_pd(lanes.mask >> 8, t + 8)};
  }
  template <class L>
  static NLBENCH_INLINE void store(float* out, Wide x, L lanes) {
    _mm512_mask_storeu_ps(out, lanes.mask, narrowed(x));
  }
  template <class L>
  static NLBENCH_INLINE void store(double* out, Wide x, L lanes) {
    _mm512_mask_storeu_pd(out, __mmask8(lanes.mask), x.low);
    _mm512_mask_storeu_pd(out + 8, lanes.mask >> 8, x.high);
  }
  template <class L>
  static NLBENCH_INLINE void store(BFloat16* out, Wide x, L lanes) {
    const __m512 value = narrowed(x);
    const __m512i bits = _mm512_castps_si512(value), odd = _mm512_srli_epi32(bits, 16);
    const __m512i half = _mm512_add_epi32(_mm512_and_si512(odd, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7FFF));
    __m512i upper = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    upper = _mm512_mask_mov_epi32(upper, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), _mm512_set1_epi32(0x7FC0));
    _mm256_mask_storeu_epi16(out, lanes.mask, _mm512_cvtepi32_epi16(upper));
  }

  static NLBENCH_INLINE __m512 exp(__m512 x) { return exp_nonpositive<Avx512Lanes>(x); }
  static NLBENCH_INLINE __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
  static NLBENCH_INLINE __m512 round(__m512 x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static NLBENCH_INLINE __m512 times_power_of_two(__m512 y, __m512 n) { return _mm512_scalef_ps(y, n); }
  static NLBENCH_INLINE __m512 zero_below(__m512 x, float bound, __m512 y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, narrow(bound), _CMP_NLT_UQ), y);
  }

  static NLBENCH_INLINE Wide fma(Wide a, Wide b, Wide c) {
    return {_mm512_fmadd_pd(a.low, b.low, c.low), _mm512_fmadd_pd(a.high, b.high, c.high)};
  }
  // max and min give their second operand where one is NaN, which so passes through.
  static NLBENCH_INLINE Wide clamp(Wide p, double low, double high) {
    const __m512d least = _mm512_set1_pd(low), most = _mm512_set1_pd(high);
    return {_mm512_min_pd(most, _mm512_max_pd(least, p.low)), _mm512_min_pd(most, _mm512_max_pd(least, p.high))};
  }
  static NLBENCH_INLINE __mmask16 between(Wide p, double low, double high) {
    const __m512d least = _mm512_set1_pd(low), most = _mm512_set1_pd(high);
    const __mmask8 first =
        _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(p.low, least, _CMP_GE_OQ), p.low, most, _CMP_LE_OQ);
    const __mmask8 second =
        _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(p.high, least, _CMP_GE_OQ), p.high, most, _CMP_LE_OQ);
    return __mmask16(first | second << 8);
  }
  static NLBENCH_INLINE Wide where(__mmask16 mask, Wide x) {
    return {_mm512_maskz_mov_pd(__mmask8(mask), x.low), _mm512_maskz_mov_pd(mask >> 8, x.high)};
  }
  static NLBENCH_INLINE Wide only(All, Wide x) { return x; }
  static NLBENCH_INLINE Wide only(Some lanes, Wide x) { return where(lanes.mask, x); }
  static NLBENCH_INLINE Wide times(Wide a, Wide b) {  // 0 * infinity is 0
    const __m512d zero = _mm512_setzero_pd();
    return {_mm512_maskz_mul_pd(_mm512_cmp_pd_mask(a.low, zero, _CMP_NEQ_UQ), a.low, b.low),
            _mm512_maskz_mul_pd(_mm512_cmp_pd_mask(a.high, zero, _CMP_NEQ_UQ), a.high, b.high)};
  }
  static NLBENCH_INLINE Wide one_at(int64_t lane) {
    return where(lane >= 0 && lane < kLanes ? __mmask16(1u << lane) : 0, splat(1));
  }
};

}  // namespace
}  // namespace nlbench
