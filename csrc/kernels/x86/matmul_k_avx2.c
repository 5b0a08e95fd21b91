/* matmul_k_avx2.c - AVX2 matmul of Q4_K, Q5_K and Q6_K.
 *
 * 16 elements share a scale of activations: 4 vectors, whose products are summed in int16. The integer scale
 * of their sub-block is the second operand of the vpmaddwd that widens those sums.
 * Bounds per int16 lane (4 vpmaddubsw of 2 products, |code of an activation| <= 127):
 *   Q4_K, Q5_K: 8 * 31 * 127 = 31496 < 32768
 *   Q6_K: the sums wrap around, and that is harmless: with 32 * (sum of the activations) taken off they are
 *         |sum of 8 (q - 32) a| <= 8 * 32 * 127 = 32512 < 32768; a vpmaddubsw reaches 2 * 63 * 127.
 * int32, after the scales: Q4_K and Q5_K 31496 * 2 * 63 = 4.0e6, Q6_K 32512 * 2 * 128 = 8.3e6 < 2^24: all
 * exact in float. */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

/* 8 bytes as floats */
OC_INLINE __m256 bytes_to_floats(const uint8_t bytes[8]) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

/* Q4_K and Q5_K: a pair is scales, minima, fifth bits of both sub-blocks if `fifth`, 8 code vectors. */
OC_INLINE void tile_45(const uint8_t *w, const oc_act *x, int64_t c, float *out, int64_t ldy, const int cols,
                       const int fifth) {
    const __m256i low4 = _mm256_set1_epi8(15), bit4 = _mm256_set1_epi8(16);
    const int64_t n_blocks = x->k / 256, n_scales = x->k / 16, n_sums = x->k / 32;
    const int8_t *a[6];
    const float *scale = x->scale + c * n_scales, *sum = x->sum + c * n_sums;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n_blocks; b++) {
        const uint16_t *d = (const uint16_t *)w;
        __m256 products[6], mins[6];
        for (int i = 0; i < cols; i++) products[i] = mins[i] = _mm256_setzero_ps();
        w += 32;
        for (int p = 0; p < 4; p++) {
            const uint8_t *qs = w + 32 + (fifth ? 64 : 0);
            oc_prefetch(w, 288 + (fifth ? 64 : 0));
#pragma GCC unroll 2
            for (int s = 0; s < 2; s++, sum++) {
                const __m256i pairs = oc_scale_pairs(w + 8 * s);
                const __m256 min = bytes_to_floats(w + 16 + 8 * s);
                const __m256i qh = fifth ? oc_load(w + 32 + 32 * s) : _mm256_setzero_si256();
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++, scale++) {
                    __m256i sum16[6];
#pragma GCC unroll 4
                    for (int j = 0; j < 4; j++) {
                        __m256i q = oc_load(qs + 128 * h + 32 * j);
                        q = _mm256_and_si256(s ? _mm256_srli_epi16(q, 4) : q, low4);
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
                        const __m256 total = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum16[i], pairs));
                        const __m256 act_scale = _mm256_set1_ps(scale[i * n_scales]);
                        products[i] = _mm256_fmadd_ps(total, act_scale, products[i]);
                    }
                }
                for (int i = 0; i < cols; i++) {
                    mins[i] = _mm256_fmadd_ps(min, _mm256_set1_ps(sum[i * n_sums]), mins[i]);
                    a[i] += 32;
                }
            }
            w = qs + 256;
        }
        for (int i = 0; i < cols; i++) {
            acc[i] = _mm256_fmadd_ps(oc_halves(d), products[i], acc[i]);
            acc[i] = _mm256_fnmadd_ps(oc_halves(d + 8), mins[i], acc[i]);
        }
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

#define TILE_Q4_K(w, x, c, out, ldy, cols) tile_45((const uint8_t *)(w), x, c, out, ldy, cols, 0)
#define TILE_Q5_K(w, x, c, out, ldy, cols) tile_45((const uint8_t *)(w), x, c, out, ldy, cols, 1)

/* -32 * the sums of 16 activations each, where the products will be: in both int16 lanes of every int32
 * lane the pairs of elements that vpmaddubsw joins there; [0] for the first 16, [1] for the last. */
OC_INLINE void offsets_of_16(const int8_t *a, __m256i offset[2]) {
    __m256i t = _mm256_maddubs_epi16(_mm256_set1_epi8(32), oc_load(a));
    t = _mm256_add_epi16(t, _mm256_shuffle_epi32(t, 0x4E));
    t = _mm256_add_epi16(t, _mm256_shuffle_epi32(t, 0xB1));
    t = _mm256_sub_epi16(_mm256_setzero_si256(), t);
    offset[0] = _mm256_permute2x128_si256(t, t, 0x00);
    offset[1] = _mm256_permute2x128_si256(t, t, 0x11);
}

OC_INLINE void tile_q6_k(const oc_packed_q6_k *w, const oc_act *x, int64_t c, float *out, int64_t ldy,
                         const int cols) {
    const __m256i low4 = _mm256_set1_epi8(15), bits45 = _mm256_set1_epi8(48);
    const int64_t n_blocks = x->k / 256, n_scales = x->k / 16;
    const int8_t *a[6];
    const float *scale = x->scale + c * n_scales;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n_blocks; b++, w++) {
        __m256 products[6];
        for (int i = 0; i < cols; i++) products[i] = _mm256_setzero_ps();
        for (int p = 0; p < 4; p++) {
            const oc_packed_q6_k_pair *pair = &w->pair[p];
            oc_prefetch(pair, sizeof *pair);
#pragma GCC unroll 2
            for (int s = 0; s < 2; s++) { /* the 32 elements in the low, then in the high nibbles */
                __m256i sum16[6][2];
                for (int i = 0; i < cols; i++) offsets_of_16(a[i], sum16[i]);
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++) {
                    const __m256i qh = oc_load(pair->step[j / 2].qh);
                    const int bits = 4 * s + 2 * (j % 2); /* where the two high bits stand */
                    const __m256i high =
                        bits < 4 ? _mm256_slli_epi16(qh, 4 - bits) : _mm256_srli_epi16(qh, bits - 4);
                    __m256i q = oc_load(pair->step[j / 2].qs[j % 2]);
                    q = _mm256_and_si256(s ? _mm256_srli_epi16(q, 4) : q, low4);
                    q = _mm256_or_si256(q, _mm256_and_si256(high, bits45));
                    for (int i = 0; i < cols; i++) {
                        const __m256i pairs16 = _mm256_maddubs_epi16(q, oc_codes4(a[i] + 4 * j));
                        sum16[i][j / 4] = _mm256_add_epi16(sum16[i][j / 4], pairs16);
                    }
                }
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++, scale++) {
                    const __m256i pairs = oc_signed_scale_pairs(pair->scale[2 * s + h]);
                    for (int i = 0; i < cols; i++) {
                        const __m256 total = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum16[i][h], pairs));
                        const __m256 act_scale = _mm256_set1_ps(scale[i * n_scales]);
                        products[i] = _mm256_fmadd_ps(total, act_scale, products[i]);
                    }
                }
                for (int i = 0; i < cols; i++) a[i] += 32;
            }
        }
        for (int i = 0; i < cols; i++) acc[i] = _mm256_fmadd_ps(oc_halves(w->d), products[i], acc[i]);
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

OC_DEFINE_MATMUL(q4_k, avx2, TILE_Q4_K, oc_packed_q4_k, 256, 6)
OC_DEFINE_MATMUL(q5_k, avx2, TILE_Q5_K, oc_packed_q5_k, 256, 6)
OC_DEFINE_MATMUL(q6_k, avx2, tile_q6_k, oc_packed_q6_k, 256, 6)

#include "kernels/x86/target_end.h"
