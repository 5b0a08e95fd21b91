/* argmax.c - reference of op argmax. */
#include <math.h>

#include "kernels/kernels.h"

int64_t oc_argmax_generic(const float *x, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(x[i]) && (best < 0 || x[i] > x[best])) best = i;
    return best < 0 ? 0 : best; /* nothing but NaN */
}
