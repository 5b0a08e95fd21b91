/* matmul_k.c - reference matmul of the K formats: blocks of 256 with integer scales of sub-blocks.
 * The dot product of 32 elements, times its integer scale, is exact; the products with the activation scales are
 * summed in float over a block of 256, and the block's own scale is applied once. */
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"
#include "quant/codecs.h"

static inline int dot(const uint8_t *q, const int8_t *a, int n, int offset) {
    int sum = 0;
    for (int i = 0; i < n; i++) sum += (q[i] - offset) * a[i];
    return sum;
}

/* One row of one block of q4_k or q5_k, whose 256 codes are q, with one column. */
static inline float add_block_45(float sum, const uint8_t q[256], const uint8_t scale[8], const uint8_t min[8], float d,
                                 float dmin, const int8_t *a, const float *act_scale, const float *act_sum) {
    float products = 0, mins = 0;
    for (int s = 0; s < 8; s++) {
        products += (float)(dot(q + 32 * s, a + 32 * s, 32, 0) * scale[s]) * act_scale[s];
        mins += (float)min[s] * act_sum[s];
    }
    sum += d * products;
    return sum - dmin * mins;
}

#define DEFINE_MATMUL_45(suffix, decode_pair)                                                                \
    void oc_matmul_##suffix##_generic(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0, \
                                      int64_t g1) {                                                          \
        int64_t n_blocks = x->k / 256, n_scales = x->k / 32;                                                 \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const oc_packed_##suffix *w = (const oc_packed_##suffix *)packed + g * n_blocks;                 \
            for (int64_t c = 0; c < x->n; c++) memset(y + c * ldy + 8 * g, 0, 8 * sizeof *y);                \
            for (int64_t b = 0; b < n_blocks; b++, w++) {                                                    \
                for (int r = 0; r < 8; r++) {                                                                \
                    uint8_t q[256], scale[8], min[8];                                                        \
                    for (int p = 0; p < 4; p++) decode_pair;                                                 \
                    for (int s = 0; s < 8; s++) {                                                            \
                        scale[s] = w->pair[s / 2].scale[s % 2][r];                                           \
                        min[s] = w->pair[s / 2].min[s % 2][r];                                               \
                    }                                                                                        \
                    float d = oc_f16_to_f32(w->d[r]), dmin = oc_f16_to_f32(w->dmin[r]);                      \
                    for (int64_t c = 0; c < x->n; c++) {                                                     \
                        float *sum = y + c * ldy + 8 * g + r;                                                \
                        *sum = add_block_45(*sum, q, scale, min, d, dmin, x->codes + c * x->k + 256 * b,     \
                                            x->scale + c * n_scales + 8 * b, x->sum + c * n_scales + 8 * b); \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

DEFINE_MATMUL_45(q4_k, oc_codes_q4_k(w->pair[p].qs, r, q + 64 * p))
DEFINE_MATMUL_45(q5_k, oc_codes_q5_k(&w->pair[p], r, q + 64 * p))

/* Two scales per 32 elements: both products are added as integers. */
static inline float add_block_6(float sum, const uint8_t q[256], const int8_t scale[16], float d, const int8_t *a,
                                const float *act_scale) {
    float products = 0;
    for (int s = 0; s < 8; s++) {
        int first = dot(q + 32 * s, a + 32 * s, 16, 32) * scale[2 * s];
        int second = dot(q + 32 * s + 16, a + 32 * s + 16, 16, 32) * scale[2 * s + 1];
        products += (float)(first + second) * act_scale[s];
    }
    return sum + d * products;
}

void oc_matmul_q6_k_generic(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0, int64_t g1) {
    int64_t n_blocks = x->k / 256, n_scales = x->k / 32;
    for (int64_t g = g0; g < g1; g++) {
        const oc_packed_q6_k *w = (const oc_packed_q6_k *)packed + g * n_blocks;
        for (int64_t c = 0; c < x->n; c++) memset(y + c * ldy + 8 * g, 0, 8 * sizeof *y);
        for (int64_t b = 0; b < n_blocks; b++, w++) {
            for (int r = 0; r < 8; r++) {
                uint8_t q[256];
                int8_t scale[16];
                for (int p = 0; p < 4; p++) oc_codes_q6_k(&w->pair[p], r, q + 64 * p);
                for (int s = 0; s < 16; s++) scale[s] = w->pair[s / 4].scale[s % 4][r];
                for (int64_t c = 0; c < x->n; c++) {
                    float *sum = y + c * ldy + 8 * g + r;
                    *sum = add_block_6(*sum, q, scale, oc_f16_to_f32(w->d[r]), x->codes + c * x->k + 256 * b,
                                       x->scale + c * n_scales + 8 * b);
                }
            }
        }
    }
}
