/* matmul_block32.c - reference matmul of the formats with one scale per 32 weights: Q4_0, Q4_1, Q5_0,
 * Q5_1, Q8_0, IQ4_NL, MXFP4. The integer dot products of the halves of a block are exact; per block and
 * output the float operations are those of the formulas below, and y itself is the running sum. */
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

/* Both halves of a block, each with its scale of activations. */
static inline float sum_products(const int16_t q[32], const int16_t a[32], const float scale[2]) {
    float product = (float)dot(q, a) * scale[0];
    return product + (float)dot(q + 16, a + 16) * scale[1];
}

/* weight = d (q - m):  sum += d * (product - m * sum of activations) */
static inline float add_centred(float sum, float d, float m, float product, float act_sum) {
    return sum + d * (product - m * act_sum);
}

/* weight = d q + m:  sum += d * product;  sum += m * sum of activations */
static inline float add_shifted(float sum, float d, float m, float product, float act_sum) {
    sum += d * product;
    return sum + m * act_sum;
}

static inline void oc_codes_q8_0(const oc_packed_q8_0 *w, uint8_t q[256]) { memcpy(q, w->qs, 256); }

#define HALF(field) oc_f16_to_f32(w->field[r])

/* Codes are read as `code`; `add` is one of the formulas above, with `scale_of_r` and `min` as the d and m of
 * row r. */
#define DEFINE_MATMUL(suffix, code, scale_of_r, add, min)                                                    \
    void oc_matmul_##suffix##_generic(const void *packed, const oc_act *x, float *y, int64_t ldy,            \
                                      int64_t g0, int64_t g1) {                                              \
        int64_t n_blocks = x->k / 32;                                                                        \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const oc_packed_##suffix *w = (const oc_packed_##suffix *)packed + g * n_blocks;                 \
            for (int64_t c = 0; c < x->n; c++) memset(y + c * ldy + 8 * g, 0, 8 * sizeof *y);                \
            for (int64_t b = 0; b < n_blocks; b++, w++) {                                                    \
                uint8_t all[256], q[32];                                                                     \
                int16_t rows[8][32], a[32];                                                                  \
                float d[8], m[8];                                                                            \
                oc_codes_##suffix(w, all);                                                                   \
                for (int r = 0; r < 8; r++) {                                                                \
                    d[r] = scale_of_r;                                                                       \
                    m[r] = min;                                                                              \
                    oc_codes_of_row(all, 32, r, q);                                                          \
                    for (int e = 0; e < 32; e++) rows[r][e] = (code)q[e];                                    \
                }                                                                                            \
                for (int64_t c = 0; c < x->n; c++) {                                                         \
                    for (int e = 0; e < 32; e++) a[e] = x->codes[c * x->k + 32 * b + e];                     \
                    const float *scale = x->scale + 2 * (c * n_blocks + b);                                  \
                    const float act_sum = x->sum[c * n_blocks + b];                                          \
                    float *sum = y + c * ldy + 8 * g;                                                        \
                    for (int r = 0; r < 8; r++)                                                              \
                        sum[r] = add(sum[r], d[r], m[r], sum_products(rows[r], a, scale), act_sum);          \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

DEFINE_MATMUL(q4_0, uint8_t, HALF(d), add_centred, 8)
DEFINE_MATMUL(q4_1, uint8_t, HALF(d), add_shifted, HALF(m))
DEFINE_MATMUL(q5_0, uint8_t, HALF(d), add_centred, 16)
DEFINE_MATMUL(q5_1, uint8_t, HALF(d), add_shifted, HALF(m))
DEFINE_MATMUL(q8_0, int8_t, HALF(d), add_centred, 0)
DEFINE_MATMUL(iq4_nl, int8_t, HALF(d), add_centred, 0)
DEFINE_MATMUL(mxfp4, int8_t, oc_bits_to_f32(oc_mxfp4_scale_bits(w->e[r])), add_centred, 0)
