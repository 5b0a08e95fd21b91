/* matmul_float_avx512vnni.c - AVX-512 matmul of F32, F16 and BF16 weights: two groups per vector, and per
 * lane the four chains of matmul_float_avx2.c with the same results, whatever the shape of the tile. */
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

/* Columns of the wide tile, which has four groups and one chain at a time: 24 sums, so that each weight that is
 * read and converted serves 12 columns and each activation 32 rows. The narrow tile has all four chains at once,
 * which hide the latency of the multiply-adds when there are few columns. */
#define WIDE 12

#define DEFINE_FLOAT(suffix, block)                                                                          \
    OC_INLINE void tile_##suffix(const block *w0, const block *w1, const oc_act *x, int64_t c, float *out,   \
                                 int64_t ldy, const int cols, const int pair) {                              \
        const float *f = x->f32 + c * x->stride;                                                             \
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
                    acc[i][j] = _mm512_fmadd_ps(v, _mm512_set1_ps(f[i * x->stride + at + j]), acc[i][j]);    \
            }                                                                                                \
        }                                                                                                    \
        for (int j = 0; j < 3; j++) {                                                                        \
            if (at + j >= x->k) break;                                                                       \
            const __m512 v = load_##suffix(w0 + at + j, w1 + at + j);                                        \
            for (int i = 0; i < cols; i++)                                                                   \
                acc[i][j] = _mm512_fmadd_ps(v, _mm512_set1_ps(f[i * x->stride + at + j]), acc[i][j]);        \
        }                                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            oc_store2(out + i * ldy, _mm512_add_ps(_mm512_add_ps(acc[i][0], acc[i][1]),                      \
                                                   _mm512_add_ps(acc[i][2], acc[i][3])), pair);              \
    }                                                                                                        \
    OC_INLINE void wide_##suffix(const block *w, const oc_act *x, int64_t c, float *out, int64_t ldy,        \
                                 const int cols) {                                                           \
        const block *w1 = w + x->k, *w2 = w1 + x->k, *w3 = w2 + x->k;                                        \
        __m512 acc[WIDE][2], first[WIDE][2] = {0}, even[WIDE][2] = {0};                                      \
        for (int j = 0; j < 4; j++) {                                                                        \
            for (int i = 0; i < cols; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();                      \
            const float *f[WIDE / 3]; /* of every third column: two more are in reach of an address */       \
            for (int i = 0; i < cols / 3; i++) f[i] = x->f32 + (c + 3 * i) * x->stride + j;                  \
            for (int64_t at = j; at < x->k; at += 4) {                                                       \
                const __m512 u = load_##suffix(w + at, w1 + at), v = load_##suffix(w2 + at, w3 + at);        \
                for (int i = 0; i < cols; i++) {                                                             \
                    const __m512 a = _mm512_set1_ps(f[i / 3][i % 3 * x->stride]);                            \
                    acc[i][0] = _mm512_fmadd_ps(u, a, acc[i][0]);                                            \
                    acc[i][1] = _mm512_fmadd_ps(v, a, acc[i][1]);                                            \
                }                                                                                            \
                for (int i = 0; i < cols / 3; i++) f[i] += 4;                                                \
            }                                                                                                \
            for (int i = 0; i < cols; i++)                                                                   \
                for (int h = 0; h < 2; h++) {                                                                \
                    if (j % 2 == 0) even[i][h] = acc[i][h];                                                  \
                    else if (j == 1) first[i][h] = _mm512_add_ps(even[i][h], acc[i][h]);                     \
                    else _mm512_storeu_ps(out + i * ldy + 16 * h,                                            \
                                          _mm512_add_ps(first[i][h], _mm512_add_ps(even[i][h], acc[i][h]))); \
                }                                                                                            \
        }                                                                                                    \
    }                                                                                                        \
    static void narrow_##suffix(const block *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,     \
                                int64_t g1, int64_t c0) {                                                    \
        for (int64_t g = g0; g < g1; g += 2) {                                                               \
            const int pair = g + 1 < g1;                                                                     \
            const block *w0 = packed + g * x->k, *w1 = w0 + (pair ? x->k : 0);                               \
            float *out = y + 8 * g;                                                                          \
            int64_t c = c0;                                                                                  \
            for (; c + 4 <= x->n; c += 4) tile_##suffix(w0, w1, x, c, out + c * ldy, ldy, 4, pair);          \
            for (; c + 2 <= x->n; c += 2) tile_##suffix(w0, w1, x, c, out + c * ldy, ldy, 2, pair);          \
            if (c < x->n) tile_##suffix(w0, w1, x, c, out + c * ldy, ldy, 1, pair);                          \
        }                                                                                                    \
    }                                                                                                        \
    void oc_matmul_##suffix##_avx512vnni(const void *packed, const oc_act *x, float *y, int64_t ldy,         \
                                         int64_t g0, int64_t g1) {                                           \
        int64_t g = g0;                                                                                      \
        for (; x->n >= WIDE / 2 && g + 4 <= g1; g += 4) {                                                    \
            const block *w = (const block *)packed + g * x->k;                                               \
            int64_t c = 0;                                                                                   \
            for (; c + WIDE <= x->n; c += WIDE) wide_##suffix(w, x, c, y + 8 * g + c * ldy, ldy, WIDE);      \
            for (; c + WIDE / 2 <= x->n; c += WIDE / 2)                                                      \
                wide_##suffix(w, x, c, y + 8 * g + c * ldy, ldy, WIDE / 2);                                  \
            narrow_##suffix(packed, x, y, ldy, g, g + 4, c);                                                 \
        }                                                                                                    \
        narrow_##suffix(packed, x, y, ldy, g, g1, 0);                                                        \
    }

DEFINE_FLOAT(f32, oc_packed_f32)
DEFINE_FLOAT(f16, oc_packed_16)
DEFINE_FLOAT(bf16, oc_packed_16)

#include "kernels/x86/target_end.h"
