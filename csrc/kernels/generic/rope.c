/* rope.c - reference of op rope. */
#include "kernels/kernels.h"

void oc_rope_generic(float *x, const float *cos, const float *sin, int64_t n_rot, int neox) {
    int64_t half = n_rot / 2, step = neox ? 1 : 2, partner = neox ? half : 1;
    for (int64_t i = 0; i < half; i++) {
        float *pair = x + i * step, a = pair[0], b = pair[partner];
        pair[0] = a * cos[i] - b * sin[i];
        pair[partner] = b * cos[i] + a * sin[i];
    }
}
