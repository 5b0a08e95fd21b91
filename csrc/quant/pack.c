/* pack.c - GGUF rows to the packed layout of blocks.h, and single rows back to floats (embedding look-up,
 * tests). */

/* unpack_row gives the very floats of dequant.c, so it rounds like it. */
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include <string.h>

#include "base/fp16.h"
#include "quant/codecs.h"

/* ---- packing: one function per format packs one block of 8 rows ---- */

static inline void pack_block_f32(const float *const row[8], oc_packed_f32 *out) {
    for (int r = 0; r < 8; r++) out->w[r] = *row[r];
}

static inline void pack_block_f16(const uint16_t *const row[8], oc_packed_16 *out) {
    for (int r = 0; r < 8; r++) out->w[r] = *row[r];
}

#define pack_block_bf16 pack_block_f16

static inline void interleave_nibbles(uint8_t out[4][8][4], int r, const uint8_t qs[16]) {
    for (int j = 0; j < 4; j++) memcpy(out[j][r], qs + 4 * j, 4);
}

/* Byte i of `out` collects every fourth bit of the word, from bit i on. */
static inline void interleave_fifth(uint8_t out[4], const uint8_t qh[4]) {
    const uint32_t word = qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
    for (int i = 0; i < 4; i++) {
        uint32_t bits = word >> i & 0x11111111;
        bits = (bits | bits >> 3) & 0x03030303;
        bits = (bits | bits >> 6) & 0x000F000F;
        out[i] = (uint8_t)(bits | bits >> 12);
    }
}

static void pack_block_q4_0(const oc_block_q4_0 *const row[8], oc_packed_q4_0 *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        interleave_nibbles(out->qs, r, row[r]->qs);
    }
}

static void pack_block_q4_1(const oc_block_q4_1 *const row[8], oc_packed_q4_1 *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        out->m[r] = row[r]->m;
        interleave_nibbles(out->qs, r, row[r]->qs);
    }
}

static void pack_block_q5_0(const oc_block_q5_0 *const row[8], oc_packed_q5_0 *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        interleave_fifth(out->qh[r], row[r]->qh);
        interleave_nibbles(out->qs, r, row[r]->qs);
    }
}

static void pack_block_q5_1(const oc_block_q5_1 *const row[8], oc_packed_q5_1 *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        out->m[r] = row[r]->m;
        interleave_fifth(out->qh[r], row[r]->qh);
        interleave_nibbles(out->qs, r, row[r]->qs);
    }
}

static void pack_block_q8_0(const oc_block_q8_0 *const row[8], oc_packed_q8_0 *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        for (int j = 0; j < 8; j++) memcpy(out->qs[j][r], row[r]->qs + 4 * j, 4);
    }
}

/* Two bits of 32 elements, at `shift` of `qs`: vector v of 16 elements into bits 2v, 2v+1. */
static inline void interleave_pairs(uint8_t out[2][8][4], int r, const uint8_t qs[32], int shift) {
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 4; i++) {
            int bits = 0;
            for (int v = 0; v < 4; v++) bits |= (qs[16 * h + 4 * v + i] >> shift & 3) << (2 * v);
            out[h][r][i] = (uint8_t)bits;
        }
}

/* Bit s of 32 bytes: that of byte 4j+i into bit j of out[i]. */
static inline void interleave_bit(uint8_t out[4], const uint8_t qh[32], int s) {
    for (int i = 0; i < 4; i++) {
        int bits = 0;
        for (int j = 0; j < 8; j++) bits |= (qh[4 * j + i] >> s & 1) << j;
        out[i] = (uint8_t)bits;
    }
}

static void pack_block_q2_k(const oc_block_q2_k *const row[8], oc_packed_q2_k *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        out->dmin[r] = row[r]->dmin;
        for (int p = 0; p < 8; p++) {
            for (int h = 0; h < 2; h++) out->part[p].scale[h][r] = row[r]->scales[2 * p + h];
            interleave_pairs(out->part[p].qs, r, row[r]->qs + p / 4 * 32, p % 4 * 2);
        }
    }
}

static void pack_block_q3_k(const oc_block_q3_k *const row[8], oc_packed_q3_k *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        for (int p = 0; p < 8; p++) {
            for (int h = 0; h < 2; h++) out->part[p].scale[h][r] = oc_q3_k_scale(row[r]->scales, 2 * p + h);
            interleave_bit(out->part[p].qh[r], row[r]->hmask, p);
            interleave_pairs(out->part[p].qs, r, row[r]->qs + p / 4 * 32, p % 4 * 2);
        }
    }
}

static void pack_block_q4_k(const oc_block_q4_k *const row[8], oc_packed_q4_k *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        out->dmin[r] = row[r]->dmin;
        for (int s = 0; s < 8; s++) {
            out->pair[s / 2].scale[s % 2][r] = oc_k_scale(row[r]->scales, s, 0);
            out->pair[s / 2].min[s % 2][r] = oc_k_scale(row[r]->scales, s, 4);
        }
        for (int j = 0; j < 32; j++) memcpy(out->pair[j / 8].qs[j % 8][r], row[r]->qs + 4 * j, 4);
    }
}

static void pack_block_q5_k(const oc_block_q5_k *const row[8], oc_packed_q5_k *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        out->dmin[r] = row[r]->dmin;
        for (int s = 0; s < 8; s++) {
            oc_packed_q5_k_pair *pair = &out->pair[s / 2];
            pair->scale[s % 2][r] = oc_k_scale(row[r]->scales, s, 0);
            pair->min[s % 2][r] = oc_k_scale(row[r]->scales, s, 4);
            interleave_bit(pair->qh[s % 2][r], row[r]->qh, s);
        }
        for (int j = 0; j < 32; j++) memcpy(out->pair[j / 8].qs[j % 8][r], row[r]->qs + 4 * j, 4);
    }
}

static void pack_block_q6_k(const oc_block_q6_k *const row[8], oc_packed_q6_k *out) {
    for (int r = 0; r < 8; r++) {
        const oc_block_q6_k *in = row[r];
        out->d[r] = in->d;
        for (int s = 0; s < 16; s++) out->pair[s / 4].scale[s % 4][r] = in->scales[s];
        for (int p = 0; p < 4; p++) {
            /* Pair p covers the 32s e and e + 1 of its half; in the file both stand in the same nibbles. */
            int e = p % 2 * 2;
            const uint8_t *ql = in->ql + p / 2 * 64, *qh = in->qh + p / 2 * 32;
            for (int step = 0; step < 4; step++) {
                oc_packed_q6_k_step *to = &out->pair[p].step[step];
                for (int i = 0; i < 4; i++) {
                    int bits = 0;
                    for (int v = 0; v < 2; v++) {
                        int x = 8 * step + 4 * v + i;
                        int low = ql[x] >> (e * 2) & 15, high = ql[32 + x] >> (e * 2) & 15;
                        to->qs[v][r][i] = (uint8_t)(low | high << 4);
                        bits |= (qh[x] >> (2 * e) & 3) << (2 * v) | (qh[x] >> (2 * e + 2) & 3) << (4 + 2 * v);
                    }
                    to->qh[r][i] = (uint8_t)bits;
                }
            }
        }
    }
}

static void pack_block_iq4_nl(const oc_block_iq4_nl *const row[8], oc_packed_iq4_nl *out) {
    for (int r = 0; r < 8; r++) {
        out->d[r] = row[r]->d;
        interleave_nibbles(out->qs, r, row[r]->qs);
    }
}

static void pack_block_mxfp4(const oc_block_mxfp4 *const row[8], oc_packed_mxfp4 *out) {
    for (int r = 0; r < 8; r++) {
        out->e[r] = row[r]->e;
        interleave_nibbles(out->qs, r, row[r]->qs);
    }
}

#define SCALES_OF(part) (int)(sizeof (part).scale / sizeof *(part).scale)

#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    static void pack_block_##suffix(const oc_block_##suffix *const row[8], packed *out) {                    \
        for (int r = 0; r < 8; r++) {                                                                        \
            oc_book_block in;                                                                                \
            oc_read_##suffix(row[r], &in);                                                                   \
            out->d[r] = in.d;                                                                                \
            for (int p = 0; p < 8; p++) {                                                                    \
                for (int s = 0; s < SCALES_OF(out->part[p]); s++)                                            \
                    out->part[p].scale[s][r] = in.scale[2 * p + s];                                          \
                for (int i = 0; i < 16; i++)                                                                 \
                    out->part[p].qs[i / 4][r][i % 4] =                                                       \
                        (uint8_t)(in.code[32 * p + i] | in.code[32 * p + 16 + i] << 4);                      \
            }                                                                                                \
        }                                                                                                    \
    }
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

#define OC_FORMAT(type, name, suffix, block, file, packed, f32)                                              \
    void oc_pack_##suffix(const void *src, int64_t n_rows, int64_t k, void *dst, int64_t g0, int64_t g1) {   \
        static const file zero;                                                                              \
        int64_t n_blocks = k / block;                                                                        \
        packed *out = (packed *)dst + g0 * n_blocks;                                                         \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            for (int64_t b = 0; b < n_blocks; b++, out++) {                                                  \
                const file *row[8];                                                                          \
                for (int r = 0; r < 8; r++)                                                                  \
                    row[r] = 8 * g + r < n_rows ? (const file *)src + (8 * g + r) * n_blocks + b : &zero;    \
                pack_block_##suffix(row, out);                                                               \
            }                                                                                                \
        }                                                                                                    \
    }
#include "quant/formats.def"
#undef OC_FORMAT

/* ---- unpacking: one function per format decodes row r of one block ---- */

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

#define SCALE_OF(s) (float)in->part[s / 2].scale[s % 2 % SCALES_OF(in->part[0])][r]
#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    UNPACK_BLOCK(suffix, packed, int8_t, 256, 16, HALF(d) * unit * SCALE_OF(s), 0, d * (q - m))
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

static void unpack_block_q8_0(const oc_packed_q8_0 *in, int r, float *y) {
    for (int e = 0; e < 32; e++) y[e] = oc_f16_to_f32(in->d[r]) * (float)in->qs[e / 4][r][e % 4];
}

#define OC_FORMAT(type, name, suffix, block, file, packed, f32)                                              \
    void oc_unpack_row_##suffix(const void *src, int64_t k, int64_t row, float *y) {                         \
        int64_t n_blocks = k / block;                                                                        \
        const packed *in = (const packed *)src + row / 8 * n_blocks;                                         \
        for (int64_t b = 0; b < n_blocks; b++) unpack_block_##suffix(in + b, (int)(row % 8), y + b * block); \
    }
#include "quant/formats.def"
#undef OC_FORMAT
