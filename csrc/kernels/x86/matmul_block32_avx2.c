/* matmul_block32_avx2.c - AVX2 matmul of the formats with one scale per 32 weights: Q4_0, Q4_1, Q5_0,
 * Q5_1, Q8_0.
 *
 * 4- and 5-bit codes stay unsigned: vpmaddubsw multiplies them with the signed activations, and the offset
 * (8, 16 or the block's minimum) is applied to the float sum of the activations. A block meets two scales
 * of activations, so its halves of 16 are summed apart; the low nibbles are the first half. Every int16
 * lane sums 2 products per vpmaddubsw:
 *   4 and 5 bits: 4 of them, the whole half, 8 * 31 * 127 = 31496 < 32768
 *   8 bits: |weight| <= 128, 2 * 128 * 127 = 32512 < 32768, widened to int32 each time
 * The int32 sums reach at most 16 * 128 * 127 = 260096, exact in float. */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

/* Q4_0, Q4_1, Q5_0, Q5_1: scales, then minima if `shifted`, then fifth bits if `fifth`, then 4 code
 * vectors. */
OC_INLINE void tile_45(const uint8_t *w, const oc_act *x, int64_t c, float *out, int64_t ldy, const int cols,
                       const int shifted, const int fifth) {
    const __m256i low4 = _mm256_set1_epi8(15), bit4 = _mm256_set1_epi8(16), ones = _mm256_set1_epi16(1);
    const int64_t n_blocks = x->k / 32;
    const int8_t *a[6];
    const float *scale = x->scale + c * 2 * n_blocks, *sum = x->sum + c * n_blocks;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n_blocks; b++, scale += 2, sum++) {
        oc_prefetch(w, 144 + (shifted ? 16 : 0) + (fifth ? 32 : 0));
        const __m256 d = oc_halves((const uint16_t *)w);
        const __m256 m = shifted ? oc_halves((const uint16_t *)w + 8) : _mm256_set1_ps(fifth ? 16 : 8);
        const __m256i qh = fifth ? oc_load(w + (shifted ? 32 : 16)) : _mm256_setzero_si256();
        const uint8_t *qs = w + (shifted ? 32 : 16) + (fifth ? 32 : 0);
        __m256 product[6];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i sum16[6];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                __m256i q = oc_load(qs + 32 * j);
                q = _mm256_and_si256(h ? _mm256_srli_epi16(q, 4) : q, low4);
                if (fifth) {
                    const __m256i bit = h ? _mm256_srli_epi16(qh, j) : _mm256_slli_epi16(qh, 4 - j);
                    q = _mm256_or_si256(q, _mm256_and_si256(bit, bit4));
                }
                for (int i = 0; i < cols; i++) {
                    const __m256i pairs16 = _mm256_maddubs_epi16(q, oc_codes4(a[i] + 16 * h + 4 * j));
                    sum16[i] = j ? _mm256_add_epi16(sum16[i], pairs16) : pairs16;
                }
            }
            for (int i = 0; i < cols; i++) {
                const __m256 total = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum16[i], ones));
                const __m256 s = _mm256_set1_ps(scale[i * 2 * n_blocks + h]);
                product[i] = h ? _mm256_fmadd_ps(total, s, product[i]) : _mm256_mul_ps(total, s);
            }
        }
        for (int i = 0; i < cols; i++) {
            const __m256 t = _mm256_set1_ps(sum[i * n_blocks]);
            if (!shifted) product[i] = _mm256_fnmadd_ps(m, t, product[i]);
            acc[i] = _mm256_fmadd_ps(d, product[i], acc[i]);
            if (shifted) acc[i] = _mm256_fmadd_ps(m, t, acc[i]);
            a[i] += 32;
        }
        w = qs + 128;
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

#define TILE_Q4_0(w, x, c, out, ldy, cols) tile_45((const uint8_t *)(w), x, c, out, ldy, cols, 0, 0)
#define TILE_Q4_1(w, x, c, out, ldy, cols) tile_45((const uint8_t *)(w), x, c, out, ldy, cols, 1, 0)
#define TILE_Q5_0(w, x, c, out, ldy, cols) tile_45((const uint8_t *)(w), x, c, out, ldy, cols, 0, 1)
#define TILE_Q5_1(w, x, c, out, ldy, cols) tile_45((const uint8_t *)(w), x, c, out, ldy, cols, 1, 1)

/* Signed weights: their signs move to the activations. */
OC_INLINE void tile_q8_0(const oc_packed_q8_0 *w, const oc_act *x, int64_t c, float *out, int64_t ldy,
                         const int cols) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int64_t n_blocks = x->k / 32;
    const int8_t *a[6];
    const float *scale = x->scale + c * 2 * n_blocks;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n_blocks; b++, w++, scale += 2) {
        oc_prefetch(w, sizeof *w);
        const __m256 d = oc_halves(w->d);
        __m256 product[6];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i total[6];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const __m256i q = oc_load(w->qs[4 * h + j]), magnitude = _mm256_abs_epi8(q);
                for (int i = 0; i < cols; i++) {
                    const __m256i codes = _mm256_sign_epi8(oc_codes4(a[i] + 16 * h + 4 * j), q);
                    const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, codes), ones);
                    total[i] = j ? _mm256_add_epi32(total[i], fours) : fours;
                }
            }
            for (int i = 0; i < cols; i++) {
                const __m256 s = _mm256_set1_ps(scale[i * 2 * n_blocks + h]);
                const __m256 t = _mm256_cvtepi32_ps(total[i]);
                product[i] = h ? _mm256_fmadd_ps(t, s, product[i]) : _mm256_mul_ps(t, s);
            }
        }
        for (int i = 0; i < cols; i++) {
            acc[i] = _mm256_fmadd_ps(d, product[i], acc[i]);
            a[i] += 32;
        }
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

OC_DEFINE_MATMUL(q4_0, avx2, TILE_Q4_0, oc_packed_q4_0, 32, 6)
OC_DEFINE_MATMUL(q4_1, avx2, TILE_Q4_1, oc_packed_q4_1, 32, 6)
OC_DEFINE_MATMUL(q5_0, avx2, TILE_Q5_0, oc_packed_q5_0, 32, 6)
OC_DEFINE_MATMUL(q5_1, avx2, TILE_Q5_1, oc_packed_q5_1, 32, 6)
OC_DEFINE_MATMUL(q8_0, avx2, tile_q8_0, oc_packed_q8_0, 32, 6)

#include "kernels/x86/target_end.h"
