/* matmul_k_avx512vnni.c - AVX-512 VNNI matmul of Q4_K, Q5_K and Q6_K. The int32 sum of 16 products meets
 * its integer scale as a float: the product stays below 2^24 (see matmul_k.inc), so it is exact, and
 * the results are those of AVX2. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/matmul_avx512.h"

OC_INLINE __m512 unsigned_to_floats(const uint8_t *p0, const uint8_t *p1) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(oc_bytes2(p0, p1)));
}

/* Q4_K and Q5_K: a pair of sub-blocks is scales, minima, fifth bits if `fifth`, 8 code vectors. */
OC_INLINE void tile_45(const uint8_t *w0, const uint8_t *w1, const oc_act *x, int64_t c, float *out,
                       int64_t ldy, const int cols, const int pair, const int fifth) {
    const __m512i low4 = _mm512_set1_epi8(15), bit4 = _mm512_set1_epi8(16);
    const int64_t n_blocks = x->k / 256, n_scales = x->k / 16, n_sums = x->k / 32;
    const int qs_at = fifth ? 96 : 32, size = qs_at + 256;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * n_scales, *sum = x->sum + c * n_sums;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++) {
        const uint16_t *d0 = (const uint16_t *)w0, *d1 = (const uint16_t *)w1;
        __m512 products[8], mins[8];
        for (int i = 0; i < cols; i++) products[i] = mins[i] = _mm512_setzero_ps();
        w0 += 32, w1 += 32;
        for (int p = 0; p < 4; p++, w0 += size, w1 += size) {
            oc_prefetch(w0, size);
            oc_prefetch(w1, size);
#pragma GCC unroll 2
            for (int s = 0; s < 2; s++, a += 32, sum++) {
                const __m512 weight_scale = unsigned_to_floats(w0 + 8 * s, w1 + 8 * s);
                const __m512 min = unsigned_to_floats(w0 + 16 + 8 * s, w1 + 16 + 8 * s);
                const __m512i qh =
                    fifth ? oc_load2(w0 + 32 + 32 * s, w1 + 32 + 32 * s) : _mm512_setzero_si512();
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++, scale++) {
                    const int qs = qs_at + 128 * h;
                    __m512i total[8];
                    for (int i = 0; i < cols; i++) total[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
                    for (int j = 0; j < 4; j++) {
                        const int8_t *codes = a + 16 * h + 4 * j;
                        __m512i q = oc_load2(w0 + qs + 32 * j, w1 + qs + 32 * j);
                        q = _mm512_and_si512(s ? _mm512_srli_epi16(q, 4) : q, low4);
                        if (fifth) { /* bit & 16 | q */
                            const __m512i bit = h ? _mm512_srli_epi16(qh, j) : _mm512_slli_epi16(qh, 4 - j);
                            q = _mm512_ternarylogic_epi32(bit, bit4, q, 0xEA);
                        }
                        for (int i = 0; i < cols; i++)
                            total[i] = _mm512_dpbusd_epi32(total[i], q, oc_codes4_wide(codes + i * x->k));
                    }
                    for (int i = 0; i < cols; i++) {
                        const __m512 act_scale = _mm512_set1_ps(scale[i * n_scales]);
                        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total[i]), weight_scale);
                        products[i] = _mm512_fmadd_ps(product, act_scale, products[i]);
                    }
                }
                for (int i = 0; i < cols; i++)
                    mins[i] = _mm512_fmadd_ps(min, _mm512_set1_ps(sum[i * n_sums]), mins[i]);
            }
        }
        const __m512 d = oc_halves2(d0, d1), dmin = oc_halves2(d0 + 8, d1 + 8);
        for (int i = 0; i < cols; i++) {
            acc[i] = _mm512_fmadd_ps(d, products[i], acc[i]);
            acc[i] = _mm512_fnmadd_ps(dmin, mins[i], acc[i]);
        }
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

#define BYTES(w) (const uint8_t *)(w)
#define TILE_Q4_K(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_45(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 0)
#define TILE_Q5_K(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_45(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 1)

/* The codes become signed (q - 32) and the activations unsigned, 128 more than they are; 128 * (sum of the
 * weights) of each half, the same for all columns, is taken off beforehand. */
OC_INLINE void tile_q6_k(const oc_packed_q6_k *w0, const oc_packed_q6_k *w1, const oc_act *x, int64_t c,
                         float *out, int64_t ldy, const int cols, const int pair) {
    const __m512i low4 = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(48), top = _mm512_set1_epi8(-128);
    const int64_t n_blocks = x->k / 256, n_scales = x->k / 16;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * n_scales;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, w0++, w1++) {
        __m512 products[8];
        for (int i = 0; i < cols; i++) products[i] = _mm512_setzero_ps();
        for (int p = 0; p < 4; p++) {
            const oc_packed_q6_k_pair *p0 = &w0->pair[p], *p1 = &w1->pair[p];
            oc_prefetch(p0, sizeof *p0);
            oc_prefetch(p1, sizeof *p1);
#pragma GCC unroll 2
            for (int s = 0; s < 2; s++, a += 32, scale += 2) { /* the low, then the high nibbles */
                const __m512 weight_scale[2] = {
                    oc_signed_to_floats2(p0->scale[2 * s], p1->scale[2 * s]),
                    oc_signed_to_floats2(p0->scale[2 * s + 1], p1->scale[2 * s + 1])};
                __m512i q[8], offset[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++) {
                    const int bits = 4 * s + 2 * (j % 2); /* where the two high bits stand */
                    const __m512i qh = oc_load2(p0->step[j / 2].qh, p1->step[j / 2].qh);
                    const __m512i high =
                        bits < 4 ? _mm512_slli_epi16(qh, 4 - bits) : _mm512_srli_epi16(qh, bits - 4);
                    q[j] = oc_load2(p0->step[j / 2].qs[j % 2], p1->step[j / 2].qs[j % 2]);
                    q[j] = _mm512_and_si512(s ? _mm512_srli_epi16(q[j], 4) : q[j], low4);
                    q[j] = _mm512_ternarylogic_epi32(high, bits45, q[j], 0xEA); /* high & 48 | q */
                    q[j] = _mm512_sub_epi8(q[j], _mm512_set1_epi8(32));
                    offset[j / 4] = _mm512_dpbusd_epi32(offset[j / 4], top, q[j]);
                }
                for (int i = 0; i < cols; i++) {
                    __m512i total[2];
                    for (int h = 0; h < 2; h++)
                        total[h] = _mm512_sub_epi32(_mm512_setzero_si512(), offset[h]);
#pragma GCC unroll 8
                    for (int j = 0; j < 8; j++) {
                        const __m512i codes = _mm512_xor_si512(oc_codes4_wide(a + i * x->k + 4 * j), top);
                        total[j / 4] = _mm512_dpbusd_epi32(total[j / 4], codes, q[j]);
                    }
                    for (int h = 0; h < 2; h++) {
                        const __m512 act_scale = _mm512_set1_ps(scale[i * n_scales + h]);
                        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total[h]), weight_scale[h]);
                        products[i] = _mm512_fmadd_ps(product, act_scale, products[i]);
                    }
                }
            }
        }
        const __m512 d = oc_halves2(w0->d, w1->d);
        for (int i = 0; i < cols; i++) acc[i] = _mm512_fmadd_ps(d, products[i], acc[i]);
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

OC_DEFINE_MATMUL_PAIRS(q4_k, TILE_Q4_K, oc_packed_q4_k, 256, 8)
OC_DEFINE_MATMUL_PAIRS(q5_k, TILE_Q5_K, oc_packed_q5_k, 256, 8)
OC_DEFINE_MATMUL_PAIRS(q6_k, tile_q6_k, oc_packed_q6_k, 256, 8)

#include "kernels/x86/target_end.h"
