/* blocks.h - the blocks of every supported format, as they stand in a GGUF file (oc_block_*) and as the
 * kernels stream them (oc_packed_*). All fields are little-endian; no struct has padding, and none needs
 * more than 2-byte alignment unless its elements are floats.
 *
 * Packed layout ("R8x4"): 8 rows are interleaved, so that a vector of 8 int32 lanes holds one lane per row
 * and no horizontal sum is ever needed. A code vector is [8 rows][4 bytes]: 4 consecutive elements of each
 * row (or two times 4, in the low and the high nibbles). One packed block stands for the same block of 8
 * rows; blocks of a group of rows follow each other in ascending k, groups follow each other, and a header
 * stands right before its codes: a kernel reads a matrix in strictly ascending order. The layout is the
 * same for every instruction set. */
#ifndef OC_QUANT_BLOCKS_H
#define OC_QUANT_BLOCKS_H

#include <stdint.h>

#define OC_BLOCK_IS(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)

/* ---- as in the file ---- */

typedef struct { /* element = d * (q - 8); q[i] = low nibble of qs[i], q[16 + i] = high nibble */
    uint16_t d;
    uint8_t qs[16];
} oc_block_q4_0;
OC_BLOCK_IS(oc_block_q4_0, 18);

typedef struct { /* element = d * q + m; q as in q4_0 */
    uint16_t d, m;
    uint8_t qs[16];
} oc_block_q4_1;
OC_BLOCK_IS(oc_block_q4_1, 20);

typedef struct { /* element = d * (q - 16); low bits as in q4_0, the fifth is bit i of the 32-bit word qh */
    uint16_t d;
    uint8_t qh[4], qs[16];
} oc_block_q5_0;
OC_BLOCK_IS(oc_block_q5_0, 22);

typedef struct { /* element = d * q + m; q as in q5_0 */
    uint16_t d, m;
    uint8_t qh[4], qs[16];
} oc_block_q5_1;
OC_BLOCK_IS(oc_block_q5_1, 24);

typedef struct { /* element = d * q */
    uint16_t d;
    int8_t qs[32];
} oc_block_q8_0;
OC_BLOCK_IS(oc_block_q8_0, 34);

typedef struct { /* 16 sub-blocks of 16: element = d * scale * q - dmin * min */
    uint8_t scales[16]; /* scale in the low, min in the high nibble */
    uint8_t qs[64];     /* half h, element 32 e + i: qs[32 h + i] >> 2 e, two bits */
    uint16_t d, dmin;
} oc_block_q2_k;
OC_BLOCK_IS(oc_block_q2_k, 84);

typedef struct {       /* 16 sub-blocks of 16: element = d * (scale - 32) * (q - 4); scales: oc_q3_k_scale */
    uint8_t hmask[32]; /* the third bit of element 32 e + i: bit e of hmask[i] */
    uint8_t qs[64];    /* two bits as in q2_k */
    uint8_t scales[12];
    uint16_t d;
} oc_block_q3_k;
OC_BLOCK_IS(oc_block_q3_k, 110);

typedef struct { /* 8 sub-blocks of 32: element = d * scale * q - dmin * min; scales, mins: oc_k_scale */
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qs[128]; /* qs[32 p + i]: low nibble = element 64 p + i, high nibble = element 64 p + 32 + i */
} oc_block_q4_k;
OC_BLOCK_IS(oc_block_q4_k, 144);

typedef struct { /* as q4_k with a fifth bit: bit s of qh[i] belongs to element i of sub-block s */
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
} oc_block_q5_k;
OC_BLOCK_IS(oc_block_q5_k, 176);

typedef struct { /* 16 sub-blocks of 16: element = d * scale * (q - 32) */
    uint8_t ql[128]; /* half h, element 32 e + i: 4 bits in ql[64 h + 32 (e & 1) + i], the high from e = 2 */
    uint8_t qh[64];  /* and two high bits in qh[32 h + i] >> 2 e */
    int8_t scales[16];
    uint16_t d;
} oc_block_q6_k;
OC_BLOCK_IS(oc_block_q6_k, 210);

typedef struct { /* element = d * oc_book_iq4[q]; q as in q4_0 */
    uint16_t d;
    uint8_t qs[16];
} oc_block_iq4_nl;
OC_BLOCK_IS(oc_block_iq4_nl, 18);

typedef struct { /* element = 2^(e - 128) * oc_book_mxfp4[q]; q as in q4_0 */
    uint8_t e;
    uint8_t qs[16];
} oc_block_mxfp4;
OC_BLOCK_IS(oc_block_mxfp4, 17);

typedef struct { /* 8 sub-blocks of 32: element = d * (scale - 32) * oc_book_iq4[q]; q as in q4_0 */
    uint16_t d;
    uint8_t scales_h[2]; /* bits 4-5 of the scale of sub-block s: from bit 2 s of the 16-bit word */
    uint8_t scales_l[4]; /* bits 0-3: nibble s */
    uint8_t qs[8][16];
} oc_block_iq4_xs;
OC_BLOCK_IS(oc_block_iq4_xs, 136);

/* The IQ1, IQ2 and IQ3 formats store groups of 8 or 4 elements as an index into a grid (iq_tables.h) of
 * values without signs, and the signs of 8 elements as a byte, or as its low 7 bits if the eighth makes the
 * number of ones even. */

typedef struct { /* 8 sub-blocks of 32: element = d/8 * (2 scale + 1) * value */
    uint16_t d;
    uint16_t qs[8][4]; /* four indices of a byte; four times 7 signs, and in the top 4 bits the scale */
} oc_block_iq2_xxs;
OC_BLOCK_IS(oc_block_iq2_xxs, 66);

typedef struct { /* 16 sub-blocks of 16: element as in iq2_xxs */
    uint16_t d;
    uint16_t qs[32];   /* 9 bits of index, 7 signs */
    uint8_t scales[8]; /* nibble s */
} oc_block_iq2_xs;
OC_BLOCK_IS(oc_block_iq2_xs, 74);

typedef struct { /* 16 sub-blocks of 16: element as in iq2_xxs */
    uint16_t d;
    uint8_t qs[32], signs[32];
    uint8_t qh[8];     /* bits 8-9 of index g: from bit 2 g of the whole on */
    uint8_t scales[8]; /* nibble s */
} oc_block_iq2_s;
OC_BLOCK_IS(oc_block_iq2_s, 82);

typedef struct { /* 8 sub-blocks of 32: element = d/4 * (2 scale + 1) * value */
    uint16_t d;
    uint8_t qs[64];
    uint16_t signs[8][2]; /* four times 7 signs, and in the top 4 bits the scale */
} oc_block_iq3_xxs;
OC_BLOCK_IS(oc_block_iq3_xxs, 98);

typedef struct { /* 8 sub-blocks of 32: element = d * (2 scale + 1) * value */
    uint16_t d;
    uint8_t qs[64];
    uint8_t qh[8]; /* bit 8 of index g: bit g of the whole */
    uint8_t signs[32];
    uint8_t scales[4]; /* nibble s */
} oc_block_iq3_s;
OC_BLOCK_IS(oc_block_iq3_s, 110);

typedef struct { /* 8 sub-blocks of 32: element = d * (2 scale + 1) * (value + or - 1/8) */
    uint16_t d;
    uint8_t qs[32];
    uint16_t qh[8]; /* bits 8-10 of four indices, 3 bits of scale, the sign of 1/8 */
} oc_block_iq1_s;
OC_BLOCK_IS(oc_block_iq1_s, 50);

typedef struct { /* 16 sub-blocks of 16: element as in iq1_s */
    uint8_t qs[32];
    uint8_t qh[16];     /* nibble g: bits 8-10 of index g, the sign of 1/8 for its 8 elements */
    uint16_t scales[4]; /* four scales of 3 bits each; the four top nibbles together are d */
} oc_block_iq1_m;
OC_BLOCK_IS(oc_block_iq1_m, 56);

typedef struct {    /* element = d * (q - 1); q are the first digits of byte / 256 in base 3 */
    uint8_t qs[48]; /* digit n of qs[i]: element 32 n + i; of qs[32 + i]: 160 + 16 n + i */
    uint8_t qh[4];  /* digit n of qh[i]: element 240 + 4 n + i */
    uint16_t d;
} oc_block_tq1_0;
OC_BLOCK_IS(oc_block_tq1_0, 54);

typedef struct { /* element = d * (q - 1); q as in q2_k */
    uint8_t qs[64];
    uint16_t d;
} oc_block_tq2_0;
OC_BLOCK_IS(oc_block_tq2_0, 66);

/* ---- codebooks: the values that 4-bit codes stand for ---- */

static const int8_t oc_book_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};
/* twice the values of an E2M1 float */
static const int8_t oc_book_mxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
/* -1, 0, 1 with 1/8 more, and from code 8 on with 1/8 less, all times 8 */
static const int8_t oc_book_iq1[16] = {-7, 1, 9, 0, 0, 0, 0, 0, -9, -1, 7};
static const int8_t oc_book_iq2[16] = {8, 25, 43, 0, 0, 0, 0, 0, -8, -25, -43};
static const int8_t oc_book_iq3_xxs[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                           -4, -12, -20, -28, -36, -44, -52, -62};
static const int8_t oc_book_iq3_s[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};

/* ---- as the kernels stream them: 8 rows ---- */

typedef struct { /* one element of each row */
    float w[8];
} oc_packed_f32;
OC_BLOCK_IS(oc_packed_f32, 32);

typedef struct { /* half or bfloat16 */
    uint16_t w[8];
} oc_packed_16;
OC_BLOCK_IS(oc_packed_16, 16);

typedef struct { /* vector j: elements 4j .. 4j+3 in the low nibbles, 16+4j .. 16+4j+3 in the high ones */
    uint16_t d[8];
    uint8_t qs[4][8][4];
} oc_packed_q4_0;
OC_BLOCK_IS(oc_packed_q4_0, 144);

typedef struct {
    uint16_t d[8], m[8];
    uint8_t qs[4][8][4];
} oc_packed_q4_1;
OC_BLOCK_IS(oc_packed_q4_1, 160);

typedef struct { /* byte i of a row's qh: bit j = fifth bit of element 4j+i, bit 4+j = that of 16+4j+i */
    uint16_t d[8];
    uint8_t qh[8][4];
    uint8_t qs[4][8][4];
} oc_packed_q5_0;
OC_BLOCK_IS(oc_packed_q5_0, 176);

typedef struct {
    uint16_t d[8], m[8];
    uint8_t qh[8][4];
    uint8_t qs[4][8][4];
} oc_packed_q5_1;
OC_BLOCK_IS(oc_packed_q5_1, 192);

typedef struct { /* vector j: elements 4j .. 4j+3 */
    uint16_t d[8];
    int8_t qs[8][8][4];
} oc_packed_q8_0;
OC_BLOCK_IS(oc_packed_q8_0, 272);

typedef struct { /* 32 elements: two sub-blocks. Bits 2v, 2v+1 of qs[h]: elements 16h+4v .. 16h+4v+3 */
    uint8_t scale[2][8]; /* scale in the low, min in the high nibble */
    uint8_t qs[2][8][4];
} oc_packed_q2_k_part;

typedef struct {
    uint16_t d[8], dmin[8];
    oc_packed_q2_k_part part[8];
} oc_packed_q2_k;
OC_BLOCK_IS(oc_packed_q2_k, 672);

typedef struct { /* as q2_k, and byte i of a row's qh: bit j = third bit of element 4j+i */
    int8_t scale[2][8];
    uint8_t qh[8][4];
    uint8_t qs[2][8][4];
} oc_packed_q3_k_part;

typedef struct { /* the 6-bit scales are widened to bytes: 3.6 % more than in the file */
    uint16_t d[8];
    oc_packed_q3_k_part part[8];
} oc_packed_q3_k;
OC_BLOCK_IS(oc_packed_q3_k, 912);

typedef struct { /* 64 elements: sub-block 0 in the low nibbles, 1 in the high; vector j: 4j .. 4j+3 */
    uint8_t scale[2][8], min[2][8];
    uint8_t qs[8][8][4];
} oc_packed_q4_k_pair;

typedef struct { /* the 6-bit scales and mins are widened to bytes: 2.8 % more than in the file */
    uint16_t d[8], dmin[8];
    oc_packed_q4_k_pair pair[4];
} oc_packed_q4_k;
OC_BLOCK_IS(oc_packed_q4_k, 1184);

typedef struct { /* byte i of a row's qh[s]: bit j = fifth bit of element 4j+i of sub-block s */
    uint8_t scale[2][8], min[2][8];
    uint8_t qh[2][8][4];
    uint8_t qs[8][8][4];
} oc_packed_q5_k_pair;

typedef struct {
    uint16_t d[8], dmin[8];
    oc_packed_q5_k_pair pair[4];
} oc_packed_q5_k;
OC_BLOCK_IS(oc_packed_q5_k, 1440);

typedef struct { /* byte i of a row's qh: bits 0-1, 2-3 top the low nibbles of qs[0], qs[1], 4-7 the high */
    uint8_t qh[8][4];
    uint8_t qs[2][8][4];
} oc_packed_q6_k_step;

typedef struct { /* 64 elements, 32 in the low and 32 in the high nibbles; 4 sub-blocks in ascending order */
    int8_t scale[4][8];
    oc_packed_q6_k_step step[4]; /* vector j = step[j / 2].qs[j % 2] */
} oc_packed_q6_k_pair;

typedef struct {
    uint16_t d[8];
    oc_packed_q6_k_pair pair[4];
} oc_packed_q6_k;
OC_BLOCK_IS(oc_packed_q6_k, 1680);

typedef oc_packed_q4_0 oc_packed_iq4_nl;

typedef struct { /* vectors as in q4_0 */
    uint8_t e[8];
    uint8_t qs[4][8][4];
} oc_packed_mxfp4;
OC_BLOCK_IS(oc_packed_mxfp4, 136);

/* Codebook formats with blocks of 256: in each part of 32 elements the vectors are those of q4_0; the values
 * that codes stand for, and the unit of the scales, are in OC_BOOKS. All of these formats have 16 values or
 * fewer and integer scales, so 4-bit codes represent even the smallest of them exactly. */
typedef struct { /* one scale for 32 elements */
    uint16_t d[8];
    struct {
        int8_t scale[1][8];
        uint8_t qs[4][8][4];
    } part[8];
} oc_packed_book32;
OC_BLOCK_IS(oc_packed_book32, 1104);

typedef struct { /* two */
    uint16_t d[8];
    struct {
        int8_t scale[2][8];
        uint8_t qs[4][8][4];
    } part[8];
} oc_packed_book16;
OC_BLOCK_IS(oc_packed_book16, 1168);

/* Scale (first = 0) or min (first = 4) of sub-block s of a q4_k / q5_k block. Sub-blocks 0-3 hold six bits
 * in one byte; 4-7 hold four bits in the last four bytes (scale low, min high nibble) and two in the top
 * of the first ones. */
static inline uint8_t oc_k_scale(const uint8_t scales[12], int s, int first) {
    if (s < 4) return scales[first + s] & 63;
    uint8_t low = first == 0 ? scales[4 + s] & 15 : scales[4 + s] >> 4;
    return (uint8_t)(low | (scales[first + s - 4] >> 6 << 4));
}

/* Scale of sub-block s of a q3_k block: four bits in the nibbles of the first 8 bytes, two more in the
 * last 4. */
static inline int8_t oc_q3_k_scale(const uint8_t scales[12], int s) {
    int low = scales[s % 8] >> (s / 8 * 4) & 15, high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
    return (int8_t)((low | high << 4) - 32);
}

/* The scale of an mxfp4 block, 2^(e - 128): the two lowest are subnormal floats. 255 is not NaN here. */
static inline uint32_t oc_mxfp4_scale_bits(uint8_t e) {
    return e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
}

/* Codebook formats with blocks of 256: X(suffix, packed block, values of the codes, largest of them, unit).
 * element = d * unit * scale * value; d is a half float, scale an integer, |scale| <= 32. */
#define OC_BOOKS(X)                                                                                          \
    X(iq4_xs, oc_packed_book32, oc_book_iq4, 127, 1.0f)                                                      \
    X(iq3_s, oc_packed_book32, oc_book_iq3_s, 15, 1.0f)                                                      \
    X(iq3_xxs, oc_packed_book32, oc_book_iq3_xxs, 62, 0.25f)                                                 \
    X(iq2_s, oc_packed_book16, oc_book_iq2, 43, 0.125f)                                                      \
    X(iq2_xs, oc_packed_book16, oc_book_iq2, 43, 0.125f)                                                     \
    X(iq2_xxs, oc_packed_book32, oc_book_iq2, 43, 0.125f)                                                    \
    X(iq1_m, oc_packed_book16, oc_book_iq1, 9, 0.125f)                                                       \
    X(iq1_s, oc_packed_book32, oc_book_iq1, 9, 0.125f)

/* Formats that are q2_k with a scale and a minimum of 1: X(suffix). */
#define OC_TERNARIES(X)                                                                                      \
    X(tq1_0)                                                                                                 \
    X(tq2_0)

#endif
