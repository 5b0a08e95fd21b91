/* matmul_codebook_avx512vnni.c - AVX-512 VNNI matmul of the codebook formats: IQ4_NL, MXFP4, and with blocks
 * of 256 those of OC_BOOKS. vpdpbusd sums straight into int32; integer scales are multiplied as floats,
 * exactly (see matmul_codebook.inc), so the results are those of AVX2. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/panel_avx512.h"

OC_INLINE __m512i load_book(const int8_t values[16]) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)values));
}

/* total[i] = the dot products of half h, the 16 elements in the low or the high nibbles of 4 code vectors,
 * with column i of a. The activations become the unsigned operand, 128 more than they are; 128 * (sum of
 * the values), the same for all columns, is taken off beforehand. */
OC_INLINE void dot_half(const uint8_t *qs0, const uint8_t *qs1, const int h, const __m512i book,
                        const int8_t *a, int64_t k, const int cols, __m512i total[8]) {
    const __m512i low4 = _mm512_set1_epi8(15), top = _mm512_set1_epi8(-128);
    __m512i q[4], offset = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        q[j] = oc_load2(qs0 + 32 * j, qs1 + 32 * j);
        q[j] = _mm512_and_si512(h ? _mm512_srli_epi16(q[j], 4) : q[j], low4);
        q[j] = _mm512_shuffle_epi8(book, q[j]);
        offset = _mm512_dpbusd_epi32(offset, top, q[j]);
    }
    for (int i = 0; i < cols; i++) total[i] = _mm512_sub_epi32(_mm512_setzero_si512(), offset);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < cols; i++) {
            const __m512i codes = _mm512_xor_si512(oc_codes4_wide(a + i * k + 16 * h + 4 * j), top);
            total[i] = _mm512_dpbusd_epi32(total[i], codes, q[j]);
        }
}

/* 8 scales of MXFP4 of each group: as oc_mxfp4_scale_bits */
OC_INLINE __m512 mxfp4_scales(const uint8_t *e0, const uint8_t *e1) {
    const __m512i exponent = _mm512_cvtepu8_epi32(oc_bytes2(e0, e1));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(exponent, _mm512_set1_epi32(1)), 23);
    const __mmask16 is_small = _mm512_cmplt_epi32_mask(exponent, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(
        _mm512_mask_sllv_epi32(normal, is_small, _mm512_set1_epi32(0x00200000), exponent));
}

/* IQ4_NL and MXFP4: scales, then 4 code vectors. */
OC_INLINE void tile_32(const uint8_t *w0, const uint8_t *w1, const oc_act *x, int64_t c, float *out,
                       int64_t ldy, const int cols, const int pair, const int mxfp4) {
    const __m512i book = load_book(mxfp4 ? oc_book_mxfp4 : oc_book_iq4);
    const int64_t n_blocks = x->k / 32;
    const int qs_at = mxfp4 ? 8 : 16, size = qs_at + 128;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * 2 * n_blocks;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, w0 += size, w1 += size, a += 32, scale += 2) {
        oc_prefetch(w0, size);
        oc_prefetch(w1, size);
        const __m512 d =
            mxfp4 ? mxfp4_scales(w0, w1) : oc_halves2((const uint16_t *)w0, (const uint16_t *)w1);
        __m512 product[8];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512i total[8];
            dot_half(w0 + qs_at, w1 + qs_at, h, book, a, x->k, cols, total);
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

#define BYTES(w) (const uint8_t *)(w)
#define TILE_IQ4_NL(w0, w1, x, c, y, ldy, cols, pair)                                                        \
    tile_32(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 0)
#define TILE_MXFP4(w0, w1, x, c, y, ldy, cols, pair)                                                         \
    tile_32(BYTES(w0), BYTES(w1), x, c, y, ldy, cols, pair, 1)

/* Formats of OC_BOOKS: scales of the block, then in each of 8 parts `n_scales` integer scales and 4 code
 * vectors. Here the values become the unsigned operand, 128 more than they are, and 128 * (sum of the
 * activations) is taken off: blocks are long enough for those sums to pay. */
OC_INLINE void tile_256(const uint8_t *w0, const uint8_t *w1, const oc_act *x, int64_t c, float *out,
                        int64_t ldy, const int cols, const int pair, const int n_scales,
                        const int8_t values[16], const float unit) {
    const __m512i book = _mm512_xor_si512(load_book(values), _mm512_set1_epi8(-128));
    const __m512i low4 = _mm512_set1_epi8(15);
    const int64_t n_act_scales = x->k / 16;
    const int qs_at = 8 * n_scales, size = qs_at + 128;
    const int8_t *a = x->codes + c * x->k;
    const float *scale = x->scale + c * n_act_scales;
    __m512 acc[8];
    for (int i = 0; i < cols; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t b = 0; b < x->k / 256; b++) {
        __m512 d = oc_halves2((const uint16_t *)w0, (const uint16_t *)w1), products[8];
        int32_t offset[8][16];
        d = _mm512_mul_ps(d, _mm512_set1_ps(unit));
        for (int i = 0; i < cols; i++) {
            oc_offsets_of_16(a + i * x->k, 7, offset[i]);
            products[i] = _mm512_setzero_ps();
        }
        w0 += 16, w1 += 16;
        for (int p = 0; p < 8; p++, w0 += size, w1 += size, a += 32) {
            oc_prefetch(w0, size);
            oc_prefetch(w1, size);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++, scale++) {
                const int at = 8 * (h % n_scales);
                const __m512 weight_scale = oc_signed_to_floats2(w0 + at, w1 + at);
                __m512i total[8];
                for (int i = 0; i < cols; i++) total[i] = _mm512_set1_epi32(offset[i][2 * p + h]);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    __m512i q = oc_load2(w0 + qs_at + 32 * j, w1 + qs_at + 32 * j);
                    q = _mm512_and_si512(h ? _mm512_srli_epi16(q, 4) : q, low4);
                    q = _mm512_shuffle_epi8(book, q);
                    for (int i = 0; i < cols; i++) {
                        const int8_t *codes = a + i * x->k + 16 * h + 4 * j;
                        total[i] = _mm512_dpbusd_epi32(total[i], q, oc_codes4_wide(codes));
                    }
                }
                for (int i = 0; i < cols; i++) {
                    const __m512 act_scale = _mm512_set1_ps(scale[i * n_act_scales]);
                    const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total[i]), weight_scale);
                    products[i] = _mm512_fmadd_ps(product, act_scale, products[i]);
                }
            }
        }
        for (int i = 0; i < cols; i++) acc[i] = _mm512_fmadd_ps(d, products[i], acc[i]);
    }
    for (int i = 0; i < cols; i++) oc_store2(out + i * ldy, acc[i], pair);
}

OC_INLINE void unpack_256(const uint8_t *w0, const uint8_t *w1, oc_panel *panel, const int n_scales,
                          const int8_t values[16], const float unit) {
    const __m512i book = load_book(values), low4 = _mm512_set1_epi8(15);
    const int qs_at = 8 * n_scales, size = qs_at + 128;
    const __m512 d = oc_halves2((const uint16_t *)w0, (const uint16_t *)w1);
    panel->d = _mm512_mul_ps(d, _mm512_set1_ps(unit));
    w0 += 16, w1 += 16;
    for (int p = 0; p < 8; p++, w0 += size, w1 += size) {
        oc_prefetch(w0, size);
        oc_prefetch(w1, size);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int at = 8 * (h % n_scales);
            panel->scale[2 * p + h] = oc_signed_to_floats2(w0 + at, w1 + at);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const __m512i q = oc_load2(w0 + qs_at + 32 * j, w1 + qs_at + 32 * j);
                const __m512i code = _mm512_and_si512(h ? _mm512_srli_epi16(q, 4) : q, low4);
                panel->codes[2 * p + h][j] = _mm512_shuffle_epi8(book, code);
            }
        }
    }
}

#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    OC_INLINE void tile_##suffix(const packed *w0, const packed *w1, const oc_act *x, int64_t c, float *out, \
                                 int64_t ldy, const int cols, const int pair) {                              \
        const int n_scales = sizeof w0->part->scale / 8;                                                     \
        tile_256(BYTES(w0), BYTES(w1), x, c, out, ldy, cols, pair, n_scales, values, unit);                  \
    }                                                                                                        \
    static void unpack_##suffix(const void *w0, const void *w1, oc_panel *panel) {                           \
        unpack_256(w0, w1, panel, sizeof ((const packed *)w0)->part->scale / 8, values, unit);               \
    }                                                                                                        \
    OC_DEFINE_MATMUL_PANELS(suffix, tile_##suffix, packed, unpack_##suffix, OC_PANEL_NO_MINS)
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

OC_DEFINE_MATMUL_PAIRS(iq4_nl, TILE_IQ4_NL, oc_packed_iq4_nl, 32, 8)
OC_DEFINE_MATMUL_PAIRS(mxfp4, TILE_MXFP4, oc_packed_mxfp4, 32, 8)

#include "kernels/x86/target_end.h"
