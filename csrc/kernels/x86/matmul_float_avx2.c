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

/* Columns of the wide tile, which has two groups and one chain at a time: 12 sums, so that each weight that is
 * read and converted serves 6 columns and each activation 16 rows. The narrow tile has all four chains at once. */
#define WIDE 6

#define DEFINE_FLOAT(suffix, block)                                                                          \
    OC_INLINE void tile_##suffix(const block *w, const oc_act *x, int64_t c, float *out, int64_t ldy,        \
                                 const int cols) {                                                           \
        const float *f = x->f32 + c * x->stride;                                                             \
        __m256 acc[3][4];                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            for (int j = 0; j < 4; j++) acc[i][j] = _mm256_setzero_ps();                                     \
        int64_t at = 0;                                                                                      \
        for (; at + 4 <= x->k; at += 4) {                                                                    \
            oc_prefetch(w + at, 4 * sizeof *w);                                                              \
            for (int j = 0; j < 4; j++) {                                                                    \
                const __m256 v = load_##suffix(w + at + j);                                                  \
                for (int i = 0; i < cols; i++)                                                               \
                    acc[i][j] = _mm256_fmadd_ps(v, _mm256_set1_ps(f[i * x->stride + at + j]), acc[i][j]);    \
            }                                                                                                \
        }                                                                                                    \
        for (int j = 0; j < 3; j++) {                                                                        \
            if (at + j >= x->k) break;                                                                       \
            const __m256 v = load_##suffix(w + at + j);                                                      \
            for (int i = 0; i < cols; i++)                                                                   \
                acc[i][j] = _mm256_fmadd_ps(v, _mm256_set1_ps(f[i * x->stride + at + j]), acc[i][j]);        \
        }                                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            _mm256_storeu_ps(out + i * ldy, _mm256_add_ps(_mm256_add_ps(acc[i][0], acc[i][1]),               \
                                                          _mm256_add_ps(acc[i][2], acc[i][3])));             \
    }                                                                                                        \
    OC_INLINE void wide_##suffix(const block *w, const oc_act *x, int64_t c, float *out, int64_t ldy,        \
                                 const int cols) {                                                           \
        const block *w1 = w + x->k;                                                                          \
        __m256 acc[WIDE][2], first[WIDE][2] = {0}, even[WIDE][2] = {0};                                      \
        for (int j = 0; j < 4; j++) {                                                                        \
            for (int i = 0; i < cols; i++) acc[i][0] = acc[i][1] = _mm256_setzero_ps();                      \
            const float *f[WIDE / 3]; /* of every third column: two more are in reach of an address */       \
            for (int i = 0; i < cols / 3; i++) f[i] = x->f32 + (c + 3 * i) * x->stride + j;                  \
            for (int64_t at = j; at < x->k; at += 4) {                                                       \
                const __m256 u = load_##suffix(w + at), v = load_##suffix(w1 + at);                          \
                for (int i = 0; i < cols; i++) {                                                             \
                    const __m256 a = _mm256_set1_ps(f[i / 3][i % 3 * x->stride]);                            \
                    acc[i][0] = _mm256_fmadd_ps(u, a, acc[i][0]);                                            \
                    acc[i][1] = _mm256_fmadd_ps(v, a, acc[i][1]);                                            \
                }                                                                                            \
                for (int i = 0; i < cols / 3; i++) f[i] += 4;                                                \
            }                                                                                                \
            for (int i = 0; i < cols; i++)                                                                   \
                for (int h = 0; h < 2; h++) {                                                                \
                    if (j % 2 == 0) even[i][h] = acc[i][h];                                                  \
                    else if (j == 1) first[i][h] = _mm256_add_ps(even[i][h], acc[i][h]);                     \
                    else _mm256_storeu_ps(out + i * ldy + 8 * h,                                             \
                                          _mm256_add_ps(first[i][h], _mm256_add_ps(even[i][h], acc[i][h]))); \
                }                                                                                            \
        }                                                                                                    \
    }                                                                                                        \
    static void narrow_##suffix(const block *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,     \
                                int64_t g1, int64_t c0) {                                                    \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const block *w = packed + g * x->k;                                                              \
            float *out = y + 8 * g;                                                                          \
            int64_t c = c0;                                                                                  \
            for (; c + 3 <= x->n; c += 3) tile_##suffix(w, x, c, out + c * ldy, ldy, 3);                     \
            if (c + 2 == x->n) tile_##suffix(w, x, c, out + c * ldy, ldy, 2);                                \
            if (c + 1 == x->n) tile_##suffix(w, x, c, out + c * ldy, ldy, 1);                                \
        }                                                                                                    \
    }                                                                                                        \
    void oc_matmul_##suffix##_avx2(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,   \
                                   int64_t g1) {                                                             \
        int64_t g = g0;                                                                                      \
        for (; x->n >= WIDE && g + 2 <= g1; g += 2) {                                                        \
            const block *w = (const block *)packed + g * x->k;                                               \
            int64_t c = 0;                                                                                   \
            for (; c + WIDE <= x->n; c += WIDE) wide_##suffix(w, x, c, y + 8 * g + c * ldy, ldy, WIDE);      \
            narrow_##suffix(packed, x, y, ldy, g, g + 2, c);                                                 \
        }                                                                                                    \
        narrow_##suffix(packed, x, y, ldy, g, g1, 0);                                                        \
    }

DEFINE_FLOAT(f32, oc_packed_f32)
DEFINE_FLOAT(f16, oc_packed_16)
DEFINE_FLOAT(bf16, oc_packed_16)

#include "kernels/x86/target_end.h"
