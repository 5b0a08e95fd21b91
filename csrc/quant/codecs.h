/* codecs.h - the functions behind every row of formats.def, and the codes of packed blocks as bytes. */
#ifndef OC_QUANT_CODECS_H
#define OC_QUANT_CODECS_H

#include <string.h>

#include "quant/blocks.h"

#define OC_FORMAT(type, name, suffix, block, file, packed, f32)                                              \
    void oc_dequantize_##suffix(const void *row, float *y, int64_t k);                                       \
    void oc_unpack_row_##suffix(const void *packed, int64_t k, int64_t row, float *y);
#include "quant/formats.def"
#undef OC_FORMAT

/* One block of a codebook format of OC_BOOKS, whatever its bits in the file are. */
typedef struct {
    uint16_t d;
    int8_t scale[16];   /* of every 16 elements */
    uint8_t qs[8][16];  /* 32 elements each: q as in q4_0 */
} oc_book_block;

#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    void oc_read_##suffix(const oc_block_##suffix *in, oc_book_block *out);
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

#define OC_TERNARY(suffix) void oc_read_##suffix(const oc_block_##suffix *in, oc_block_q2_k *out);
OC_TERNARIES(OC_TERNARY)
#undef OC_TERNARY

/* Codes of packed blocks, one byte each, in vectors of [8 rows][4 consecutive elements]. The loops run
 * over whole vectors, which any compiler turns into vector instructions. */

/* The n codes of row r. */
static inline void oc_codes_of_row(const uint8_t *q, int n, int r, uint8_t *row) {
    for (int j = 0; j < n / 4; j++) memcpy(row + 4 * j, q + 32 * j + 4 * r, 4);
}

/* n bytes of two nibbles: the low ones are the first half of the elements, the high ones the second. */
static inline void oc_codes_nibbles(const uint8_t *qs, int n, uint8_t *q) {
    for (int i = 0; i < n; i++) q[i] = qs[i] & 15;
    for (int i = 0; i < n; i++) q[n + i] = qs[i] >> 4;
}

/* The fifth bits of 32 elements: bit j of the bytes belongs to vector j. */
static inline void oc_codes_fifth(const uint8_t *bits, uint8_t q[256]) {
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) q[32 * j + i] |= (uint8_t)(bits[i] >> j & 1) << 4;
}

static inline void oc_codes_q4_0(const oc_packed_q4_0 *w, uint8_t q[256]) {
    oc_codes_nibbles((const uint8_t *)w->qs, 128, q);
}

static inline void oc_codes_q4_1(const oc_packed_q4_1 *w, uint8_t q[256]) {
    oc_codes_nibbles((const uint8_t *)w->qs, 128, q);
}

static inline void oc_codes_q5_0(const oc_packed_q5_0 *w, uint8_t q[256]) {
    oc_codes_nibbles((const uint8_t *)w->qs, 128, q);
    oc_codes_fifth((const uint8_t *)w->qh, q);
}

static inline void oc_codes_q5_1(const oc_packed_q5_1 *w, uint8_t q[256]) {
    oc_codes_nibbles((const uint8_t *)w->qs, 128, q);
    oc_codes_fifth((const uint8_t *)w->qh, q);
}

static inline void oc_codes_q2_k(const oc_packed_q2_k *w, uint8_t q[2048]) {
    for (int v = 0; v < 64; v++) { /* vectors of codes: 8 in each part */
        const uint8_t *qs = (const uint8_t *)w->part[v / 8].qs[v / 4 % 2];
        for (int i = 0; i < 32; i++) q[32 * v + i] = qs[i] >> (2 * (v % 4)) & 3;
    }
}

static inline void oc_codes_q3_k(const oc_packed_q3_k *w, uint8_t q[2048]) {
    for (int v = 0; v < 64; v++) {
        const oc_packed_q3_k_part *part = &w->part[v / 8];
        const uint8_t *qs = (const uint8_t *)part->qs[v / 4 % 2], *qh = (const uint8_t *)part->qh;
        for (int i = 0; i < 32; i++)
            q[32 * v + i] = (uint8_t)((qs[i] >> (2 * (v % 4)) & 3) | (qh[i] >> (v % 8) & 1) << 2);
    }
}

static inline void oc_codes_q4_k(const oc_packed_q4_k *w, uint8_t q[2048]) {
    for (int p = 0; p < 4; p++) oc_codes_nibbles((const uint8_t *)w->pair[p].qs, 256, q + 512 * p);
}

static inline void oc_codes_q5_k(const oc_packed_q5_k *w, uint8_t q[2048]) {
    for (int p = 0; p < 4; p++, q += 512) {
        oc_codes_nibbles((const uint8_t *)w->pair[p].qs, 256, q);
        oc_codes_fifth((const uint8_t *)w->pair[p].qh[0], q);
        oc_codes_fifth((const uint8_t *)w->pair[p].qh[1], q + 256);
    }
}

static inline void oc_codes_q6_k(const oc_packed_q6_k *w, uint8_t q[2048]) {
    for (int v = 0; v < 32; v++) { /* vectors of codes: 8 in each pair */
        const oc_packed_q6_k_step *step = &w->pair[v / 8].step[v / 2 % 4];
        const uint8_t *qs = (const uint8_t *)step->qs[v % 2], *bits = (const uint8_t *)step->qh;
        uint8_t *low = q + v / 8 * 512 + v % 8 * 32, *high = low + 256;
        for (int i = 0; i < 32; i++) {
            low[i] = (uint8_t)((qs[i] & 15) | (bits[i] >> (2 * (v % 2)) & 3) << 4);
            high[i] = (uint8_t)((qs[i] >> 4) | (bits[i] >> (2 * (v % 2) + 4) & 3) << 4);
        }
    }
}

/* The values (int8) that codes stand for, in their place. */
static inline void oc_codes_look_up(const int8_t values[16], uint8_t *q, int n) {
    for (int i = 0; i < n; i++) q[i] = (uint8_t)values[q[i]];
}

static inline void oc_codes_iq4_nl(const oc_packed_iq4_nl *w, uint8_t q[256]) {
    oc_codes_nibbles((const uint8_t *)w->qs, 128, q);
    oc_codes_look_up(oc_book_iq4, q, 256);
}

static inline void oc_codes_mxfp4(const oc_packed_mxfp4 *w, uint8_t q[256]) {
    oc_codes_nibbles((const uint8_t *)w->qs, 128, q);
    oc_codes_look_up(oc_book_mxfp4, q, 256);
}

#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    static inline void oc_codes_##suffix(const packed *w, uint8_t q[2048]) {                                 \
        for (int p = 0; p < 8; p++) oc_codes_nibbles((const uint8_t *)w->part[p].qs, 128, q + 256 * p);      \
        oc_codes_look_up(values, q, 2048);                                                                   \
    }
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

#define OC_TERNARY(suffix)                                                                                   \
    static inline void oc_codes_##suffix(const oc_packed_q2_k *w, uint8_t q[2048]) { oc_codes_q2_k(w, q); }
OC_TERNARIES(OC_TERNARY)
#undef OC_TERNARY

#endif
