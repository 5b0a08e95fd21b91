/* gelu.c - reference of op gelu. */
#include <math.h>

#include "kernels/kernels.h"

/* The complement keeps relative accuracy at negative x, which is bounded because infinity times 0 is no number. */
void oc_gelu_generic(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double value = x[i] < -40.0f ? 0.0 : x[i];
        x[i] = (float)(0.5 * value * erfc(-value * 0.70710678118654752));
    }
}
