/* glu.c - references of the gated activations swiglu and geglu, and of gelu_tanh, which is the gate of geglu. */
#include "kernels/kernels.h"
#include "kernels/vecmath.h"

void oc_swiglu_generic(const float *gate, const float *up, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = gate[i] / (1.0f + oc_expf(-gate[i])) * up[i];
}

/* 0.5 g (1 + tanh u) = g / (1 + e^(-2u)), u = sqrt(2/pi) (g + 0.044715 g^3): no cancellation at negative g.
 */
static inline float gelu_tanh(float g) {
    float u2 = g * (1.5957691216f + 0.0713548162726f * g * g);
    return g / (1.0f + oc_expf(-u2));
}

void oc_geglu_generic(const float *gate, const float *up, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = gelu_tanh(gate[i]) * up[i];
}

void oc_gelu_tanh_generic(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = gelu_tanh(x[i]);
}
