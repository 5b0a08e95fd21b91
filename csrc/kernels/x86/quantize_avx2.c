/* quantize_avx2.c - AVX2 quantisation of activations, bit for bit the reference. What belongs to the two
 * blocks of 32 values alternates in the lanes of 128-bit vectors: first, second, first, second. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"

static inline __m256i max_magnitudes(__m256 a, __m256 b) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_max_epu32(_mm256_castps_si256(_mm256_andnot_ps(sign, a)),
                            _mm256_castps_si256(_mm256_andnot_ps(sign, b)));
}

static inline __m128i max_of_blocks(__m256i first, __m256i second) {
    const __m256i low = _mm256_unpacklo_epi32(first, second), high = _mm256_unpackhi_epi32(first, second);
    const __m256i max = _mm256_max_epu32(low, high);
    __m128i max4 = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    return _mm_max_epu32(max4, _mm_shuffle_epi32(max4, 0x4E));
}

static inline __m128i sum_of_blocks(__m256i codes) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    const __m128i first = _mm256_castsi256_si128(fours), second = _mm256_extracti128_si256(fours, 1);
    const __m128i sum = _mm_add_epi32(_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
    return _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
}

void oc_quantize_avx2(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum) {
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the lane-wise packs */
    const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m128i not_finite = _mm_set1_epi32((int)OC_QUANTIZE_NOT_FINITE);
    const __m128i zero = _mm_set1_epi32((int)OC_QUANTIZE_ZERO);
    const __m128 nan = _mm_set1_ps(__builtin_nanf("")), most = _mm_set1_ps(127.0f);
    for (int64_t i = 0; i < n * (k / 32); i++, x += 32, codes += 32, scale += 2) {
        __m256 v[4];
        /* Half of the values come from the caches of other cores. */
        for (int j = 0; j < 32; j += 16) _mm_prefetch((const char *)(x + 512 + j), _MM_HINT_T0);
        for (int j = 0; j < 4; j++) v[j] = _mm256_loadu_ps(x + 8 * j);
        const __m128i peak = max_of_blocks(max_magnitudes(v[0], v[1]), max_magnitudes(v[2], v[3]));
        /* Magnitudes are no negative integers, so signed comparisons do. */
        const __m128i is_finite = _mm_cmpgt_epi32(not_finite, peak), is_zero = _mm_cmpgt_epi32(zero, peak);
        const __m128i is_plain = _mm_andnot_si128(is_zero, is_finite);
        /* One division for the scales max / 127 in lanes 0 and 1, and for 127 / max in lanes 2 and 3 */
        const __m128 max = _mm_castsi128_ps(peak);
        const __m128 both = _mm_div_ps(_mm_blend_ps(max, most, 12), _mm_blend_ps(most, max, 12));
        const __m256 both8 = _mm256_castps128_ps256(both);
        const __m256 inverse0 = _mm256_permutevar8x32_ps(both8, _mm256_set1_epi32(2));
        const __m256 inverse1 = _mm256_permutevar8x32_ps(both8, _mm256_set1_epi32(3));
        __m128 scales = _mm_andnot_ps(_mm_castsi128_ps(is_zero), both);
        scales = _mm_blendv_ps(nan, scales, _mm_castsi128_ps(is_finite));
        _mm_storel_pi((__m64 *)scale, scales);

        __m256i code[4];
        for (int j = 0; j < 4; j++)
            code[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], j < 2 ? inverse0 : inverse1));
        const __m256i half01 = _mm256_packs_epi32(code[0], code[1]);
        const __m256i half23 = _mm256_packs_epi32(code[2], code[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(half01, half23), in_order);
        const __m256i plain = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(is_plain), halves);
        bytes = _mm256_and_si256(bytes, plain);
        _mm256_storeu_si256((__m256i *)codes, bytes);

        const __m128d products = _mm_mul_pd(_mm_cvtps_pd(scales), _mm_cvtepi32_pd(sum_of_blocks(bytes)));
        const __m128d both_products = _mm_add_pd(products, _mm_unpackhi_pd(products, products));
        _mm_store_ss(sum + i, _mm_cvtpd_ps(both_products));
    }
}

#include "kernels/x86/target_end.h"
