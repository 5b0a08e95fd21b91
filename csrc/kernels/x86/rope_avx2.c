/* rope_avx2.c - rotary embedding of one head, eight elements at a time. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"

static void rotate(float *a, float *b, float cos, float sin) {
    float old = *a;
    *a = old * cos - *b * sin;
    *b = *b * cos + old * sin;
}

void oc_rope_avx2(float *x, const float *cos, const float *sin, int64_t n_rot, int neox) {
    int64_t half = n_rot / 2, i = 0;
    if (neox) {
        for (; i + 8 <= half; i += 8) {
            __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i);
            __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
            _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
            _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
        }
        for (; i < half; i++) rotate(x + i, x + half + i, cos[i], sin[i]);
        return;
    }
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (; i + 4 <= half; i += 4) {
        __m256 v = _mm256_loadu_ps(x + 2 * i), swapped = _mm256_permute_ps(v, 0xB1);
        __m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cos + i)), twice);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sin + i)), twice);
        _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, c, _mm256_mul_ps(swapped, s)));
    }
    for (; i < half; i++) rotate(x + 2 * i, x + 2 * i + 1, cos[i], sin[i]);
}

#include "kernels/x86/target_end.h"
