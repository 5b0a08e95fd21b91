/* maxima_neon.c - the largest value of each run of 32. */
#include <arm_neon.h>
#include <math.h>

#include "kernels/kernels.h"

/* The larger lanes; NaN in x loses, which the maximum instructions do not promise for signalling NaN. */
static inline float32x4_t larger(float32x4_t top, float32x4_t x) {
    return vbslq_f32(vcgtq_f32(x, top), x, top);
}

void oc_maxima_neon(const float *x, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + OC_RUN <= n; i += OC_RUN) {
        float32x4_t top[4];
        for (int j = 0; j < 4; j++) {
            top[j] = larger(vdupq_n_f32(-INFINITY), vld1q_f32(x + i + 4 * j));
            top[j] = larger(top[j], vld1q_f32(x + i + 16 + 4 * j));
        }
        y[i / OC_RUN] = vmaxvq_f32(larger(larger(top[0], top[1]), larger(top[2], top[3])));
    }
    if (i == n) return;
    float top = -INFINITY;
    for (int64_t at = i; at < n; at++) top = x[at] > top ? x[at] : top;
    y[i / OC_RUN] = top;
}
