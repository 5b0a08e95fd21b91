/* argmax_neon.c - argmax in two passes: the maximum, then its first place. */
#include <arm_neon.h>
#include <math.h>

#include "kernels/kernels.h"

/* The larger lanes; NaN in x loses, which the maximum instructions do not promise for signalling NaN. */
static inline float32x4_t larger(float32x4_t top, float32x4_t x) {
    return vbslq_f32(vcgtq_f32(x, top), x, top);
}

int64_t oc_argmax_neon(const float *x, int64_t n) {
    float32x4_t top[4];
    for (int j = 0; j < 4; j++) top[j] = vdupq_n_f32(-INFINITY);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) top[j] = larger(top[j], vld1q_f32(x + i + 4 * j));
    float max = vmaxvq_f32(larger(larger(top[0], top[1]), larger(top[2], top[3])));
    for (; i < n; i++) max = x[i] > max ? x[i] : max;

    const float32x4_t wanted = vdupq_n_f32(max);
    for (i = 0; i + 16 <= n; i += 16) {
        uint32x4_t hit = vceqq_f32(vld1q_f32(x + i), wanted);
        for (int j = 1; j < 4; j++) hit = vorrq_u32(hit, vceqq_f32(vld1q_f32(x + i + 4 * j), wanted));
        if (vmaxvq_u32(hit)) break;
    }
    for (; i < n; i++)
        if (x[i] == max) return i;
    return 0; /* nothing but NaN */
}
