/* unpack.c - single rows of packed matrices back to floats: embedding look-up, tests. */

/* unpack_row gives the very floats of dequant.c, so it rounds like it. */
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include <string.h>

#include "base/fp16.h"
#include "quant/codecs.h"

/* One function per format decodes row r of one block. */

static void unpack_block_f32(const oc_packed_f32 *in, int r, float *y) { *y = in->w[r]; }
static void unpack_block_f16(const oc_packed_16 *in, int r, float *y) { *y = oc_f16_to_f32(in->w[r]); }
static void unpack_block_bf16(const oc_packed_16 *in, int r, float *y) { *y = oc_bf16_to_f32(in->w[r]); }

/* `span` elements share a scale d and a minimum m, which are worked out from the block, r and s; every
 * element is `value` of them and of its code q, a byte of type `code`. */
#define UNPACK_BLOCK(suffix, packed, code, elements, span, scale, min, value)                                \
    static void unpack_block_##suffix(const packed *in, int r, float *y) {                                   \
        uint8_t all[8 * elements], codes[elements];                                                          \
        oc_codes_##suffix(in, all);                                                                          \
        oc_codes_of_row(all, elements, r, codes);                                                            \
        for (int s = 0; s < elements / span; s++) {                                                          \
            const float d = scale, m = min;                                                                  \
            for (int e = s * span; e < s * span + span; e++) {                                               \
                const float q = (code)codes[e];                                                              \
                y[e] = value;                                                                                \
            }                                                                                                \
        }                                                                                                    \
    }

#define HALF(field) oc_f16_to_f32(in->field[r])
UNPACK_BLOCK(q4_0, oc_packed_q4_0, uint8_t, 32, 32, HALF(d), 8, d * (q - m))
UNPACK_BLOCK(q4_1, oc_packed_q4_1, uint8_t, 32, 32, HALF(d), HALF(m), d * q + m)
UNPACK_BLOCK(q5_0, oc_packed_q5_0, uint8_t, 32, 32, HALF(d), 16, d * (q - m))
UNPACK_BLOCK(q5_1, oc_packed_q5_1, uint8_t, 32, 32, HALF(d), HALF(m), d * q + m)
#define SCALED(field, bytes, pair_of, at) HALF(field) * (float)in->pair[pair_of].bytes[at][r]
UNPACK_BLOCK(q2_k, oc_packed_q2_k, uint8_t, 256, 16, HALF(d) * (float)(in->part[s / 2].scale[s % 2][r] & 15),
             HALF(dmin) * (float)(in->part[s / 2].scale[s % 2][r] >> 4), d * q - m)
UNPACK_BLOCK(q3_k, oc_packed_q3_k, uint8_t, 256, 16, HALF(d) * (float)in->part[s / 2].scale[s % 2][r], 4,
             d * (q - m))
#define SCALE_45 SCALED(d, scale, s / 2, s % 2)
#define MIN_45 SCALED(dmin, min, s / 2, s % 2)
UNPACK_BLOCK(q4_k, oc_packed_q4_k, uint8_t, 256, 32, SCALE_45, MIN_45, d * q - m)
UNPACK_BLOCK(q5_k, oc_packed_q5_k, uint8_t, 256, 32, SCALE_45, MIN_45, d * q - m)
UNPACK_BLOCK(q6_k, oc_packed_q6_k, uint8_t, 256, 16, SCALED(d, scale, s / 4, s % 4), 32, d * (q - m))

UNPACK_BLOCK(iq4_nl, oc_packed_iq4_nl, int8_t, 32, 32, HALF(d), 0, d * (q - m))
UNPACK_BLOCK(mxfp4, oc_packed_mxfp4, int8_t, 32, 32, oc_bits_to_f32(oc_mxfp4_scale_bits(in->e[r])), 0,
             d * (q - m))

#define SCALES_OF(part) (int)(sizeof (part).scale / sizeof *(part).scale)
#define SCALE_OF(s) (float)in->part[s / 2].scale[s % 2 % SCALES_OF(in->part[0])][r]
#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    UNPACK_BLOCK(suffix, packed, int8_t, 256, 16, HALF(d) * unit * SCALE_OF(s), 0, d * (q - m))
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

static void unpack_block_q8_0(const oc_packed_q8_0 *in, int r, float *y) {
    for (int e = 0; e < 32; e++) y[e] = oc_f16_to_f32(in->d[r]) * (float)in->qs[e / 4][r][e % 4];
}

#define OC_TERNARY(suffix)                                                                                   \
    UNPACK_BLOCK(suffix, oc_packed_q2_k, uint8_t, 256, 256, HALF(d), 1, d * (q - m))
OC_TERNARIES(OC_TERNARY)
#undef OC_TERNARY

#define OC_FORMAT(type, name, suffix, block, file, packed, f32)                                              \
    void oc_unpack_row_##suffix(const void *src, int64_t k, int64_t row, float *y) {                         \
        int64_t n_blocks = k / block;                                                                        \
        const packed *in = (const packed *)src + row / 8 * n_blocks;                                         \
        for (int64_t b = 0; b < n_blocks; b++) unpack_block_##suffix(in + b, (int)(row % 8), y + b * block); \
    }
#include "quant/formats.def"
#undef OC_FORMAT
