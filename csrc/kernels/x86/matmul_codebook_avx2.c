/* matmul_codebook_avx2.c - AVX2 matmul of the codebook formats: IQ4_NL, MXFP4, and with blocks of 256 those
 * of OC_BOOKS.
 *
 * vpshufb turns 4-bit codes into signed values, whose signs move to the activations. A vpmaddubsw leaves
 * 2 products in an int16 lane, and as many of them are added there as the largest value v allows:
 *   v <= 32:   4, the whole half of 16 elements, 8 * 32 * 127 = 32512 < 32768
 *   v <= 64:   2, 4 * 64 * 127 = 32512
 *   v <= 127:  1, 2 * 127 * 127 = 32258
 * The vpmaddwd that widens them multiplies by the integer scale of the sub-block, if there is one. In all,
 * |sum of 16 products * scale| <= 16 * 127 * 127 * 32 = 8.3e6 < 2^24: exact in int32 and in float. */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

/* How many results of vpmaddubsw may be added in int16 */
#define JOINED(largest) ((largest) <= 32 ? 4 : (largest) <= 64 ? 2 : 1)

OC_INLINE __m256i load_book(const int8_t values[16]) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)values));
}

/* total[i] = `factor` times the dot products of half h, the 16 elements in the low or the high nibbles of 4
 * code vectors, with a[i]. */
OC_INLINE void dot_half(const uint8_t *qs, const int h, const __m256i book, const int joined, __m256i factor,
                        const int8_t *const a[6], const int cols, __m256i total[6]) {
    __m256i sum16[6];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i q = oc_load(qs + 32 * j);
        q = _mm256_and_si256(h ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(15));
        q = _mm256_shuffle_epi8(book, q);
        const __m256i magnitude = _mm256_abs_epi8(q);
        for (int i = 0; i < cols; i++) {
            const __m256i codes = _mm256_sign_epi8(oc_codes4(a[i] + 16 * h + 4 * j), q);
            const __m256i pairs16 = _mm256_maddubs_epi16(magnitude, codes);
            sum16[i] = j % joined ? _mm256_add_epi16(sum16[i], pairs16) : pairs16;
            if (j % joined < joined - 1) continue;
            const __m256i wide = _mm256_madd_epi16(sum16[i], factor);
            total[i] = j < joined ? wide : _mm256_add_epi32(total[i], wide);
        }
    }
}

/* 8 scales of MXFP4: as oc_mxfp4_scale_bits */
OC_INLINE __m256 mxfp4_scales(const uint8_t e[8]) {
    const __m256i exponent = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)e));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(exponent, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), exponent);
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponent);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

/* IQ4_NL and MXFP4: scales, then 4 code vectors. */
OC_INLINE void tile_32(const uint8_t *w, const oc_act *x, int64_t c, float *out, int64_t ldy, const int cols,
                       const int mxfp4) {
    const __m256i book = load_book(mxfp4 ? oc_book_mxfp4 : oc_book_iq4), ones = _mm256_set1_epi16(1);
    const int64_t n_blocks = x->k / 32;
    const int8_t *a[6];
    const float *scale = x->scale + c * 2 * n_blocks;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n_blocks; b++, scale += 2) {
        oc_prefetch(w, mxfp4 ? 136 : 144);
        const __m256 d = mxfp4 ? mxfp4_scales(w) : oc_halves((const uint16_t *)w);
        w += mxfp4 ? 8 : 16;
        __m256 product[6];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i total[6];
            dot_half(w, h, book, mxfp4 ? JOINED(12) : JOINED(127), ones, a, cols, total);
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
        w += 128;
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

#define TILE_IQ4_NL(w, x, c, out, ldy, cols) tile_32((const uint8_t *)(w), x, c, out, ldy, cols, 0)
#define TILE_MXFP4(w, x, c, out, ldy, cols) tile_32((const uint8_t *)(w), x, c, out, ldy, cols, 1)

/* Formats of OC_BOOKS: scales of the block, then in each of 8 parts `n_scales` integer scales and 4 code
 * vectors. */
OC_INLINE void tile_256(const uint8_t *w, const oc_act *x, int64_t c, float *out, int64_t ldy, const int cols,
                        const int n_scales, const int8_t values[16], const int largest, const float unit) {
    const __m256i book = load_book(values);
    const int64_t n_act_scales = x->k / 16;
    const int8_t *a[6];
    const float *scale = x->scale + c * n_act_scales;
    __m256 acc[6];
    for (int i = 0; i < cols; i++) {
        a[i] = x->codes + (c + i) * x->k;
        acc[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < x->k / 256; b++) {
        const __m256 d = _mm256_mul_ps(oc_halves((const uint16_t *)w), _mm256_set1_ps(unit));
        __m256 products[6];
        for (int i = 0; i < cols; i++) products[i] = _mm256_setzero_ps();
        w += 16;
        for (int p = 0; p < 8; p++) {
            const uint8_t *qs = w + 8 * n_scales;
            oc_prefetch(w, 128 + 8 * n_scales);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++, scale++) {
                const __m256i pairs = oc_signed_scale_pairs((const int8_t *)w + 8 * (h % n_scales));
                __m256i total[6];
                dot_half(qs, h, book, JOINED(largest), pairs, a, cols, total);
                for (int i = 0; i < cols; i++) {
                    const __m256 s = _mm256_set1_ps(scale[i * n_act_scales]);
                    const __m256 t = _mm256_cvtepi32_ps(total[i]);
                    products[i] = _mm256_fmadd_ps(t, s, products[i]);
                }
            }
            for (int i = 0; i < cols; i++) a[i] += 32;
            w = qs + 128;
        }
        for (int i = 0; i < cols; i++) acc[i] = _mm256_fmadd_ps(d, products[i], acc[i]);
    }
    for (int i = 0; i < cols; i++) _mm256_storeu_ps(out + i * ldy, acc[i]);
}

#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    OC_INLINE void tile_##suffix(const packed *w, const oc_act *x, int64_t c, float *out, int64_t ldy,       \
                                 const int cols) {                                                           \
        const int n_scales = sizeof w->part->scale / 8;                                                      \
        tile_256((const uint8_t *)w, x, c, out, ldy, cols, n_scales, values, largest, unit);                 \
    }                                                                                                        \
    OC_DEFINE_MATMUL(suffix, avx2, tile_##suffix, packed, 256, 6)
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

OC_DEFINE_MATMUL(iq4_nl, avx2, TILE_IQ4_NL, oc_packed_iq4_nl, 32, 6)
OC_DEFINE_MATMUL(mxfp4, avx2, TILE_MXFP4, oc_packed_mxfp4, 32, 6)

#include "kernels/x86/target_end.h"
