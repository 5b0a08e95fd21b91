/* maxima.c - reference of op maxima. */
#include <math.h>

#include "kernels/kernels.h"

void oc_maxima_generic(const float *x, int64_t n, float *y) {
    for (int64_t start = 0; start < n; start += OC_RUN) {
        int64_t end = start + OC_RUN < n ? start + OC_RUN : n;
        float top = -INFINITY;
        for (int64_t i = start; i < end; i++) top = x[i] > top ? x[i] : top;
        y[start / OC_RUN] = top;
    }
}
