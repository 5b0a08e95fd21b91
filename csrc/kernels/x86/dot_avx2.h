/* dot_avx2.h - products of a vector of codes (8 rows, 4 elements of each) and 4 activations, summed over 16
 * elements, with the multiplications of AVX2. Include after target_avx2.h and matmul_avx2.h.
 *
 * vpmaddubsw leaves 2 products in an int16 lane, and results are added there as long as they fit; vpmaddwd
 * widens them and multiplies by the integer scale of the sub-block on the way. */
#ifndef OC_KERNELS_X86_DOT_H
#define OC_KERNELS_X86_DOT_H

#define OC_ROW(suffix) oc_matmul_##suffix##_avx2
#define OC_PANEL_VECTORS 8 /* of 16 elements in a panel */

/* ---- unsigned codes. Bounds of an int16 lane after 4 vectors, |code of an activation| <= 127:
 *   5 bits: 8 * 31 * 127 = 31496 < 32768
 *   6 bits: the sums wrap around, and that is harmless where the total with its offset fits again ---- */

OC_INLINE __m256i oc_dot(__m256i codes, __m256i a) { return _mm256_maddubs_epi16(codes, a); }

OC_INLINE __m256i oc_dot_sum(__m256i x, __m256i y) { return _mm256_add_epi16(x, y); }

OC_INLINE __m256i oc_dot_add(__m256i sum, __m256i codes, __m256i a) {
    __m256i both = oc_dot_sum(sum, oc_dot(codes, a));
    OC_KEEP(both);
    return both;
}

/* The sum that stands for the same int16 value in every int32 lane */
OC_INLINE __m256i oc_dot_of_int(__m256i value) {
    return _mm256_and_si256(value, _mm256_set1_epi32(0xFFFF)); /* the other int16 lane adds nothing */
}

OC_INLINE __m256i oc_dot_negative(__m256i sum) { return _mm256_sub_epi16(_mm256_setzero_si256(), sum); }

/* ---- integer scales of the rows ---- */

typedef __m256i oc_dot_scale; /* int16, twice for a row */

OC_INLINE oc_dot_scale oc_dot_no_scale(void) { return _mm256_set1_epi16(1); }

/* 8 unsigned scales, the bits of `mask` */
OC_INLINE oc_dot_scale oc_dot_unsigned_scale(const uint8_t scale[8], const int mask) {
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,  //
                                            4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    const __m256i bytes = _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)scale));
    const __m256i pairs = _mm256_shuffle_epi8(bytes, spread);
    return mask == 255 ? pairs : _mm256_and_si256(pairs, _mm256_set1_epi8((char)mask));
}

/* 8 signed scales: each byte goes to the top and is shifted down */
OC_INLINE oc_dot_scale oc_dot_signed_scale(const int8_t scale[8]) {
    const __m256i spread = _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3,  //
                                            -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7);
    const __m256i bytes = _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)scale));
    return _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, spread), 8);
}

OC_INLINE __m256 oc_dot_scaled(__m256i sum, oc_dot_scale scale) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, scale));
}

/* ---- signed codes: their signs move to the activations. As many results of vpmaddubsw are added as the
 * largest code allows:
 *   <= 32:   4, the whole half of 16 elements, 8 * 32 * 127 = 32512 < 32768
 *   <= 64:   2, 4 * 64 * 127 = 32512
 *   <= 128:  1, 2 * 128 * 127 = 32512 ---- */
#define OC_DOT_JOINED(largest) ((largest) <= 32 ? 4 : (largest) <= 64 ? 2 : 1)

typedef struct oc_signed_dot {
    __m256i sum16, total;
} oc_signed_dot;

/* What is the same for all columns: nothing here */
OC_INLINE __m256i oc_signed_offset(__m256i offset, __m256i codes) { return offset; }

/* Vector j of 4 */
OC_INLINE void oc_signed_add(oc_signed_dot *dot, const int j, __m256i codes, __m256i a, const int largest,
                             oc_dot_scale scale) {
    const int joined = OC_DOT_JOINED(largest);
    const __m256i pairs16 = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(a, codes));
    dot->sum16 = j % joined ? _mm256_add_epi16(dot->sum16, pairs16) : pairs16;
    if (j % joined < joined - 1) return;
    const __m256i wide = _mm256_madd_epi16(dot->sum16, scale);
    dot->total = j < joined ? wide : _mm256_add_epi32(dot->total, wide);
}

OC_INLINE __m256 oc_signed_scaled(const oc_signed_dot *dot, __m256i offset, oc_dot_scale scale) {
    return _mm256_cvtepi32_ps(dot->total);
}

#endif
