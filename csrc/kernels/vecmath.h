/* vecmath.h - exp, tanh and the normal distribution in plain C that a compiler vectorises for any target; 1-2 ulp, no libm. */
#ifndef OC_KERNELS_VECMATH_H
#define OC_KERNELS_VECMATH_H

#include <math.h>

#include "base/fp16.h"

/* x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts whose first times n is exact;
 * e^r = 1 + r + r^2 Q(r), Q of degree 5 (Chebyshev interpolation), relative error 8e-10 before rounding. */
#define OC_EXP_LOG2E 0x1.715476p+0f
#define OC_EXP_LN2_HIGH 0x1.62e4p-1f
#define OC_EXP_LN2_LOW 0x1.7f7d1cp-20f
#define OC_EXP_ROUND 0x1.8p+23f /* adding it rounds to an integer, held by the low bits */
#define OC_EXP_Q0 0x1.000000p-1f
#define OC_EXP_Q1 0x1.555556p-3f
#define OC_EXP_Q2 0x1.5554e8p-5f
#define OC_EXP_Q3 0x1.1110e0p-7f
#define OC_EXP_Q4 0x1.6d44b2p-10f
#define OC_EXP_Q5 0x1.a12652p-13f
#define OC_EXP_MAX 89.0f  /* from here on infinity */
#define OC_EXP_MIN -86.9f /* below: 0, just before results would be subnormal */

/* e^r - 1, and in *half the float 2^(n-1), which exists up to n = 128; OC_EXP_MIN <= x <= OC_EXP_MAX. */
static inline float oc_exp_parts(float x, float *half) {
    float shifted = x * OC_EXP_LOG2E + OC_EXP_ROUND, n = shifted - OC_EXP_ROUND;
    float r = (x - n * OC_EXP_LN2_HIGH) - n * OC_EXP_LN2_LOW;
    float q = OC_EXP_Q5 * r + OC_EXP_Q4;
    q = q * r + OC_EXP_Q3;
    q = q * r + OC_EXP_Q2;
    q = q * r + OC_EXP_Q1;
    q = q * r + OC_EXP_Q0;
    *half = oc_bits_to_f32((oc_f32_to_bits(shifted) + 126u) << 23);
    return q * r * r + r;
}

static inline float oc_expf(float x) {
    float half, capped = x > OC_EXP_MAX ? OC_EXP_MAX : x; /* NaN stays */
    float y = oc_exp_parts(capped, &half);
    return x < OC_EXP_MIN ? 0.0f : 2.0f * (y * half + half);
}

/* tanh x = m / (m + 2) with m = e^(2x) - 1, which keeps relative accuracy near 0. */
static inline float oc_tanhf(float x) {
    float half, a = fabsf(x);
    a = a > 10.0f ? 10.0f : a; /* tanh 10 rounds to 1; NaN stays */
    float y = oc_exp_parts(2.0f * a, &half);
    float m = 2.0f * (y * half) + (2.0f * half - 1.0f);
    return copysignf(m / (m + 2.0f), x);
}

/* P(N > a) = e^(-a^2/2) t R(t) with t = 1 / (1 + OC_TAIL_SLOPE a), for a >= 0; R of degree 7 (least squares of the
 * relative error, 1.4e-7). From OC_TAIL_MAX on it is 0 as far as floats go. */
#define OC_TAIL_SLOPE 0.23f
#define OC_TAIL_MAX 20.0f
#define OC_TAIL_R0 0x1.7870b0p-4f
#define OC_TAIL_R1 0x1.6d5112p-4f
#define OC_TAIL_R2 0x1.b185a0p-4f
#define OC_TAIL_R3 0x1.0ad17ep-14f
#define OC_TAIL_R4 0x1.024098p-2f
#define OC_TAIL_R5 -0x1.de5448p-3f
#define OC_TAIL_R6 0x1.127fd6p-2f
#define OC_TAIL_R7 -0x1.2de322p-4f

#endif
