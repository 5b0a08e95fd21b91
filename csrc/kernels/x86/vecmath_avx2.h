/* vecmath_avx2.h - exp and tanh of eight floats, the formulas of kernels/vecmath.h with fused multiply-adds,
 * and lane reductions in a fixed order. Include after target_avx2.h. */
#ifndef OC_KERNELS_X86_VECMATH_AVX2_H
#define OC_KERNELS_X86_VECMATH_AVX2_H

#include "kernels/vecmath.h"

/* As oc_exp_parts. */
static inline __m256 oc_exp_parts_avx2(__m256 x, __m256 *half) {
    __m256 round = _mm256_set1_ps(OC_EXP_ROUND);
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(OC_EXP_LOG2E), round),
           n = _mm256_sub_ps(shifted, round);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(OC_EXP_LN2_HIGH), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(OC_EXP_LN2_LOW), r);
    __m256 q = _mm256_fmadd_ps(_mm256_set1_ps(OC_EXP_Q5), r, _mm256_set1_ps(OC_EXP_Q4));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(OC_EXP_Q3));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(OC_EXP_Q2));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(OC_EXP_Q1));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(OC_EXP_Q0));
    __m256i exponent = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(126));
    *half = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    return _mm256_fmadd_ps(_mm256_mul_ps(q, r), r, r);
}

static inline __m256 oc_exp_avx2(__m256 x) {
    __m256 half, capped = _mm256_min_ps(_mm256_set1_ps(OC_EXP_MAX), x); /* this operand order keeps NaN */
    __m256 y = oc_exp_parts_avx2(capped, &half);
    y = _mm256_fmadd_ps(y, half, half);
    y = _mm256_add_ps(y, y);
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(OC_EXP_MIN), _CMP_LT_OQ), y);
}

static inline __m256 oc_tanh_avx2(__m256 x) {
    __m256 half, sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    __m256 a = _mm256_min_ps(_mm256_set1_ps(10.0f), _mm256_xor_ps(x, sign));
    __m256 y = oc_exp_parts_avx2(_mm256_add_ps(a, a), &half);
    __m256 scale = _mm256_add_ps(half, half);
    __m256 m = _mm256_fmadd_ps(y, scale, _mm256_sub_ps(scale, _mm256_set1_ps(1.0f)));
    return _mm256_or_ps(_mm256_div_ps(m, _mm256_add_ps(m, _mm256_set1_ps(2.0f))), sign);
}

static inline float oc_sum_avx2(__m256 x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float oc_max_avx2(__m256 x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#endif
