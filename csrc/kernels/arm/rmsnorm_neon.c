/* rmsnorm_neon.c - rmsnorm with 16 partial sums in float; sums outside the safe range of floats go to the
 * reference. */
#include <arm_neon.h>
#include <math.h>

#include "kernels/kernels.h"

extern void oc_rmsnorm_generic(const float *x, const float *w, float *y, int64_t n, float eps);

void oc_rmsnorm_neon(const float *x, const float *w, float *y, int64_t n, float eps) {
    float32x4_t part[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) {
            const float32x4_t v = vld1q_f32(x + i + 4 * j);
            part[j] = vfmaq_f32(part[j], v, v);
        }
    for (; i + 4 <= n; i += 4) {
        const float32x4_t v = vld1q_f32(x + i);
        part[0] = vfmaq_f32(part[0], v, v);
    }
    float sum = vaddvq_f32(vaddq_f32(vaddq_f32(part[0], part[1]), vaddq_f32(part[2], part[3])));
    for (; i < n; i++) sum += x[i] * x[i];
    if (!(sum > 1e-25f && sum < 1e38f)) { /* squares may have been lost to underflow or overflow */
        oc_rmsnorm_generic(x, w, y, n, eps);
        return;
    }
    const float scale = (float)(1.0 / sqrt((double)sum / (double)n + (double)eps));
    for (i = 0; i + 4 <= n; i += 4) {
        const float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), scale);
        vst1q_f32(y + i, w ? vmulq_f32(v, vld1q_f32(w + i)) : v);
    }
    for (; i < n; i++) y[i] = x[i] * scale * (w ? w[i] : 1.0f);
}
