/* matmul_k_avx512vnni.c - AVX-512 VNNI matmul of Q4_K, Q5_K and Q6_K. The int32 sum of 16 products meets
 * its integer scale as a float: the product stays below 2^24 (see matmul_k.inc), so it is exact, and
 * the results are those of AVX2. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/panel_avx512.h"

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

/* The codes are 32 more than the weights: 32 * (sum of the activations) is taken off beforehand. */
OC_INLINE void tile_q6_k(const oc_packed_q6_k *w0, const oc_packed_q6_k *w1, const oc_act *x, int64_t c,
                         float *out, int64_t ldy, const int cols, const int pair) {
    const __m512i low4 = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(48);
    const int64_t n_blocks = x->k / 256, n_scales = x->k / 16;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * n_scales;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, w0++, w1++) {
        __m512 products[8];
        int32_t offset[8][16];
        for (int i = 0; i < cols; i++) {
            oc_offsets_of_16(a + i * x->k, 5, offset[i]);
            products[i] = _mm512_setzero_ps();
        }
        for (int p = 0; p < 4; p++) {
            const oc_packed_q6_k_pair *p0 = &w0->pair[p], *p1 = &w1->pair[p];
            oc_prefetch(p0, sizeof *p0);
            oc_prefetch(p1, sizeof *p1);
#pragma GCC unroll 4
            for (int part = 0; part < 4; part++, a += 16, scale++) { /* 16 elements each */
                const int high_nibbles = part / 2, h = part % 2; /* the first 32 are in the low ones */
                const __m512 weight_scale = oc_signed_to_floats2(p0->scale[part], p1->scale[part]);
                __m512i total[8];
                for (int i = 0; i < cols; i++) total[i] = _mm512_set1_epi32(offset[i][4 * p + part]);
#pragma GCC unroll 4
                for (int j = 4 * h; j < 4 * h + 4; j++) {
                    const int bits = 4 * high_nibbles + 2 * (j % 2); /* where the two high bits stand */
                    const __m512i qh = oc_load2(p0->step[j / 2].qh, p1->step[j / 2].qh);
                    const __m512i high =
                        bits < 4 ? _mm512_slli_epi16(qh, 4 - bits) : _mm512_srli_epi16(qh, bits - 4);
                    __m512i q = oc_load2(p0->step[j / 2].qs[j % 2], p1->step[j / 2].qs[j % 2]);
                    q = _mm512_and_si512(high_nibbles ? _mm512_srli_epi16(q, 4) : q, low4);
                    q = _mm512_ternarylogic_epi32(high, bits45, q, 0xEA); /* high & 48 | q */
                    for (int i = 0; i < cols; i++) {
                        const int8_t *codes = a + i * x->k + 4 * (j % 4);
                        total[i] = _mm512_dpbusd_epi32(total[i], q, oc_codes4_wide(codes));
                    }
                }
                for (int i = 0; i < cols; i++) {
                    const __m512 act_scale = _mm512_set1_ps(scale[i * n_scales]);
                    const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total[i]), weight_scale);
                    products[i] = _mm512_fmadd_ps(product, act_scale, products[i]);
                }
            }
        }
        const __m512 d = oc_halves2(w0->d, w1->d);
        for (int i = 0; i < cols; i++) acc[i] = _mm512_fmadd_ps(d, products[i], acc[i]);
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

/* ---- panels ---- */

OC_INLINE void unpack_45(const uint8_t *w0, const uint8_t *w1, oc_panel *panel, const int fifth) {
    const __m512i low4 = _mm512_set1_epi8(15), bit4 = _mm512_set1_epi8(16);
    const int qs_at = fifth ? 96 : 32, size = qs_at + 256;
    panel->d = oc_halves2((const uint16_t *)w0, (const uint16_t *)w1);
    panel->dmin = oc_halves2((const uint16_t *)w0 + 8, (const uint16_t *)w1 + 8);
    w0 += 32, w1 += 32;
    for (int p = 0; p < 4; p++, w0 += size, w1 += size) {
        oc_prefetch(w0, size);
        oc_prefetch(w1, size);
#pragma GCC unroll 2
        for (int s = 0; s < 2; s++) {
            const int part = 4 * p + 2 * s;
            panel->scale[part] = panel->scale[part + 1] = unsigned_to_floats(w0 + 8 * s, w1 + 8 * s);
            panel->min[2 * p + s] = unsigned_to_floats(w0 + 16 + 8 * s, w1 + 16 + 8 * s);
            const __m512i qh = fifth ? oc_load2(w0 + 32 + 32 * s, w1 + 32 + 32 * s) : _mm512_setzero_si512();
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                __m512i q = oc_load2(w0 + qs_at + 32 * j, w1 + qs_at + 32 * j);
                q = _mm512_and_si512(s ? _mm512_srli_epi16(q, 4) : q, low4);
                if (fifth) {
                    const __m512i bit = j < 4 ? _mm512_slli_epi16(qh, 4 - j) : _mm512_srli_epi16(qh, j - 4);
                    q = _mm512_ternarylogic_epi32(bit, bit4, q, 0xEA);
                }
                panel->codes[part + j / 4][j % 4] = q;
            }
        }
    }
}

static void unpack_q4_k(const void *w0, const void *w1, oc_panel *panel) { unpack_45(w0, w1, panel, 0); }
static void unpack_q5_k(const void *w0, const void *w1, oc_panel *panel) { unpack_45(w0, w1, panel, 1); }

static void unpack_q6_k(const void *block0, const void *block1, oc_panel *panel) {
    const __m512i low4 = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(48);
    const oc_packed_q6_k *w0 = block0, *w1 = block1;
    panel->d = oc_halves2(w0->d, w1->d);
    for (int p = 0; p < 4; p++) {
        const oc_packed_q6_k_pair *p0 = &w0->pair[p], *p1 = &w1->pair[p];
        oc_prefetch(p0, sizeof *p0);
        oc_prefetch(p1, sizeof *p1);
        for (int part = 0; part < 4; part++)
            panel->scale[4 * p + part] = oc_signed_to_floats2(p0->scale[part], p1->scale[part]);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const int bits = 2 * (j % 2);
            const __m512i qh = oc_load2(p0->step[j / 2].qh, p1->step[j / 2].qh);
            const __m512i qs = oc_load2(p0->step[j / 2].qs[j % 2], p1->step[j / 2].qs[j % 2]);
            const __m512i low = _mm512_ternarylogic_epi32(_mm512_slli_epi16(qh, 4 - bits), bits45,
                                                          _mm512_and_si512(qs, low4), 0xEA);
            const __m512i high =
                _mm512_ternarylogic_epi32(_mm512_srli_epi16(qh, bits), bits45,
                                          _mm512_and_si512(_mm512_srli_epi16(qs, 4), low4), 0xEA);
            panel->codes[4 * p + j / 4][j % 4] = _mm512_sub_epi8(low, _mm512_set1_epi8(32));
            panel->codes[4 * p + 2 + j / 4][j % 4] = _mm512_sub_epi8(high, _mm512_set1_epi8(32));
        }
    }
}

OC_DEFINE_MATMUL_PANELS(q4_k, TILE_Q4_K, oc_packed_q4_k, unpack_q4_k, OC_PANEL_MINS_OF_32)
OC_DEFINE_MATMUL_PANELS(q5_k, TILE_Q5_K, oc_packed_q5_k, unpack_q5_k, OC_PANEL_MINS_OF_32)
OC_DEFINE_MATMUL_PANELS(q6_k, tile_q6_k, oc_packed_q6_k, unpack_q6_k, OC_PANEL_NO_MINS)

#include "kernels/x86/target_end.h"
