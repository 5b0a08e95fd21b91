/* gelu_neon.c - the activation gelu: max(x, 0) - |x| P(N > |x|), without cancellation on either side. */
#include <string.h>

#include "kernels/arm/vecmath_neon.h"
#include "kernels/kernels.h"

static inline float32x4_t gelu4(float32x4_t x) {
    const float32x4_t one = vdupq_n_f32(1.0f), a = vminq_f32(vabsq_f32(x), vdupq_n_f32(OC_TAIL_MAX));
    const float32x4_t t = vdivq_f32(one, vfmaq_n_f32(one, a, OC_TAIL_SLOPE));
    float32x4_t r = vfmaq_n_f32(vdupq_n_f32(OC_TAIL_R6), t, OC_TAIL_R7);
    r = vfmaq_f32(vdupq_n_f32(OC_TAIL_R5), r, t);
    r = vfmaq_f32(vdupq_n_f32(OC_TAIL_R4), r, t);
    r = vfmaq_f32(vdupq_n_f32(OC_TAIL_R3), r, t);
    r = vfmaq_f32(vdupq_n_f32(OC_TAIL_R2), r, t);
    r = vfmaq_f32(vdupq_n_f32(OC_TAIL_R1), r, t);
    r = vfmaq_f32(vdupq_n_f32(OC_TAIL_R0), r, t);
    const float32x4_t e = oc_exp_neon(vmulq_n_f32(vmulq_f32(a, a), -0.5f));
    return vfmsq_f32(vmaxq_f32(vdupq_n_f32(0), x), a, vmulq_f32(vmulq_f32(e, t), r));
}

/* The last n < 4 elements take the same path as the rest, so that a value does not depend on its place. */
void oc_gelu_neon(float *x, int64_t n) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, gelu4(vld1q_f32(x + i)));
    if (i == n) return;
    float last[4] = {0};
    memcpy(last, x + i, (size_t)(n - i) * sizeof(float));
    vst1q_f32(last, gelu4(vld1q_f32(last)));
    memcpy(x + i, last, (size_t)(n - i) * sizeof(float));
}
