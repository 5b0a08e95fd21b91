/* quantize_avx2.c - AVX2 quantisation of activations, bit for bit the reference. Of the two blocks in 32
 * values the first goes through the low halves of the vectors and the second through the high ones. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"

/* Lanes of a in the low half, of b in the high half; what is to be joined of each block comes twice. */
static inline void halves_of(__m256i a, __m256i b, __m256i out[2]) {
    out[0] = _mm256_permute2x128_si256(a, b, 0x20);
    out[1] = _mm256_permute2x128_si256(a, b, 0x31);
}

/* The largest of the 8 lanes of a in all lanes of the low half, of b in those of the high half */
static inline __m256i max_of_blocks(__m256i a, __m256i b) {
    __m256i half[2];
    halves_of(a, b, half);
    __m256i max = _mm256_max_epu32(half[0], half[1]);
    max = _mm256_max_epu32(max, _mm256_shuffle_epi32(max, 0x4E));
    return _mm256_max_epu32(max, _mm256_shuffle_epi32(max, 0xB1));
}

/* the sums likewise */
static inline __m256i sum_of_blocks(__m256i a, __m256i b) {
    __m256i half[2];
    halves_of(a, b, half);
    __m256i sum = _mm256_add_epi32(half[0], half[1]);
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4E));
    return _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xB1));
}

static inline __m256i magnitudes_max(__m256 a, __m256 b) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_max_epu32(_mm256_castps_si256(_mm256_andnot_ps(sign, a)),
                            _mm256_castps_si256(_mm256_andnot_ps(sign, b)));
}

void oc_quantize_avx2(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum) {
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the lane-wise packs */
    const __m256i not_finite = _mm256_set1_epi32((int)OC_QUANTIZE_NOT_FINITE);
    const __m256i zero = _mm256_set1_epi32((int)OC_QUANTIZE_ZERO);
    const __m256 nan = _mm256_set1_ps(__builtin_nanf("")), most = _mm256_set1_ps(127.0f);
    for (int64_t i = 0; i < n * (k / 32); i++, x += 32, codes += 32, scale += 2) {
        __m256 v[4];
        for (int j = 0; j < 4; j++) v[j] = _mm256_loadu_ps(x + 8 * j);
        const __m256i peak = max_of_blocks(magnitudes_max(v[0], v[1]), magnitudes_max(v[2], v[3]));
        /* Magnitudes are no negative integers, so signed comparisons do. */
        const __m256i is_finite = _mm256_cmpgt_epi32(not_finite, peak), is_zero = _mm256_cmpgt_epi32(zero, peak);
        const __m256i is_plain = _mm256_andnot_si256(is_zero, is_finite);
        const __m256 max = _mm256_castsi256_ps(peak), inverse = _mm256_div_ps(most, max);
        __m256 s = _mm256_andnot_ps(_mm256_castsi256_ps(is_zero), _mm256_div_ps(max, most));
        s = _mm256_blendv_ps(nan, s, _mm256_castsi256_ps(is_finite));

        __m256i code[4];
        for (int j = 0; j < 4; j++) {
            const __m256 own = j < 2 ? _mm256_permute2f128_ps(inverse, inverse, 0x00)
                                     : _mm256_permute2f128_ps(inverse, inverse, 0x11);
            code[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], own));
        }
        const __m256i half01 = _mm256_packs_epi32(code[0], code[1]);
        const __m256i half23 = _mm256_packs_epi32(code[2], code[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(half01, half23), in_order);
        bytes = _mm256_and_si256(bytes, is_plain);
        _mm256_storeu_si256((__m256i *)codes, bytes);

        __m256i total = sum_of_blocks(_mm256_add_epi32(code[0], code[1]), _mm256_add_epi32(code[2], code[3]));
        total = _mm256_and_si256(total, is_plain);
        const __m256 totals = _mm256_cvtepi32_ps(total);
        const __m128 s0 = _mm256_castps256_ps128(s), s1 = _mm256_extractf128_ps(s, 1);
        const __m128 first = _mm_mul_ps(s0, _mm256_castps256_ps128(totals));
        _mm_store_ss(sum + i, _mm_fmadd_ps(s1, _mm256_extractf128_ps(totals, 1), first));
        _mm_storel_pi((__m64 *)scale, _mm_unpacklo_ps(s0, s1));
    }
}
