/* matmul_float_avx2.c - AVX2 matmul of F32, F16 and BF16 weights: four chains of fused multiply-adds over
 * k mod 4 per output, which hide the latency when there is one column; joined as (0 + 1) + (2 + 3). */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

OC_INLINE __m256 load_f32(const oc_packed_f32 *w) { return _mm256_loadu_ps(w->w); }
OC_INLINE __m256 load_f16(const oc_packed_16 *w) { return oc_halves(w->w); }
OC_INLINE __m256 load_bf16(const oc_packed_16 *w) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)w->w));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

#define DEFINE_FLOAT(suffix, block)                                                                          \
    OC_INLINE void tile_##suffix(const block *w, const oc_act *x, int64_t c, float *out, int64_t ldy,        \
                                 const int cols) {                                                           \
        const float *f = x->f32 + c * x->k;                                                                  \
        __m256 acc[3][4];                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            for (int j = 0; j < 4; j++) acc[i][j] = _mm256_setzero_ps();                                     \
        int64_t at = 0;                                                                                      \
        for (; at + 4 <= x->k; at += 4) {                                                                    \
            oc_prefetch(w + at, 4 * sizeof *w);                                                              \
            for (int j = 0; j < 4; j++) {                                                                    \
                const __m256 v = load_##suffix(w + at + j);                                                  \
                for (int i = 0; i < cols; i++)                                                               \
                    acc[i][j] = _mm256_fmadd_ps(v, _mm256_set1_ps(f[i * x->k + at + j]), acc[i][j]);         \
            }                                                                                                \
        }                                                                                                    \
        for (int j = 0; j < 3; j++) {                                                                        \
            if (at + j >= x->k) break;                                                                       \
            const __m256 v = load_##suffix(w + at + j);                                                      \
            for (int i = 0; i < cols; i++)                                                                   \
                acc[i][j] = _mm256_fmadd_ps(v, _mm256_set1_ps(f[i * x->k + at + j]), acc[i][j]);             \
        }                                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            _mm256_storeu_ps(out + i * ldy, _mm256_add_ps(_mm256_add_ps(acc[i][0], acc[i][1]),               \
                                                          _mm256_add_ps(acc[i][2], acc[i][3])));             \
    }                                                                                                        \
    OC_DEFINE_MATMUL(suffix, avx2, tile_##suffix, block, 1, 3)

DEFINE_FLOAT(f32, oc_packed_f32)
DEFINE_FLOAT(f16, oc_packed_16)
DEFINE_FLOAT(bf16, oc_packed_16)

#include "kernels/x86/target_end.h"
