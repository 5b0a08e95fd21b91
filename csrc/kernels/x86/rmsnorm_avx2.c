/* rmsnorm_avx2.c - rmsnorm with 32 partial sums in float; sums outside the safe range of floats go to the
 * reference. */
#include "kernels/x86/target_avx2.h"

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

extern void oc_rmsnorm_generic(const float *x, const float *w, float *y, int64_t n, float eps);

void oc_rmsnorm_avx2(const float *x, const float *w, float *y, int64_t n, float eps) {
    __m256 part[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 4; j++) {
            __m256 v = _mm256_loadu_ps(x + i + j * 8);
            part[j] = _mm256_fmadd_ps(v, v, part[j]);
        }
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        part[0] = _mm256_fmadd_ps(v, v, part[0]);
    }
    float sum = oc_sum_avx2(_mm256_add_ps(_mm256_add_ps(part[0], part[1]), _mm256_add_ps(part[2], part[3])));
    for (; i < n; i++) sum += x[i] * x[i];
    if (!(sum > 1e-25f && sum < 1e38f)) { /* squares may have been lost to underflow or overflow */
        oc_rmsnorm_generic(x, w, y, n, eps);
        return;
    }
    float scale = (float)(1.0 / sqrt((double)sum / (double)n + (double)eps));
    __m256 scales = _mm256_set1_ps(scale);
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), scales);
        _mm256_storeu_ps(y + i, w ? _mm256_mul_ps(v, _mm256_loadu_ps(w + i)) : v);
    }
    for (; i < n; i++) y[i] = x[i] * scale * (w ? w[i] : 1.0f);
}

#include "kernels/x86/target_end.h"
