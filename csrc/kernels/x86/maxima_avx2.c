/* maxima_avx2.c - the largest value of each run of 32. */
#include "kernels/x86/target_avx2.h"

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

void oc_maxima_avx2(const float *x, int64_t n, float *y) {
    const __m256 least = _mm256_set1_ps(-INFINITY);
    int64_t i = 0;
    for (; i + OC_RUN <= n; i += OC_RUN) {
        __m256 top[4];
        for (int j = 0; j < 4; j++) top[j] = _mm256_max_ps(_mm256_loadu_ps(x + i + j * 8), least); /* NaN loses */
        y[i / OC_RUN] = oc_max_avx2(_mm256_max_ps(_mm256_max_ps(top[0], top[1]), _mm256_max_ps(top[2], top[3])));
    }
    if (i == n) return;
    float top = -INFINITY;
    for (int64_t at = i; at < n; at++) top = x[at] > top ? x[at] : top;
    y[i / OC_RUN] = top;
}

#include "kernels/x86/target_end.h"
