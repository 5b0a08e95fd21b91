/* gelu_avx2.c - the activation gelu: max(x, 0) - |x| P(N > |x|), without cancellation on either side. */
#include "kernels/x86/target_avx2.h"

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

static inline __m256 gelu8(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    /* these operand orders keep NaN */
    const __m256 a = _mm256_min_ps(_mm256_set1_ps(OC_TAIL_MAX), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x));
    const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(a, _mm256_set1_ps(OC_TAIL_SLOPE), one));
    __m256 r = _mm256_fmadd_ps(_mm256_set1_ps(OC_TAIL_R7), t, _mm256_set1_ps(OC_TAIL_R6));
    r = _mm256_fmadd_ps(r, t, _mm256_set1_ps(OC_TAIL_R5));
    r = _mm256_fmadd_ps(r, t, _mm256_set1_ps(OC_TAIL_R4));
    r = _mm256_fmadd_ps(r, t, _mm256_set1_ps(OC_TAIL_R3));
    r = _mm256_fmadd_ps(r, t, _mm256_set1_ps(OC_TAIL_R2));
    r = _mm256_fmadd_ps(r, t, _mm256_set1_ps(OC_TAIL_R1));
    r = _mm256_fmadd_ps(r, t, _mm256_set1_ps(OC_TAIL_R0));
    const __m256 e = oc_exp_avx2(_mm256_mul_ps(_mm256_mul_ps(a, a), _mm256_set1_ps(-0.5f)));
    const __m256 tail = _mm256_mul_ps(_mm256_mul_ps(e, t), r);
    return _mm256_fnmadd_ps(a, tail, _mm256_max_ps(_mm256_setzero_ps(), x));
}

/* The last n < 8 elements take the same path as the rest, so that a value does not depend on its place. */
void oc_gelu_avx2(float *x, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, gelu8(_mm256_loadu_ps(x + i)));
    if (i == n) return;
    float last[8] = {0};
    memcpy(last, x + i, (size_t)(n - i) * sizeof(float));
    _mm256_storeu_ps(last, gelu8(_mm256_loadu_ps(last)));
    memcpy(x + i, last, (size_t)(n - i) * sizeof(float));
}

#include "kernels/x86/target_end.h"
