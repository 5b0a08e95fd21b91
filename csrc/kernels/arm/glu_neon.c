/* glu_neon.c - the gated activations swiglu and geglu, and gelu_tanh: geglu of ones. */
#include <string.h>

#include "kernels/arm/vecmath_neon.h"
#include "kernels/kernels.h"

/* g / (1 + e^(-u)) * up */
static inline float32x4_t gated(float32x4_t g, float32x4_t u, float32x4_t up) {
    return vmulq_f32(vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), oc_exp_neon(vnegq_f32(u)))), up);
}

static inline float32x4_t swiglu4(float32x4_t g, float32x4_t up) { return gated(g, g, up); }

static inline float32x4_t geglu4(float32x4_t g, float32x4_t up) {
    const float32x4_t slope = vfmaq_n_f32(vdupq_n_f32(1.5957691216f), vmulq_f32(g, g), 0.0713548162726f);
    return gated(g, vmulq_f32(g, slope), up);
}

/* The last n < 4 elements take the same path as the rest, so that a value does not depend on its place. */
#define GLU(name, four)                                                                                      \
    void name(const float *gate, const float *up, float *y, int64_t n) {                                     \
        int64_t i = 0;                                                                                       \
        for (; i + 4 <= n; i += 4) vst1q_f32(y + i, four(vld1q_f32(gate + i), vld1q_f32(up + i)));           \
        if (i == n) return;                                                                                  \
        float g[4] = {0}, u[4] = {0};                                                                        \
        memcpy(g, gate + i, (size_t)(n - i) * sizeof(float));                                                \
        memcpy(u, up + i, (size_t)(n - i) * sizeof(float));                                                  \
        vst1q_f32(g, four(vld1q_f32(g), vld1q_f32(u)));                                                      \
        memcpy(y + i, g, (size_t)(n - i) * sizeof(float));                                                   \
    }

GLU(oc_swiglu_neon, swiglu4)
GLU(oc_geglu_neon, geglu4)

void oc_gelu_tanh_neon(float *x, int64_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, geglu4(vld1q_f32(x + i), one));
    if (i == n) return;
    float last[4] = {0};
    memcpy(last, x + i, (size_t)(n - i) * sizeof(float));
    vst1q_f32(last, geglu4(vld1q_f32(last), one));
    memcpy(x + i, last, (size_t)(n - i) * sizeof(float));
}
