/* matmul_float.c - reference matmul of F32, F16 and BF16 weights with unquantised activations.
 * An output is four running sums over k mod 4, joined as (0 + 1) + (2 + 3): the order of every variant. */
#include "base/fp16.h"
#include "kernels/kernels.h"
#include "quant/blocks.h"

static inline float from_f32(float w) { return w; }
static inline float from_f16(uint16_t w) { return oc_f16_to_f32(w); }
static inline float from_bf16(uint16_t w) { return oc_bf16_to_f32(w); }

#define COLUMNS 4 /* that share the converted weights */
#define CHUNK 32  /* elements of 8 rows converted at once */

#define DEFINE_MATMUL(suffix, block, type)                                                                   \
    /* the columns [c, c + cols) of one group */                                                             \
    static inline void tile_##suffix(const block *w, const oc_act *x, int64_t c, float *y, int64_t ldy,      \
                                     const int cols) {                                                       \
        float sum[COLUMNS][4][8] = {{{0}}}, weight[8 * CHUNK];                                               \
        for (int64_t at = 0; at < x->k; at += CHUNK) {                                                       \
            const int n = x->k - at < CHUNK ? (int)(x->k - at) : CHUNK;                                      \
            const type *from = (const type *)(w + at);                                                       \
            for (int i = 0; i < 8 * n; i++) weight[i] = from_##suffix(from[i]);                              \
            for (int j = 0; j < cols; j++)                                                                   \
                for (int i = 0; i < n; i++)                                                                  \
                    for (int r = 0; r < 8; r++)                                                              \
                        sum[j][i % 4][r] += weight[8 * i + r] * x->f32[(c + j) * x->stride + at + i];        \
        }                                                                                                    \
        for (int j = 0; j < cols; j++)                                                                       \
            for (int r = 0; r < 8; r++)                                                                      \
                y[(c + j) * ldy + r] = (sum[j][0][r] + sum[j][1][r]) + (sum[j][2][r] + sum[j][3][r]);        \
    }                                                                                                        \
    void oc_matmul_##suffix##_generic(const void *packed, const oc_act *x, float *y, int64_t ldy,            \
                                      int64_t g0, int64_t g1) {                                              \
        for (int64_t g = g0; g < g1; g++) {                                                                  \
            const block *w = (const block *)packed + g * x->k;                                               \
            int64_t c = 0;                                                                                   \
            for (; c + COLUMNS <= x->n; c += COLUMNS) tile_##suffix(w, x, c, y + 8 * g, ldy, COLUMNS);       \
            for (; c < x->n; c++) tile_##suffix(w, x, c, y + 8 * g, ldy, 1);                                 \
        }                                                                                                    \
    }

DEFINE_MATMUL(f32, oc_packed_f32, float)
DEFINE_MATMUL(f16, oc_packed_16, uint16_t)
DEFINE_MATMUL(bf16, oc_packed_16, uint16_t)
