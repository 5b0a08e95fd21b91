/* matmul_k23_avx512vnni.c - AVX-512 VNNI matmul of Q2_K and Q3_K. vpdpbusd sums straight into int32; the
 * integer scales are multiplied as floats, exactly (see matmul_k23.inc), so the results are those of
 * AVX2. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/panel_avx512.h"

/* A block is scales, minima unless `q3`, then 8 parts: integer scales, third bits if `q3`, 2 code vectors. */
OC_INLINE void tile_23(const uint8_t *w0, const uint8_t *w1, const oc_act *x, int64_t c, float *out,
                       int64_t ldy, const int cols, const int pair, const int q3) {
    const __m512i low2 = _mm512_set1_epi8(3), bit2 = _mm512_set1_epi8(4), low4 = _mm512_set1_epi32(15);
    const int64_t n_scales = x->k / 16;
    const int head = q3 ? 16 : 32, qs_at = q3 ? 48 : 16, size = qs_at + 64;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * n_scales;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < x->k / 256; b++) {
        const uint16_t *d0 = (const uint16_t *)w0, *d1 = (const uint16_t *)w1;
        __m512 products[8], mins[8];
        float sum[8][16];      /* of 16 activations (Q2_K) */
        int32_t offset[8][16]; /* -4 * (sum of 16 codes) (Q3_K) */
        for (int i = 0; i < cols; i++) {
            __m256i t[2];
            oc_sums_of_16(a + i * x->k, t);
            for (int h = 0; h < 2; h++) {
                const __m256i four = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(t[h], 2));
                const __m256 s = _mm256_loadu_ps(scale + i * n_scales + 8 * h);
                if (q3) _mm256_storeu_si256((__m256i *)(offset[i] + 8 * h), four);
                if (!q3) _mm256_storeu_ps(sum[i] + 8 * h, _mm256_mul_ps(_mm256_cvtepi32_ps(t[h]), s));
            }
            products[i] = mins[i] = _mm512_setzero_ps();
        }
        w0 += head, w1 += head;
        for (int p = 0; p < 8; p++, w0 += size, w1 += size, a += 32) {
            const __m512i qh = q3 ? oc_load2(w0 + 16, w1 + 16) : _mm512_setzero_si512();
            oc_prefetch(w0, size);
            oc_prefetch(w1, size);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++, scale++) {
                const __m512i bytes = oc_load2(w0 + qs_at + 32 * h, w1 + qs_at + 32 * h);
                const __m512i both = _mm512_cvtepu8_epi32(oc_bytes2(w0 + 8 * h, w1 + 8 * h));
                const __m512 weight_scale = q3 ? oc_signed_to_floats2(w0 + 8 * h, w1 + 8 * h)
                                               : _mm512_cvtepi32_ps(_mm512_and_si512(both, low4));
                __m512i total[8];
                for (int i = 0; i < cols; i++)
                    total[i] = q3 ? _mm512_set1_epi32(offset[i][2 * p + h]) : _mm512_setzero_si512();
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    const int at = 4 * h + j - 2; /* how far the third bit is from its place */
                    __m512i q = _mm512_and_si512(_mm512_srli_epi16(bytes, 2 * j), low2);
                    if (q3) { /* bit & 4 | q */
                        const __m512i bit = at < 0 ? _mm512_slli_epi16(qh, -at) : _mm512_srli_epi16(qh, at);
                        q = _mm512_ternarylogic_epi32(bit, bit2, q, 0xEA);
                    }
                    for (int i = 0; i < cols; i++) {
                        const __m512i codes = oc_codes4_wide(a + i * x->k + 16 * h + 4 * j);
                        total[i] = _mm512_dpbusd_epi32(total[i], q, codes);
                    }
                }
                for (int i = 0; i < cols; i++) {
                    const __m512 act_scale = _mm512_set1_ps(scale[i * n_scales]);
                    const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total[i]), weight_scale);
                    products[i] = _mm512_fmadd_ps(product, act_scale, products[i]);
                }
                if (!q3) {
                    const __m512 min = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
                    for (int i = 0; i < cols; i++)
                        mins[i] = _mm512_fmadd_ps(min, _mm512_set1_ps(sum[i][2 * p + h]), mins[i]);
                }
            }
        }
        for (int i = 0; i < cols; i++) {
            acc[i] = _mm512_fmadd_ps(oc_halves2(d0, d1), products[i], acc[i]);
            if (!q3) acc[i] = _mm512_fnmadd_ps(oc_halves2(d0 + 8, d1 + 8), mins[i], acc[i]);
        }
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

#define BYTES(w) (const uint8_t *)(w)
#define TILE_Q2_K(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_23(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 0)
#define TILE_Q3_K(w0, w1, x, c, y, ldy, cols, pair)                                                          \
    tile_23(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 1)

OC_INLINE void unpack_23(const uint8_t *w0, const uint8_t *w1, oc_panel *panel, const int q3) {
    const __m512i low2 = _mm512_set1_epi8(3), bit2 = _mm512_set1_epi8(4), low4 = _mm512_set1_epi32(15);
    const int head = q3 ? 16 : 32, qs_at = q3 ? 48 : 16, size = qs_at + 64;
    panel->d = oc_halves2((const uint16_t *)w0, (const uint16_t *)w1);
    if (!q3) panel->dmin = oc_halves2((const uint16_t *)w0 + 8, (const uint16_t *)w1 + 8);
    w0 += head, w1 += head;
    for (int p = 0; p < 8; p++, w0 += size, w1 += size) {
        const __m512i qh = q3 ? oc_load2(w0 + 16, w1 + 16) : _mm512_setzero_si512();
        oc_prefetch(w0, size);
        oc_prefetch(w1, size);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int part = 2 * p + h;
            const __m512i bytes = oc_load2(w0 + qs_at + 32 * h, w1 + qs_at + 32 * h);
            const __m512i both = _mm512_cvtepu8_epi32(oc_bytes2(w0 + 8 * h, w1 + 8 * h));
            panel->scale[part] = q3 ? oc_signed_to_floats2(w0 + 8 * h, w1 + 8 * h)
                                    : _mm512_cvtepi32_ps(_mm512_and_si512(both, low4));
            if (!q3) panel->min[part] = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const int at = 4 * h + j - 2;
                __m512i q = _mm512_and_si512(_mm512_srli_epi16(bytes, 2 * j), low2);
                if (q3) {
                    const __m512i bit = at < 0 ? _mm512_slli_epi16(qh, -at) : _mm512_srli_epi16(qh, at);
                    q = _mm512_sub_epi8(_mm512_ternarylogic_epi32(bit, bit2, q, 0xEA), bit2);
                }
                panel->codes[part][j] = q;
            }
        }
    }
}

static void unpack_q2_k(const void *w0, const void *w1, oc_panel *panel) { unpack_23(w0, w1, panel, 0); }
static void unpack_q3_k(const void *w0, const void *w1, oc_panel *panel) { unpack_23(w0, w1, panel, 1); }

OC_DEFINE_MATMUL_PANELS(q2_k, TILE_Q2_K, oc_packed_q2_k, unpack_q2_k, OC_PANEL_MINS_OF_16)
OC_DEFINE_MATMUL_PANELS(q3_k, TILE_Q3_K, oc_packed_q3_k, unpack_q3_k, OC_PANEL_NO_MINS)

#include "kernels/x86/target_end.h"
