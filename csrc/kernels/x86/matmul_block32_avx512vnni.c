/* matmul_block32_avx512vnni.c - AVX-512 VNNI matmul of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0. vpdpbusd sums
 * straight into int32, so nothing can overflow; the float operations are those of the AVX2 kernels, and so
 * are the results. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/matmul_avx512.h"

/* Q4_0, Q4_1, Q5_0, Q5_1: scales, then minima if `shifted`, then fifth bits if `fifth`, then 4 code
 * vectors. */
OC_INLINE void tile_45(const uint8_t *w0, const uint8_t *w1, const oc_act *x, int64_t c, float *out,
                       int64_t ldy, const int cols, const int pair, const int shifted, const int fifth) {
    const __m512i low4 = _mm512_set1_epi8(15), bit4 = _mm512_set1_epi8(16);
    const int64_t n_blocks = x->k / 32;
    const int qh_at = shifted ? 32 : 16, qs_at = qh_at + (fifth ? 32 : 0), size = qs_at + 128;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * 2 * n_blocks, *sum = x->sum + c * n_blocks;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, w0 += size, w1 += size, a += 32, scale += 2, sum++) {
        oc_prefetch(w0, size);
        oc_prefetch(w1, size);
        const __m512 d = oc_halves2((const uint16_t *)w0, (const uint16_t *)w1);
        const __m512 m = shifted ? oc_halves2((const uint16_t *)w0 + 8, (const uint16_t *)w1 + 8)
                                 : _mm512_set1_ps(fifth ? 16 : 8);
        const __m512i qh = fifth ? oc_load2(w0 + qh_at, w1 + qh_at) : _mm512_setzero_si512();
        __m512i first[8], last[8]; /* of the halves of 16 */
        for (int i = 0; i < cols; i++) first[i] = last[i] = _mm512_setzero_si512();
        for (int j = 0; j < 4; j++) {
            const __m512i bytes = oc_load2(w0 + qs_at + 32 * j, w1 + qs_at + 32 * j);
            __m512i low = _mm512_and_si512(bytes, low4);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low4);
            if (fifth) { /* x & 16 | low */
                low = _mm512_ternarylogic_epi32(_mm512_slli_epi16(qh, 4 - j), bit4, low, 0xEA);
                high = _mm512_ternarylogic_epi32(_mm512_srli_epi16(qh, j), bit4, high, 0xEA);
            }
            for (int i = 0; i < cols; i++) {
                first[i] = _mm512_dpbusd_epi32(first[i], low, oc_codes4_wide(a + i * x->k + 4 * j));
                last[i] = _mm512_dpbusd_epi32(last[i], high, oc_codes4_wide(a + i * x->k + 16 + 4 * j));
            }
        }
        for (int i = 0; i < cols; i++) {
            const float *s = scale + i * 2 * n_blocks;
            const __m512 t = _mm512_set1_ps(sum[i * n_blocks]);
            __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(first[i]), _mm512_set1_ps(s[0]));
            product = _mm512_fmadd_ps(_mm512_cvtepi32_ps(last[i]), _mm512_set1_ps(s[1]), product);
            if (!shifted) product = _mm512_fnmadd_ps(m, t, product);
            acc[i] = _mm512_fmadd_ps(d, product, acc[i]);
            if (shifted) acc[i] = _mm512_fmadd_ps(m, t, acc[i]);
        }
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

#define BYTES(w) (const uint8_t *)(w)
#define TILE_Q4_0(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_45(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 0, 0)
#define TILE_Q4_1(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_45(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 1, 0)
#define TILE_Q5_0(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_45(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 0, 1)
#define TILE_Q5_1(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_45(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 1, 1)

/* Signed weights: the activations become the unsigned operand, 128 more than they are; 128 * (sum of the
 * weights) of each half, the same for all columns, is taken off beforehand. */
OC_INLINE void tile_q8_0(const oc_packed_q8_0 *w0, const oc_packed_q8_0 *w1, const oc_act *x, int64_t c,
                         float *out, int64_t ldy, const int cols, const int pair) {
    const __m512i top = _mm512_set1_epi8(-128);
    const int64_t n_blocks = x->k / 32;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * 2 * n_blocks;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, w0++, w1++, a += 32, scale += 2) {
        oc_prefetch(w0, sizeof *w0);
        oc_prefetch(w1, sizeof *w1);
        const __m512 d = oc_halves2(w0->d, w1->d);
        __m512 product[8];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512i q[4], offset = _mm512_setzero_si512(), total[8];
            for (int j = 0; j < 4; j++) {
                q[j] = oc_load2(w0->qs[4 * h + j], w1->qs[4 * h + j]);
                offset = _mm512_dpbusd_epi32(offset, top, q[j]);
            }
            for (int i = 0; i < cols; i++) total[i] = _mm512_sub_epi32(_mm512_setzero_si512(), offset);
            for (int j = 0; j < 4; j++)
                for (int i = 0; i < cols; i++) {
                    const __m512i four = oc_codes4_wide(a + i * x->k + 16 * h + 4 * j);
                    total[i] = _mm512_dpbusd_epi32(total[i], _mm512_xor_si512(four, top), q[j]);
                }
            for (int i = 0; i < cols; i++) {
                const __m512 s = _mm512_set1_ps(scale[i * 2 * n_blocks + h]);
                const __m512 t = _mm512_cvtepi32_ps(total[i]);
                product[i] = h ? _mm512_fmadd_ps(t, s, product[i]) : _mm512_mul_ps(t, s);
            }
        }
        for (int i = 0; i < cols; i++) acc[i] = _mm512_fmadd_ps(d, product[i], acc[i]);
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

OC_DEFINE_MATMUL_PAIRS(q4_0, TILE_Q4_0, oc_packed_q4_0, 32, 8)
OC_DEFINE_MATMUL_PAIRS(q4_1, TILE_Q4_1, oc_packed_q4_1, 32, 8)
OC_DEFINE_MATMUL_PAIRS(q5_0, TILE_Q5_0, oc_packed_q5_0, 32, 8)
OC_DEFINE_MATMUL_PAIRS(q5_1, TILE_Q5_1, oc_packed_q5_1, 32, 8)
OC_DEFINE_MATMUL_PAIRS(q8_0, tile_q8_0, oc_packed_q8_0, 32, 8)

#include "kernels/x86/target_end.h"
