/* matmul_avx2.h - what the matmul kernels of 256 bits share: the walk over groups and columns, small loads.
 *
 * A tile function computes 8 rows x `cols` columns over the whole of k. It is inlined once per `cols`, so
 * that the loops over columns unroll and weights unpacked in registers serve all of them; one source for
 * every width also means that an output gets the same operations in the same order whatever the number of
 * columns is. */
#ifndef OC_KERNELS_X86_MATMUL_AVX2_H
#define OC_KERNELS_X86_MATMUL_AVX2_H

#include <string.h>

#include "kernels/kernels.h"
#include "quant/blocks.h"

#define OC_INLINE static inline __attribute__((always_inline))

/* A matmul from tile(weights of the group, x, first column, its outputs, ldy, cols). `wide` is the widest
 * tile, 5 or 6; the rest goes through narrower ones (3, 2, 1): 6 columns are 3 + 3, not 5 + 1. */
#define OC_DEFINE_TILES(linkage, function, tile, block, elements, wide)                                      \
    linkage void function(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,            \
                          int64_t g1) {                                                                      \
        const block *w = (const block *)packed + g0 * (x->k / elements);                                     \
        for (int64_t g = g0; g < g1; g++, w += x->k / elements) {                                            \
            float *out = y + 8 * g;                                                                          \
            int64_t c = 0;                                                                                   \
            for (; c + wide <= x->n && (wide == 6 || c + 6 != x->n); c += wide)                              \
                tile(w, x, c, out + c * ldy, ldy, wide);                                                     \
            for (; c + 3 <= x->n; c += 3) tile(w, x, c, out + c * ldy, ldy, 3);                              \
            if (c + 2 == x->n) tile(w, x, c, out + c * ldy, ldy, 2);                                         \
            if (c + 1 == x->n) tile(w, x, c, out + c * ldy, ldy, 1);                                         \
        }                                                                                                    \
    }

/* The compiler must have this vector here: left alone it does all multiplications of a loop first, and their
 * results, more than the registers hold, go through the stack. */
#define OC_KEEP(vector) __asm__("" : "+x"(vector))

OC_INLINE __m256i oc_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* 4 activation codes in every lane */
OC_INLINE __m256i oc_codes4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

/* Ask for the bytes that the walk will reach later, twice: 16 KB ahead into the second-level cache, which can
 * wait for far more lines than the first, and 4 KB ahead from there. The hardware prefetcher stops at every
 * page. For one column out of memory the first is worth 15 % of the speed, both are worth 65 %; wide tiles in
 * cache lose 2 %. Past the end it is a harmless hint. */
OC_INLINE void oc_prefetch(const void *p, int bytes) {
    const char *at = (const char *)p;
    for (int i = 0; i < bytes; i += 64) {
        _mm_prefetch(at + 16384 + i, _MM_HINT_T1);
        _mm_prefetch(at + 4096 + i, _MM_HINT_T0);
    }
}

/* Ask for 256 activations of column c: such pieces of columns are too short for the hardware prefetcher. */
OC_INLINE void oc_prefetch_column(const oc_act *x, int64_t c, int64_t at) {
    const int64_t from = c * x->k + at;
    for (int i = 0; i < 256; i += 64) _mm_prefetch((const char *)x->codes + from + i, _MM_HINT_T0);
    _mm_prefetch((const char *)(x->scale + from / 16), _MM_HINT_T0);
    _mm_prefetch((const char *)(x->sum + from / 32), _MM_HINT_T0);
}

/* 8 half floats */
OC_INLINE __m256 oc_halves(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

/* The sums of every 16 of 256 codes: t[0] those of the first 128. */
OC_INLINE void oc_sums_of_16(const int8_t *a, __m256i t[2]) {
    const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int h = 0; h < 2; h++) {
        __m256i v[4]; /* 4 sums of 4 from each half of 32 codes */
        for (int i = 0; i < 4; i++)
            v[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, oc_load(a + 128 * h + 32 * i)), ones16);
        t[h] = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
        t[h] = _mm256_permutevar8x32_epi32(t[h], in_order);
    }
}

#endif
