/* codecs.h - the functions behind every row of formats.def, and the unsigned codes of packed blocks. */
#ifndef OC_QUANT_CODECS_H
#define OC_QUANT_CODECS_H

#include "quant/blocks.h"

#define OC_FORMAT(type, name, suffix, block, file, packed, f32)                                              \
    void oc_dequantize_##suffix(const void *row, float *y, int64_t k);                                       \
    void oc_pack_##suffix(const void *src, int64_t n_rows, int64_t k, void *dst, int64_t g0, int64_t g1);    \
    void oc_unpack_row_##suffix(const void *packed, int64_t k, int64_t row, float *y);
#include "quant/formats.def"
#undef OC_FORMAT

/* The 32 unsigned 4-bit codes of row r of a legacy packed block. */
static inline void oc_codes_q4(const uint8_t qs[4][8][4], int r, uint8_t q[32]) {
    for (int e = 0; e < 16; e++) {
        uint8_t byte = qs[e / 4][r][e % 4];
        q[e] = byte & 15;
        q[16 + e] = byte >> 4;
    }
}

/* The same with the fifth bits: 0 .. 31. */
static inline void oc_codes_q5(const uint8_t qh[8][4], const uint8_t qs[4][8][4], int r, uint8_t q[32]) {
    oc_codes_q4(qs, r, q);
    for (int e = 0; e < 16; e++) {
        q[e] |= (qh[r][e % 4] >> (e / 4) & 1) << 4;
        q[16 + e] |= (qh[r][e % 4] >> (4 + e / 4) & 1) << 4;
    }
}

/* The 64 codes, 0 .. 15, of row r of a q4_k pair: sub-block 0, then 1. */
static inline void oc_codes_q4_k(const uint8_t qs[8][8][4], int r, uint8_t q[64]) {
    for (int e = 0; e < 32; e++) {
        uint8_t byte = qs[e / 4][r][e % 4];
        q[e] = byte & 15;
        q[32 + e] = byte >> 4;
    }
}

/* The 64 codes, 0 .. 31, of row r of a q5_k pair. */
static inline void oc_codes_q5_k(const oc_packed_q5_k_pair *pair, int r, uint8_t q[64]) {
    oc_codes_q4_k(pair->qs, r, q);
    for (int e = 0; e < 32; e++) {
        q[e] |= (pair->qh[0][r][e % 4] >> (e / 4) & 1) << 4;
        q[32 + e] |= (pair->qh[1][r][e % 4] >> (e / 4) & 1) << 4;
    }
}

/* The 64 codes, 0 .. 63, of row r of a q6_k pair. */
static inline void oc_codes_q6_k(const oc_packed_q6_k_pair *pair, int r, uint8_t q[64]) {
    for (int e = 0; e < 32; e++) {
        int j = e / 4, i = e % 4;
        const oc_packed_q6_k_step *step = &pair->step[j / 2];
        uint8_t byte = step->qs[j % 2][r][i], high = step->qh[r][i] >> (2 * (j % 2));
        q[e] = (uint8_t)((byte & 15) | (high & 3) << 4);
        q[32 + e] = (uint8_t)((byte >> 4) | (high >> 4 & 3) << 4);
    }
}

#endif
