/* matmul_avx512.h - what the AVX-512 VNNI matmul kernels share. A vector of 16 int32 lanes holds the 8
 * rows of one group and the 8 of the next; vpdpbusd adds 4 products of unsigned and signed bytes to each.
 * As in matmul_avx2.h one tile source serves every number of columns, and a lane does the same whichever
 * group is its neighbour. */
#ifndef OC_KERNELS_X86_MATMUL_AVX512_H
#define OC_KERNELS_X86_MATMUL_AVX512_H

#include "kernels/x86/matmul_avx2.h"

/* Up to so many columns wait for memory alone, and 256-bit kernels serve them: one group after the other is one
 * stream, of which Zen 5 reads a fifth more in a second than of two. */
#define OC_ONE_STREAM 2

/* A matmul from tile(weights of two groups, x, first column, outputs, ldy, cols, pair), `wide` = 8 or 4
 * columns in the widest tile. The last group of an odd number stands in for its missing neighbour, whose
 * outputs are not written (pair = 0). */
#define OC_DEFINE_MATMUL_PAIRS(suffix, tile, block, elements, wide)                                          \
    OC_DEFINE_MATMUL_TILES(, oc_matmul_##suffix##_avx512vnni, oc_matmul_##suffix##_avx512vl, tile, block,    \
                           elements, wide)
#define OC_DEFINE_MATMUL_TILES(linkage, function, narrow, tile, block, elements, wide)                       \
    void narrow(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0, int64_t g1);         \
    linkage void function(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,            \
                          int64_t g1) {                                                                      \
        const int64_t n_blocks = x->k / elements;                                                            \
        if (x->n <= OC_ONE_STREAM) {                                                                         \
            narrow(packed, x, y, ldy, g0, g1);                                                               \
            return;                                                                                          \
        }                                                                                                    \
        for (int64_t g = g0; g < g1; g += 2) {                                                               \
            const int pair = g + 1 < g1;                                                                     \
            const block *w0 = (const block *)packed + g * n_blocks, *w1 = w0 + (pair ? n_blocks : 0);        \
            float *out = y + 8 * g;                                                                          \
            int64_t c = 0;                                                                                   \
            for (; wide == 8 && c + 8 <= x->n; c += 8) tile(w0, w1, x, c, out + c * ldy, ldy, 8, pair);      \
            for (; c + 4 <= x->n; c += 4) tile(w0, w1, x, c, out + c * ldy, ldy, 4, pair);                   \
            for (; c + 2 <= x->n; c += 2) tile(w0, w1, x, c, out + c * ldy, ldy, 2, pair);                   \
            if (c < x->n) tile(w0, w1, x, c, out + c * ldy, ldy, 1, pair);                                   \
        }                                                                                                    \
    }

/* 32 bytes of each group */
OC_INLINE __m512i oc_load2(const void *p0, const void *p1) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(oc_load(p0)), oc_load(p1), 1);
}

/* 8 half floats of each group */
OC_INLINE __m512 oc_halves2(const uint16_t *p0, const uint16_t *p1) {
    const __m128i first = _mm_loadu_si128((const __m128i *)p0), second = _mm_loadu_si128((const __m128i *)p1);
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1));
}

/* 8 bytes of each group, next to each other */
OC_INLINE __m128i oc_bytes2(const void *p0, const void *p1) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)p0), _mm_loadl_epi64((const __m128i *)p1));
}

/* 8 signed bytes of each group as floats */
OC_INLINE __m512 oc_signed_to_floats2(const void *p0, const void *p1) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(oc_bytes2(p0, p1)));
}

/* 4 activation codes in every lane */
OC_INLINE __m512i oc_codes4_wide(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

/* -2^shift * the sums of every 16 of 256 codes: where unsigned codes are 2^shift more than the weights that
 * they stand for, totals start there. */
OC_INLINE void oc_offsets_of_16(const int8_t *a, const int shift, int32_t offset[16]) {
    __m256i t[2];
    oc_sums_of_16(a, t);
    for (int h = 0; h < 2; h++) {
        const __m256i negated = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(t[h], shift));
        _mm256_storeu_si256((__m256i *)(offset + 8 * h), negated);
    }
}

OC_INLINE void oc_store2(float *out, __m512 sums, int pair) {
    _mm256_storeu_ps(out, _mm512_castps512_ps256(sums));
    if (pair) _mm256_storeu_ps(out + 8, _mm512_extractf32x8_ps(sums, 1));
}

#endif
