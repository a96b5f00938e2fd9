// The lane group of eight values, for AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <cmath>

#include "bfloat16.h"
#include "loss_row.h"

namespace nlbench {
// Unnamed, so that each file that includes this has its own code, compiled with its own flags.
namespace {

struct Avx2Narrow {
  __m256 v;
};
NLBENCH_INLINE Avx2Narrow operator+(Avx2Narrow a, Avx2Narrow b) {
  return {_mm256_add_ps(a.v, b.v)};
}
NLBENCH_INLINE Avx2Narrow operator-(Avx2Narrow a, Avx2Narrow b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
NLBENCH_INLINE Avx2Narrow operator*(Avx2Narrow a, Avx2Narrow b) {
  return {_mm256_mul_ps(a.v, b.v)};
}

struct Avx2Wide {
  __m256d low, high;
};
NLBENCH_INLINE Avx2Wide operator+(Avx2Wide a, Avx2Wide b) {
  return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}
NLBENCH_INLINE Avx2Wide operator-(Avx2Wide a, Avx2Wide b) {
  return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
}
NLBENCH_INLINE Avx2Wide operator*(Avx2Wide a, Avx2Wide b) {
  return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
}

alignas(32) const int32_t kAvx2Masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

struct Avx2Lanes {
  using Scalar = float;
  using Narrow = Avx2Narrow;
  using Wide = Avx2Wide;
  template <class V>
  static constexpr bool is_narrow = sizeof(V) == sizeof(Narrow);
  static constexpr bool kHasNarrow = true;
  static constexpr int64_t kLanes = 8;
  struct All {};
  struct Some {
    int64_t count;  // 1 to 7
    NLBENCH_INLINE __m256i mask() const {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kAvx2Masks + kLanes - count));
    }
    NLBENCH_INLINE __m256i low() const {
      return _mm256_cvtepi32_epi64(_mm256_castsi256_si128(mask()));
    }
    NLBENCH_INLINE __m256i high() const {
      return _mm256_cvtepi32_epi64(_mm256_extracti128_si256(mask(), 1));
    }
  };

  float* scratch;  // [C rounded up to kLanes], on a 32-byte boundary

  template <class F>
  NLBENCH_INLINE void each(int64_t C, F f) {
    int64_t c = 0;
    for (; c + kLanes <= C; c += kLanes) f(c, All{});
    if (c < C) f(c, Some{C - c});
  }
  NLBENCH_INLINE void keep(int64_t c, Narrow e) { _mm256_store_ps(scratch + c, e.v); }
  template <class Z, class L>
  NLBENCH_INLINE Narrow kept(int64_t c, const Z*, float, L) {
    return {_mm256_load_ps(scratch + c)};
  }
  NLBENCH_INLINE float max(Narrow x) {
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
  }

  // Each step of the reduction from eight lanes to one handles two accumulators.
  template <class V, int n>
  NLBENCH_INLINE void sum(const V (&x)[n], double (&out)[n]) {
    for (int i = 0; i < n; i += 2) {
      const __m256d a = half(x[i]);
      const __m256d both = _mm256_hadd_pd(a, i + 1 < n ? half(x[i + 1 < n ? i + 1 : i]) : a);
      const __m128d done = _mm_add_pd(_mm256_castpd256_pd128(both), _mm256_extractf128_pd(both, 1));
      out[i] = _mm_cvtsd_f64(done);
      if (i + 1 < n) out[i + 1] = _mm_cvtsd_f64(_mm_unpackhi_pd(done, done));
    }
  }
  static NLBENCH_INLINE __m256d half(Wide x) { return _mm256_add_pd(x.low, x.high); }
  static NLBENCH_INLINE __m256d half(Narrow x) {
    return _mm256_cvtps_pd(_mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1)));
  }

  // Returns b where a is NaN.
  static NLBENCH_INLINE Narrow larger(Narrow a, Narrow b) { return {_mm256_max_ps(a.v, b.v)}; }
  template <class V>
  static NLBENCH_INLINE V splat(double x) {
    if constexpr (is_narrow<V>) {
      return {_mm256_set1_ps(float(x))};
    } else {
      return {_mm256_set1_pd(x), _mm256_set1_pd(x)};
    }
  }
  template <class V>
  static NLBENCH_INLINE V as(Narrow x) {
    if constexpr (is_narrow<V>) {
      return x;
    } else {
      return {_mm256_cvtps_pd(_mm256_castps256_ps128(x.v)),
              _mm256_cvtps_pd(_mm256_extractf128_ps(x.v, 1))};
    }
  }
  static NLBENCH_INLINE __m256 narrowed(Narrow x) { return x.v; }
  static NLBENCH_INLINE __m256 narrowed(Wide x) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(x.low)),
                                _mm256_cvtpd_ps(x.high), 1);
  }
  static NLBENCH_INLINE __m256 widened_halves(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static NLBENCH_INLINE __m128i rounded_halves(__m256 value) {
    const __m256i bits = _mm256_castps_si256(value), odd = _mm256_srli_epi32(bits, 16);
    const __m256i half =
        _mm256_add_epi32(_mm256_and_si256(odd, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7FFF));
    const __m256i upper = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i out = _mm256_blendv_epi8(upper, _mm256_set1_epi32(0x7FC0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(out), _mm256_extracti128_si256(out, 1));
  }

  static NLBENCH_INLINE float to_scalar(float x) { return x; }
  static NLBENCH_INLINE float to_scalar(BFloat16 x) { return widened(x); }
  static NLBENCH_INLINE Narrow or_lowest(__m256 x, Some lanes) {
    return {_mm256_blendv_ps(_mm256_set1_ps(-INFINITY), x, _mm256_castsi256_ps(lanes.mask()))};
  }
  static NLBENCH_INLINE Narrow load_logits(const float* z, All) { return {_mm256_loadu_ps(z)}; }
  static NLBENCH_INLINE Narrow load_logits(const float* z, Some lanes) {
    return or_lowest(_mm256_maskload_ps(z, lanes.mask()), lanes);
  }
  static NLBENCH_INLINE Narrow load_logits(const BFloat16* z, All) {
    return {widened_halves(_mm_loadu_si128(reinterpret_cast<const __m128i*>(z)))};
  }
  static NLBENCH_INLINE Narrow load_logits(const BFloat16* z, Some lanes) {
    alignas(16) uint16_t halves[kLanes] = {};
    for (int64_t i = 0; i < lanes.count; ++i) halves[i] = z[i].bits;
    return or_lowest(widened_halves(_mm_load_si128(reinterpret_cast<const __m128i*>(halves))),
                     lanes);
  }
  template <class V>
  static NLBENCH_INLINE V load(const float* t, All) {
    return as<V>(Narrow{_mm256_loadu_ps(t)});
  }
  template <class V>
  static NLBENCH_INLINE V load(const float* t, Some lanes) {
    return as<V>(Narrow{_mm256_maskload_ps(t, lanes.mask())});
  }
  template <class V>
  static NLBENCH_INLINE V load(const double* t, All) {
    return {_mm256_loadu_pd(t), _mm256_loadu_pd(t + 4)};
  }
  template <class V>
  static NLBENCH_INLINE V load(const double* t, Some lanes) {
    return {_mm256_maskload_pd(t, lanes.low()), _mm256_maskload_pd(t + 4, lanes.high())};
  }
  template <class V>
  static NLBENCH_INLINE void store(float* out, V x, All) {
    _mm256_storeu_ps(out, narrowed(x));
  }
  template <class V>
  static NLBENCH_INLINE void store(float* out, V x, Some lanes) {
    _mm256_maskstore_ps(out, lanes.mask(), narrowed(x));
  }
  static NLBENCH_INLINE void store(double* out, Wide x, All) {
    _mm256_storeu_pd(out, x.low);
    _mm256_storeu_pd(out + 4, x.high);
  }
  static NLBENCH_INLINE void store(double* out, Wide x, Some lanes) {
    _mm256_maskstore_pd(out, lanes.low(), x.low);
    _mm256_maskstore_pd(out + 4, lanes.high(), x.high);
  }
  template <class V>
  static NLBENCH_INLINE void store(BFloat16* out, V x, All) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), rounded_halves(narrowed(x)));
  }
  template <class V>
  static NLBENCH_INLINE void store(BFloat16* out, V x, Some lanes) {
    alignas(16) uint16_t halves[kLanes];
    _mm_store_si128(reinterpret_cast<__m128i*>(halves), rounded_halves(narrowed(x)));
    for (int64_t i = 0; i < lanes.count; ++i) out[i].bits = halves[i];
  }

  static NLBENCH_INLINE Narrow exp(Narrow x) { return exp_nonpositive<Avx2Lanes>(x); }
  static NLBENCH_INLINE Narrow round(Narrow x) {
    return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static NLBENCH_INLINE Narrow times_power_of_two(Narrow y, Narrow n) {
    const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y.v), shift));
    return {_mm256_blendv_ps(scaled, n.v, _mm256_cmp_ps(n.v, n.v, _CMP_UNORD_Q))};
  }
  static NLBENCH_INLINE Narrow zero_below(Narrow x, float bound, Narrow y) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(bound), _CMP_NLT_UQ), y.v)};
  }

  static NLBENCH_INLINE Narrow fma(Narrow a, Narrow b, Narrow c) {
    return {_mm256_fmadd_ps(a.v, b.v, c.v)};
  }
  static NLBENCH_INLINE Wide fma(Wide a, Wide b, Wide c) {
    return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
  }
  // max and min return their second operand if one is NaN, so NaN stays NaN.
  static NLBENCH_INLINE Narrow clamp(Narrow p, double low, double high) {
    const __m256 least = _mm256_set1_ps(float(low)), most = _mm256_set1_ps(float(high));
    return {_mm256_min_ps(most, _mm256_max_ps(least, p.v))};
  }
  static NLBENCH_INLINE Wide clamp(Wide p, double low, double high) {
    const __m256d least = _mm256_set1_pd(low), most = _mm256_set1_pd(high);
    return {_mm256_min_pd(most, _mm256_max_pd(least, p.low)),
            _mm256_min_pd(most, _mm256_max_pd(least, p.high))};
  }
  static NLBENCH_INLINE Narrow between(Narrow p, double low, double high) {
    const __m256 least = _mm256_set1_ps(float(low)), most = _mm256_set1_ps(float(high));
    return {
        _mm256_and_ps(_mm256_cmp_ps(p.v, least, _CMP_GE_OQ), _mm256_cmp_ps(p.v, most, _CMP_LE_OQ))};
  }
  static NLBENCH_INLINE Wide between(Wide p, double low, double high) {
    const __m256d least = _mm256_set1_pd(low), most = _mm256_set1_pd(high);
    return {_mm256_and_pd(_mm256_cmp_pd(p.low, least, _CMP_GE_OQ),
                          _mm256_cmp_pd(p.low, most, _CMP_LE_OQ)),
            _mm256_and_pd(_mm256_cmp_pd(p.high, least, _CMP_GE_OQ),
                          _mm256_cmp_pd(p.high, most, _CMP_LE_OQ))};
  }
  static NLBENCH_INLINE Narrow where(Narrow mask, Narrow x) { return {_mm256_and_ps(mask.v, x.v)}; }
  static NLBENCH_INLINE Wide where(Wide mask, Wide x) {
    return {_mm256_and_pd(mask.low, x.low), _mm256_and_pd(mask.high, x.high)};
  }
  template <class V>
  static NLBENCH_INLINE V only(All, V x) {
    return x;
  }
  static NLBENCH_INLINE Narrow only(Some lanes, Narrow x) {
    return where(Narrow{_mm256_castsi256_ps(lanes.mask())}, x);
  }
  static NLBENCH_INLINE Wide only(Some lanes, Wide x) {
    return where(Wide{_mm256_castsi256_pd(lanes.low()), _mm256_castsi256_pd(lanes.high())}, x);
  }
  // 0 * infinity is 0.
  static NLBENCH_INLINE Narrow times(Narrow a, Narrow b) {
    return where(Narrow{_mm256_cmp_ps(a.v, _mm256_setzero_ps(), _CMP_NEQ_UQ)}, a * b);
  }
  static NLBENCH_INLINE Wide times(Wide a, Wide b) {
    const __m256d zero = _mm256_setzero_pd();
    return where(
        Wide{_mm256_cmp_pd(a.low, zero, _CMP_NEQ_UQ), _mm256_cmp_pd(a.high, zero, _CMP_NEQ_UQ)},
        a * b);
  }
  template <class V>
  static NLBENCH_INLINE V one_at(int64_t lane) {
    const __m256 at = _mm256_set1_ps(uint64_t(lane) < uint64_t(kLanes) ? float(lane) : -1.0f);
    const __m256 here = _mm256_cmp_ps(at, _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _CMP_EQ_OQ);
    return as<V>(Narrow{_mm256_and_ps(here, _mm256_set1_ps(1))});
  }
};

}  // namespace
}  // namespace nlbench
