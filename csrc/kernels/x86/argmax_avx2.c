/* argmax_avx2.c - argmax in two passes: the maximum, then its first place. */
#include "kernels/x86/target_avx2.h"

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

int64_t oc_argmax_avx2(const float *x, int64_t n) {
    __m256 top[4];
    for (int j = 0; j < 4; j++) top[j] = _mm256_set1_ps(-INFINITY);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) /* the second operand wins against NaN */
        for (int j = 0; j < 4; j++) top[j] = _mm256_max_ps(_mm256_loadu_ps(x + i + j * 8), top[j]);
    float max = oc_max_avx2(_mm256_max_ps(_mm256_max_ps(top[0], top[1]), _mm256_max_ps(top[2], top[3])));
    for (; i < n; i++) max = x[i] > max ? x[i] : max;

    for (i = 0; i + 8 <= n; i += 8) {
        int hits = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(max), _CMP_EQ_OQ));
        if (hits) return i + __builtin_ctz((unsigned)hits);
    }
    for (; i < n; i++)
        if (x[i] == max) return i;
    return 0; /* nothing but NaN */
}

#include "kernels/x86/target_end.h"
