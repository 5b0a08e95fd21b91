/* matmul_block32.c - reference matmul of the formats with one scale per 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 * The integer dot product of a block is exact; per block and output the float operations are those of the formulas
 * below, and y itself is the running sum. */
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"
#include "quant/codecs.h"

static inline int dot_unsigned(const uint8_t q[32], const int8_t *a) {
    int sum = 0;
    for (int i = 0; i < 32; i++) sum += q[i] * a[i];
    return sum;
}

static inline int dot_signed(const int8_t q[32], const int8_t *a) {
    int sum = 0;
    for (int i = 0; i < 32; i++) sum += q[i] * a[i];
    return sum;
}

/* weight = d (q - offset):  sum += d * (scale * dot - offset * sum of activations) */
static inline float add_centred(float sum, float d, int dot, float scale, float act_sum, float offset) {
    float product = (float)dot * scale;
    return sum + d * (product - offset * act_sum);
}

/* weight = d q + m:  sum += d * (scale * dot);  sum += m * sum of activations */
static inline float add_shifted(float sum, float d, float m, int dot, float scale, float act_sum) {
    float product = (float)dot * scale;
    sum += d * product;
    return sum + m * act_sum;
}

/* For every group, block b, row r: `decode` fills q; for every column, with the codes a, scale s and sum t of its block:
 * y = `accumulate` of the former y. */
#define DEFINE_MATMUL(suffix, code, decode, accumulate)                                                      \
    void oc_matmul_##suffix##_generic(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0, \
                                      int64_t g1) {                                                          \
        int64_t n_blocks = x->k / 32;                                                                        \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const oc_packed_##suffix *w = (const oc_packed_##suffix *)packed + g * n_blocks;                 \
            for (int64_t c = 0; c < x->n; c++) memset(y + c * ldy + 8 * g, 0, 8 * sizeof *y);                \
            for (int64_t b = 0; b < n_blocks; b++, w++) {                                                    \
                for (int r = 0; r < 8; r++) {                                                                \
                    code q[32];                                                                              \
                    decode;                                                                                  \
                    float d = oc_f16_to_f32(w->d[r]);                                                        \
                    for (int64_t c = 0; c < x->n; c++) {                                                     \
                        const int8_t *a = x->codes + c * x->k + 32 * b;                                      \
                        float s = x->scale[c * n_blocks + b], t = x->sum[c * n_blocks + b];                  \
                        float *sum = y + c * ldy + 8 * g + r;                                                \
                        *sum = accumulate;                                                                   \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

DEFINE_MATMUL(q4_0, uint8_t, oc_codes_q4(w->qs, r, q), add_centred(*sum, d, dot_unsigned(q, a), s, t, 8))
DEFINE_MATMUL(q4_1, uint8_t, oc_codes_q4(w->qs, r, q),
              add_shifted(*sum, d, oc_f16_to_f32(w->m[r]), dot_unsigned(q, a), s, t))
DEFINE_MATMUL(q5_0, uint8_t, oc_codes_q5(w->qh, w->qs, r, q), add_centred(*sum, d, dot_unsigned(q, a), s, t, 16))
DEFINE_MATMUL(q5_1, uint8_t, oc_codes_q5(w->qh, w->qs, r, q),
              add_shifted(*sum, d, oc_f16_to_f32(w->m[r]), dot_unsigned(q, a), s, t))
DEFINE_MATMUL(q8_0, int8_t, for (int j = 0; j < 8; j++) memcpy(q + 4 * j, w->qs[j][r], 4),
              add_centred(*sum, d, dot_signed(q, a), s, t, 0))
