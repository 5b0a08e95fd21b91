/* matmul_k23_avx2.c - AVX2 matmul of Q2_K and Q3_K, as those of matmul_k_avx2.c: unsigned codes, 16 elements
 * summed in int16, integer scales in the vpmaddwd that widens. Minima and the offset of 4 are for 16
 * weights; the sums of 16 activations are worked out once per block and column.
 * Bounds per int16 lane (4 vpmaddubsw of 2 products, |code of an activation| <= 127):
 *   Q2_K: 8 * 3 * 127 = 3048
 *   Q3_K: 8 * 7 * 127 = 7112, and -4 * (sum of 16 activations) >= -8128 in every second lane
 * int32, after the scales: Q2_K 16 * 3 * 127 * 15 = 91440, Q3_K 16 * 4 * 127 * 32 = 260096: exact in
 * float. */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

/* A block is scales, minima unless `q3`, then 8 parts: integer scales, third bits if `q3`, 2 code vectors. */
OC_INLINE void tile_23(const uint8_t *w, const oc_act *x, int64_t c, float *out, int64_t ldy, const int cols,
                       const int q3) {
    const __m256i low2 = _mm256_set1_epi8(3), bit2 = _mm256_set1_epi8(4);
    const int64_t n_scales = x->k / 16;
    const int8_t *a[6];
    const float *scale = x->scale + c * n_scales;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < x->k / 256; b++) {
        const uint16_t *d = (const uint16_t *)w;
        __m256 products[6], mins[6];
        float sum[6][16];      /* of 16 activations (Q2_K) */
        int32_t offset[6][16]; /* -4 * (sum of 16 codes) in the first int16 lane of two (Q3_K) */
        for (int i = 0; i < cols; i++) {
            __m256i t[2];
            oc_sums_of_16(a[i], t);
            for (int h = 0; h < 2; h++) {
                const __m256i four = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(t[h], 2));
                const __m256i lane = _mm256_and_si256(four, _mm256_set1_epi32(0xFFFF));
                const __m256 s = _mm256_loadu_ps(scale + i * n_scales + 8 * h);
                if (q3) _mm256_storeu_si256((__m256i *)(offset[i] + 8 * h), lane);
                if (!q3) _mm256_storeu_ps(sum[i] + 8 * h, _mm256_mul_ps(_mm256_cvtepi32_ps(t[h]), s));
            }
            products[i] = mins[i] = _mm256_setzero_ps();
        }
        w += q3 ? 16 : 32;
        for (int p = 0; p < 8; p++) {
            const uint8_t *qs = w + (q3 ? 48 : 16);
            const __m256i qh = q3 ? oc_load(w + 16) : _mm256_setzero_si256();
            oc_prefetch(w, q3 ? 112 : 80);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++, scale++) {
                const __m256i bytes = oc_load(qs + 32 * h);
                const __m256i pairs = q3 ? oc_signed_scale_pairs((const int8_t *)w + 8 * h)
                                         : _mm256_and_si256(oc_scale_pairs(w + 8 * h), _mm256_set1_epi8(15));
                __m256i sum16[6];
                for (int i = 0; i < cols; i++)
                    sum16[i] = q3 ? _mm256_set1_epi32(offset[i][2 * p + h]) : _mm256_setzero_si256();
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    const int at = 4 * h + j - 2; /* how far the third bit is from its place */
                    __m256i q = _mm256_and_si256(_mm256_srli_epi16(bytes, 2 * j), low2);
                    if (q3) {
                        const __m256i bit = at < 0 ? _mm256_slli_epi16(qh, -at) : _mm256_srli_epi16(qh, at);
                        q = _mm256_or_si256(q, _mm256_and_si256(bit, bit2));
                    }
                    for (int i = 0; i < cols; i++) {
                        const __m256i pairs16 = _mm256_maddubs_epi16(q, oc_codes4(a[i] + 16 * h + 4 * j));
                        sum16[i] = _mm256_add_epi16(sum16[i], pairs16);
                    }
                }
                for (int i = 0; i < cols; i++) {
                    const __m256 total = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum16[i], pairs));
                    products[i] = _mm256_fmadd_ps(total, _mm256_set1_ps(scale[i * n_scales]), products[i]);
                }
                if (!q3) {
                    const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(w + 8 * h)));
                    const __m256 min = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
                    for (int i = 0; i < cols; i++)
                        mins[i] = _mm256_fmadd_ps(min, _mm256_set1_ps(sum[i][2 * p + h]), mins[i]);
                }
            }
            for (int i = 0; i < cols; i++) a[i] += 32;
            w = qs + 64;
        }
        for (int i = 0; i < cols; i++) {
            acc[i] = _mm256_fmadd_ps(oc_halves(d), products[i], acc[i]);
            if (!q3) acc[i] = _mm256_fnmadd_ps(oc_halves(d + 8), mins[i], acc[i]);
        }
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

#define TILE_Q2_K(w, x, c, out, ldy, cols) tile_23((const uint8_t *)(w), x, c, out, ldy, cols, 0)
#define TILE_Q3_K(w, x, c, out, ldy, cols) tile_23((const uint8_t *)(w), x, c, out, ldy, cols, 1)

OC_DEFINE_MATMUL(q2_k, avx2, TILE_Q2_K, oc_packed_q2_k, 256, 6)
OC_DEFINE_MATMUL(q3_k, avx2, TILE_Q3_K, oc_packed_q3_k, 256, 6)

#include "kernels/x86/target_end.h"
