/* layernorm.c - reference of op layernorm. */
#include <math.h>

#include "kernels/kernels.h"

void oc_layernorm_generic(const float *x, const float *w, const float *b, float *y, int64_t n, float eps) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    double scale = 1.0 / sqrt(squares / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++) y[i] = (float)((x[i] - mean) * scale * w[i] + (b ? b[i] : 0));
}
