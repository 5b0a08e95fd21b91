/* dot_avxvnni.h - as dot_avx2.h, with 256-bit vpdpbusd: 4 products of unsigned and signed bytes are added to
 * an int32 lane, so nothing can overflow, and integer scales are multiplied as floats. Products of 16 codes
 * and their scale stay below 2^24: exact, and the results are those of AVX2. Include after a target
 * header and matmul_avx2.h. */
#ifndef OC_KERNELS_X86_DOT_H
#define OC_KERNELS_X86_DOT_H

#ifndef OC_ROW
#define OC_ROW(suffix) oc_matmul_##suffix##_avxvnni
#endif
#define OC_PANEL_VECTORS 4 /* of 16 elements in a panel */

/* ---- unsigned codes ---- */

OC_INLINE __m256i oc_dot_add(__m256i sum, __m256i codes, __m256i a) {
    return _mm256_dpbusd_epi32(sum, codes, a);
}

OC_INLINE __m256i oc_dot(__m256i codes, __m256i a) { return oc_dot_add(_mm256_setzero_si256(), codes, a); }

OC_INLINE __m256i oc_dot_sum(__m256i x, __m256i y) { return _mm256_add_epi32(x, y); }

OC_INLINE __m256i oc_dot_of_int(__m256i value) { return value; }

OC_INLINE __m256i oc_dot_negative(__m256i sum) { return _mm256_sub_epi32(_mm256_setzero_si256(), sum); }

/* ---- integer scales of the rows ---- */

typedef __m256 oc_dot_scale;

OC_INLINE oc_dot_scale oc_dot_no_scale(void) { return _mm256_set1_ps(1); }

OC_INLINE oc_dot_scale oc_dot_unsigned_scale(const uint8_t scale[8], const int mask) {
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)scale));
    return _mm256_cvtepi32_ps(mask == 255 ? wide : _mm256_and_si256(wide, _mm256_set1_epi32(mask)));
}

OC_INLINE oc_dot_scale oc_dot_signed_scale(const int8_t scale[8]) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)scale)));
}

OC_INLINE __m256 oc_dot_scaled(__m256i sum, oc_dot_scale scale) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
}

/* ---- signed codes: the activations become the unsigned operand, 128 more than they are, and 128 * (sum of
 * the codes), the same for all columns, is taken off in the end ---- */

typedef struct oc_signed_dot {
    __m256i total;
} oc_signed_dot;

OC_INLINE __m256i oc_signed_offset(__m256i offset, __m256i codes) {
    return _mm256_dpbusd_epi32(offset, _mm256_set1_epi8(-128), codes);
}

OC_INLINE void oc_signed_add(oc_signed_dot *dot, const int j, __m256i codes, __m256i a, const int largest,
                             oc_dot_scale scale) {
    const __m256i biased = _mm256_xor_si256(a, _mm256_set1_epi8(-128));
    dot->total = _mm256_dpbusd_epi32(j ? dot->total : _mm256_setzero_si256(), biased, codes);
}

OC_INLINE __m256 oc_signed_scaled(const oc_signed_dot *dot, __m256i offset, oc_dot_scale scale) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(dot->total, offset)), scale);
}

#endif
