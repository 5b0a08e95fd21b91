/* matmul_float.c - reference matmul of F32, F16 and BF16 weights with unquantised activations.
 * An output is four running sums over k mod 4, joined as (0 + 1) + (2 + 3): the order of every variant. */
#include "base/fp16.h"
#include "kernels/kernels.h"
#include "quant/blocks.h"

static inline float from_f32(const oc_packed_f32 *w, int r) { return w->w[r]; }
static inline float from_f16(const oc_packed_16 *w, int r) { return oc_f16_to_f32(w->w[r]); }
static inline float from_bf16(const oc_packed_16 *w, int r) { return oc_bf16_to_f32(w->w[r]); }

#define DEFINE_MATMUL(suffix, block)                                                                         \
    void oc_matmul_##suffix##_generic(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0, \
                                      int64_t g1) {                                                          \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const block *w = (const block *)packed + g * x->k;                                               \
            for (int64_t c = 0; c < x->n; c++) {                                                             \
                const float *column = x->f32 + c * x->k;                                                     \
                float sum[4][8] = {{0}};                                                                     \
                for (int64_t i = 0; i < x->k; i++)                                                           \
                    for (int r = 0; r < 8; r++) sum[i % 4][r] += from_##suffix(w + i, r) * column[i];        \
                for (int r = 0; r < 8; r++)                                                                  \
                    y[c * ldy + 8 * g + r] = (sum[0][r] + sum[1][r]) + (sum[2][r] + sum[3][r]);              \
            }                                                                                                \
        }                                                                                                    \
    }

DEFINE_MATMUL(f32, oc_packed_f32)
DEFINE_MATMUL(f16, oc_packed_16)
DEFINE_MATMUL(bf16, oc_packed_16)
