/* matmul_k.c - reference matmul of the formats with blocks of 256 and integer scales of sub-blocks: the K
 * formats and the codebook formats of OC_BOOKS. Codes
 * times integer scales are integers, and so are their dot products over 16 elements: exact. Times the
 * activation scales they are summed in float over a block of 256, and the block's own scale is applied
 * once. */
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"
#include "quant/codecs.h"

/* GCC unrolls so short a loop before it looks for vectors, and then finds none: hence the pragma. */
static inline int dot(const int16_t q[16], const int16_t a[16]) {
    int sum = 0;
#pragma GCC unroll 1
    for (int i = 0; i < 16; i++) sum += q[i] * a[i];
    return sum;
}

/* The part of one block of 256 before its scale d. */
static inline float sum_products(const int16_t q[256], const int16_t a[256], const float act_scale[16]) {
    float products = 0;
    for (int s = 0; s < 16; s++) products += (float)dot(q + 16 * s, a + 16 * s) * act_scale[s];
    return products;
}

/* The part before dmin. */
static inline float sum_mins(const uint8_t min[8], const float act_sum[8]) {
    float mins = 0;
    for (int s = 0; s < 8; s++) mins += (float)min[s] * act_sum[s];
    return mins;
}

/* The same for row r of a q2_k block, whose minima are for 16 elements: their sums are worked out here. */
static inline float sum_mins_q2_k(const oc_packed_q2_k *w, int r, const int16_t a[256],
                                  const float act_scale[16]) {
    float mins = 0;
    for (int s = 0; s < 16; s++) {
        int sum = 0;
        for (int i = 0; i < 16; i++) sum += a[16 * s + i];
        mins += (float)(w->part[s / 2].scale[s % 2][r] >> 4) * ((float)sum * act_scale[s]);
    }
    return mins;
}

/* The minima of row r of a q4_k or q5_k block; the other formats have none of this kind. */
#define MINS_OF_ROW(out, w, r)                                                                               \
    for (int s = 0; s < 8; s++) (out)[s] = (w)->pair[s / 2].min[s % 2][r]
#define NO_MINS(out, w, r) (void)out

/* `offset` is taken off the codes, which are of type `code`; `scale_of_s` is the scale of row r and of the
 * s-th 16 elements, and `unit` that of the scales; `read_mins` fills the minima, which `minus` subtracts
 * from the sum. */
#define DEFINE_MATMUL(suffix, packed_block, code, offset, scale_of_s, unit, read_mins, minus)                \
    void oc_matmul_##suffix##_generic(const void *packed, const oc_act *x, float *y, int64_t ldy,            \
                                      int64_t g0, int64_t g1) {                                              \
        int64_t n_blocks = x->k / 256;                                                                       \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const packed_block *w = (const packed_block *)packed + g * n_blocks;                             \
            for (int64_t c = 0; c < x->n; c++) memset(y + c * ldy + 8 * g, 0, 8 * sizeof *y);                \
            for (int64_t b = 0; b < n_blocks; b++, w++) {                                                    \
                uint8_t all[2048], q[256], mins[8][8];                                                       \
                int16_t rows[8][256], a[256];                                                                \
                oc_codes_##suffix(w, all);                                                                   \
                for (int r = 0; r < 8; r++) {                                                                \
                    oc_codes_of_row(all, 256, r, q);                                                         \
                    for (int s = 0; s < 16; s++) {                                                           \
                        const int scale = scale_of_s;                                                        \
                        for (int e = 16 * s; e < 16 * s + 16; e++)                                           \
                            rows[r][e] = (int16_t)(((code)q[e] - (offset)) * scale);                         \
                    }                                                                                        \
                    read_mins(mins[r], w, r);                                                                \
                }                                                                                            \
                for (int64_t c = 0; c < x->n; c++) {                                                         \
                    const float *act_scale = x->scale + (c * n_blocks + b) * 16;                             \
                    const float *act_sum = x->sum + (c * n_blocks + b) * 8;                                  \
                    (void)act_sum;                                                                           \
                    float *sum = y + c * ldy + 8 * g;                                                        \
                    for (int e = 0; e < 256; e++) a[e] = x->codes[c * x->k + 256 * b + e];                   \
                    for (int r = 0; r < 8; r++) {                                                            \
                        sum[r] += oc_f16_to_f32(w->d[r]) * unit * sum_products(rows[r], a, act_scale);       \
                        minus;                                                                               \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

#define SCALE_45 w->pair[s / 4].scale[s / 2 % 2][r]
#define MINUS_45 sum[r] -= oc_f16_to_f32(w->dmin[r]) * sum_mins(mins[r], act_sum)
DEFINE_MATMUL(q4_k, oc_packed_q4_k, uint8_t, 0, SCALE_45, 1, MINS_OF_ROW, MINUS_45)
DEFINE_MATMUL(q5_k, oc_packed_q5_k, uint8_t, 0, SCALE_45, 1, MINS_OF_ROW, MINUS_45)
DEFINE_MATMUL(q6_k, oc_packed_q6_k, uint8_t, 32, w->pair[s / 4].scale[s % 4][r], 1, NO_MINS, )

#define PART_SCALE w->part[s / 2].scale[s % 2][r]
#define MINUS_2 sum[r] -= oc_f16_to_f32(w->dmin[r]) * sum_mins_q2_k(w, r, a, act_scale)
DEFINE_MATMUL(q2_k, oc_packed_q2_k, uint8_t, 0, PART_SCALE & 15, 1, NO_MINS, MINUS_2)
DEFINE_MATMUL(q3_k, oc_packed_q3_k, uint8_t, 4, PART_SCALE, 1, NO_MINS, )

#define BOOK_SCALE w->part[s / 2].scale[s % 2 % (sizeof w->part->scale / 8)][r]
#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    DEFINE_MATMUL(suffix, packed, int8_t, 0, BOOK_SCALE, unit, NO_MINS, )
OC_BOOKS(OC_BOOK)
#undef OC_BOOK
