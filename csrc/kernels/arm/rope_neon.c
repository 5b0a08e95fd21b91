/* rope_neon.c - rotary embedding of one head, four pairs at a time. */
#include <arm_neon.h>

#include "kernels/kernels.h"

static inline float32x4x2_t rotate4(float32x4_t a, float32x4_t b, const float *cos, const float *sin) {
    const float32x4_t c = vld1q_f32(cos), s = vld1q_f32(sin);
    return (float32x4x2_t){{vfmsq_f32(vmulq_f32(a, c), b, s), vfmaq_f32(vmulq_f32(a, s), b, c)}};
}

static void rotate(float *a, float *b, float cos, float sin) {
    const float old = *a;
    *a = old * cos - *b * sin;
    *b = *b * cos + old * sin;
}

void oc_rope_neon(float *x, const float *cos, const float *sin, int64_t n_rot, int neox) {
    const int64_t half = n_rot / 2;
    int64_t i = 0;
    if (neox) {
        for (; i + 4 <= half; i += 4) {
            const float32x4x2_t pairs = rotate4(vld1q_f32(x + i), vld1q_f32(x + half + i), cos + i, sin + i);
            vst1q_f32(x + i, pairs.val[0]);
            vst1q_f32(x + half + i, pairs.val[1]);
        }
        for (; i < half; i++) rotate(x + i, x + half + i, cos[i], sin[i]);
        return;
    }
    for (; i + 4 <= half; i += 4) {
        const float32x4x2_t pairs = vld2q_f32(x + 2 * i);
        vst2q_f32(x + 2 * i, rotate4(pairs.val[0], pairs.val[1], cos + i, sin + i));
    }
    for (; i < half; i++) rotate(x + 2 * i, x + 2 * i + 1, cos[i], sin[i]);
}
