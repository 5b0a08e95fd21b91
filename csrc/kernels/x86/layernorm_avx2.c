/* layernorm_avx2.c - layernorm with 32 partial sums in float; sums outside the range of floats go to the
 * reference. */
#include "kernels/x86/target_avx2.h"

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

extern void oc_layernorm_generic(const float *x, const float *w, const float *b, float *y, int64_t n,
                                 float eps);

static inline float total(const __m256 part[4]) {
    return oc_sum_avx2(_mm256_add_ps(_mm256_add_ps(part[0], part[1]), _mm256_add_ps(part[2], part[3])));
}

static float sum_of(const float *x, int64_t n) {
    __m256 part[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 4; j++) part[j] = _mm256_add_ps(part[j], _mm256_loadu_ps(x + i + j * 8));
    for (; i + 8 <= n; i += 8) part[0] = _mm256_add_ps(part[0], _mm256_loadu_ps(x + i));
    float sum = total(part);
    for (; i < n; i++) sum += x[i];
    return sum;
}

/* The sum of (x - mean)^2. */
static float squares_of(const float *x, float mean, int64_t n) {
    __m256 part[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    const __m256 means = _mm256_set1_ps(mean);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 4; j++) {
            const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i + j * 8), means);
            part[j] = _mm256_fmadd_ps(v, v, part[j]);
        }
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), means);
        part[0] = _mm256_fmadd_ps(v, v, part[0]);
    }
    float sum = total(part);
    for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

void oc_layernorm_avx2(const float *x, const float *w, const float *b, float *y, int64_t n, float eps) {
    const float mean = sum_of(x, n) / (float)n, squares = squares_of(x, mean, n);
    if (!(squares > 1e-25f && squares < 1e38f)) { /* lost to overflow or underflow */
        oc_layernorm_generic(x, w, b, y, n, eps);
        return;
    }
    const float scale = (float)(1.0 / sqrt((double)squares / (double)n + (double)eps));
    const __m256 means = _mm256_set1_ps(mean), scales = _mm256_set1_ps(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), means), scales);
        const __m256 bias = b ? _mm256_loadu_ps(b + i) : _mm256_setzero_ps();
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(v, _mm256_loadu_ps(w + i), bias));
    }
    for (; i < n; i++) y[i] = (x[i] - mean) * scale * w[i] + (b ? b[i] : 0);
}

#include "kernels/x86/target_end.h"
