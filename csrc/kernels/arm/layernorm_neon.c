/* layernorm_neon.c - layernorm with 16 partial sums in float; sums outside the range of floats go to the
 * reference. */
#include <arm_neon.h>
#include <math.h>

#include "kernels/kernels.h"

extern void oc_layernorm_generic(const float *x, const float *w, const float *b, float *y, int64_t n,
                                 float eps);

static inline float total(const float32x4_t part[4]) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(part[0], part[1]), vaddq_f32(part[2], part[3])));
}

static float sum_of(const float *x, int64_t n) {
    float32x4_t part[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) part[j] = vaddq_f32(part[j], vld1q_f32(x + i + 4 * j));
    for (; i + 4 <= n; i += 4) part[0] = vaddq_f32(part[0], vld1q_f32(x + i));
    float sum = total(part);
    for (; i < n; i++) sum += x[i];
    return sum;
}

/* The sum of (x - mean)^2. */
static float squares_of(const float *x, float mean, int64_t n) {
    float32x4_t part[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    const float32x4_t means = vdupq_n_f32(mean);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) {
            const float32x4_t v = vsubq_f32(vld1q_f32(x + i + 4 * j), means);
            part[j] = vfmaq_f32(part[j], v, v);
        }
    for (; i + 4 <= n; i += 4) {
        const float32x4_t v = vsubq_f32(vld1q_f32(x + i), means);
        part[0] = vfmaq_f32(part[0], v, v);
    }
    float sum = total(part);
    for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

void oc_layernorm_neon(const float *x, const float *w, const float *b, float *y, int64_t n, float eps) {
    const float mean = sum_of(x, n) / (float)n, squares = squares_of(x, mean, n);
    if (!(squares > 1e-25f && squares < 1e38f)) { /* lost to overflow or underflow */
        oc_layernorm_generic(x, w, b, y, n, eps);
        return;
    }
    const float scale = (float)(1.0 / sqrt((double)squares / (double)n + (double)eps));
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t v = vmulq_n_f32(vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(mean)), scale);
        vst1q_f32(y + i, vfmaq_f32(b ? vld1q_f32(b + i) : vdupq_n_f32(0), v, vld1q_f32(w + i)));
    }
    for (; i < n; i++) y[i] = (x[i] - mean) * scale * w[i] + (b ? b[i] : 0);
}
