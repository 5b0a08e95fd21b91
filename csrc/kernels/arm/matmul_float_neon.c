/* matmul_float_neon.c - NEON matmul of F32, F16 and BF16 weights: four chains of fused multiply-adds over k
 * mod 4 per output, which hide the latency when there is one column; joined as (0 + 1) + (2 + 3). */
#include <arm_neon.h>

#include "kernels/arm/matmul_neon.h"

OC_INLINE oc_rows load_f32(const oc_packed_f32 *w) {
    return (oc_rows){{vld1q_f32(w->w), vld1q_f32(w->w + 4)}};
}
OC_INLINE oc_rows load_f16(const oc_packed_16 *w) { return oc_halves(w->w); }
OC_INLINE oc_rows load_bf16(const oc_packed_16 *w) {
    const uint16x8_t bits = vld1q_u16(w->w);
    return (oc_rows){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16)),
                      vreinterpretq_f32_u32(vshll_high_n_u16(bits, 16))}};
}

/* Chain j of all columns; a column takes 8 registers, so that 3 of them fit. */
#define STEP(suffix, j)                                                                                      \
    {                                                                                                        \
        const oc_rows v = load_##suffix(w + at + j);                                                         \
        for (int i = 0; i < cols; i++) acc[i][j] = oc_rows_fma(acc[i][j], v, f[i * x->stride + at + j]);     \
    }

#define DEFINE_FLOAT(suffix, block)                                                                          \
    OC_INLINE void tile_##suffix(const block *w, const oc_act *x, int64_t c, float *out, int64_t ldy,        \
                                 const int cols) {                                                           \
        const float *f = x->f32 + c * x->stride;                                                             \
        oc_rows acc[3][4];                                                                                   \
        for (int i = 0; i < cols; i++)                                                                       \
            for (int j = 0; j < 4; j++) acc[i][j] = oc_rows_of(0);                                           \
        int64_t at = 0;                                                                                      \
        for (; at + 4 <= x->k; at += 4)                                                                      \
            for (int j = 0; j < 4; j++) STEP(suffix, j)                                                      \
        for (int j = 0; j < 3; j++) {                                                                        \
            if (at + j >= x->k) break;                                                                       \
            STEP(suffix, j)                                                                                  \
        }                                                                                                    \
        for (int i = 0; i < cols; i++)                                                                       \
            for (int h = 0; h < 2; h++)                                                                      \
                vst1q_f32(out + i * ldy + 4 * h, vaddq_f32(vaddq_f32(acc[i][0].val[h], acc[i][1].val[h]),    \
                                                           vaddq_f32(acc[i][2].val[h], acc[i][3].val[h])));  \
    }                                                                                                        \
    OC_DEFINE_MATMUL(suffix, neon, tile_##suffix, block, 1, 3)

DEFINE_FLOAT(f32, oc_packed_f32)
DEFINE_FLOAT(f16, oc_packed_16)
DEFINE_FLOAT(bf16, oc_packed_16)
