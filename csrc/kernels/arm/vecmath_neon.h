/* vecmath_neon.h - exp and tanh of four floats, the formulas of kernels/vecmath.h with fused multiply-adds.
 */
#ifndef OC_KERNELS_ARM_VECMATH_NEON_H
#define OC_KERNELS_ARM_VECMATH_NEON_H

#include <arm_neon.h>

#include "kernels/vecmath.h"

/* As oc_exp_parts. */
static inline float32x4_t oc_exp_parts_neon(float32x4_t x, float32x4_t *half) {
    const float32x4_t round = vdupq_n_f32(OC_EXP_ROUND), shifted = vfmaq_n_f32(round, x, OC_EXP_LOG2E);
    const float32x4_t n = vsubq_f32(shifted, round);
    const float32x4_t r = vfmsq_n_f32(vfmsq_n_f32(x, n, OC_EXP_LN2_HIGH), n, OC_EXP_LN2_LOW);
    float32x4_t q = vfmaq_n_f32(vdupq_n_f32(OC_EXP_Q4), r, OC_EXP_Q5);
    q = vfmaq_f32(vdupq_n_f32(OC_EXP_Q3), q, r);
    q = vfmaq_f32(vdupq_n_f32(OC_EXP_Q2), q, r);
    q = vfmaq_f32(vdupq_n_f32(OC_EXP_Q1), q, r);
    q = vfmaq_f32(vdupq_n_f32(OC_EXP_Q0), q, r);
    const uint32x4_t exponent = vaddq_u32(vreinterpretq_u32_f32(shifted), vdupq_n_u32(126));
    *half = vreinterpretq_f32_u32(vshlq_n_u32(exponent, 23));
    return vfmaq_f32(r, vmulq_f32(q, r), r);
}

static inline float32x4_t oc_exp_neon(float32x4_t x) {
    float32x4_t half,
        y = oc_exp_parts_neon(vminq_f32(x, vdupq_n_f32(OC_EXP_MAX)), &half); /* vminq keeps NaN */
    y = vfmaq_f32(half, y, half);
    y = vaddq_f32(y, y);
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcltq_f32(x, vdupq_n_f32(OC_EXP_MIN))));
}

static inline float32x4_t oc_tanh_neon(float32x4_t x) {
    const float32x4_t a = vminq_f32(vabsq_f32(x), vdupq_n_f32(10.0f));
    float32x4_t half, y = oc_exp_parts_neon(vaddq_f32(a, a), &half);
    const float32x4_t scale = vaddq_f32(half, half);
    const float32x4_t m = vfmaq_f32(vsubq_f32(scale, vdupq_n_f32(1.0f)), y, scale);
    return vbslq_f32(vdupq_n_u32(0x80000000u), x, vdivq_f32(m, vaddq_f32(m, vdupq_n_f32(2.0f))));
}

#endif
