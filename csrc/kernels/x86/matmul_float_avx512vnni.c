/* matmul_float_avx512vnni.c - AVX-512 matmul of F32, F16 and BF16 weights: two groups per vector, and per
 * lane the four chains of matmul_float_avx2.c with the same results. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/matmul_avx512.h"

OC_INLINE __m512 load_f32(const oc_packed_f32 *w0, const oc_packed_f32 *w1) {
    return _mm512_castsi512_ps(oc_load2(w0->w, w1->w));
}

OC_INLINE __m512 load_f16(const oc_packed_16 *w0, const oc_packed_16 *w1) { return oc_halves2(w0->w, w1->w); }

OC_INLINE __m512 load_bf16(const oc_packed_16 *w0, const oc_packed_16 *w1) {
    const __m128i first = _mm_loadu_si128((const __m128i *)w0->w);
    const __m128i second = _mm_loadu_si128((const __m128i *)w1->w);
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(both), 16));
}

#define DEFINE_FLOAT(suffix, block)                                                                          \
    OC_INLINE void tile_##suffix(const block *w0, const block *w1, const oc_act *x, int64_t c, float *out,   \
                                 int64_t ldy, const int cols, const int pair) {                              \
        const float *f = x->f32 + c * x->k;                                                                  \
        __m512 acc[4][4];                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            for (int j = 0; j < 4; j++) acc[i][j] = _mm512_setzero_ps();                                     \
        int64_t at = 0;                                                                                      \
        for (; at + 4 <= x->k; at += 4) {                                                                    \
            oc_prefetch(w0 + at, 4 * sizeof *w0);                                                            \
            oc_prefetch(w1 + at, 4 * sizeof *w1);                                                            \
            for (int j = 0; j < 4; j++) {                                                                    \
                const __m512 v = load_##suffix(w0 + at + j, w1 + at + j);                                    \
                for (int i = 0; i < cols; i++)                                                               \
                    acc[i][j] = _mm512_fmadd_ps(v, _mm512_set1_ps(f[i * x->k + at + j]), acc[i][j]);         \
            }                                                                                                \
        }                                                                                                    \
        for (int j = 0; j < 3; j++) {                                                                        \
            if (at + j >= x->k) break;                                                                       \
            const __m512 v = load_##suffix(w0 + at + j, w1 + at + j);                                        \
            for (int i = 0; i < cols; i++)                                                                   \
                acc[i][j] = _mm512_fmadd_ps(v, _mm512_set1_ps(f[i * x->k + at + j]), acc[i][j]);             \
        }                                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            oc_store2(out + i * ldy, _mm512_add_ps(_mm512_add_ps(acc[i][0], acc[i][1]),                      \
                                                   _mm512_add_ps(acc[i][2], acc[i][3])), pair);              \
    }                                                                                                        \
    OC_DEFINE_MATMUL_PAIRS(suffix, tile_##suffix, block, 1, 4)

DEFINE_FLOAT(f32, oc_packed_f32)
DEFINE_FLOAT(f16, oc_packed_16)
DEFINE_FLOAT(bf16, oc_packed_16)

#include "kernels/x86/target_end.h"
