/* glu_avx2.c - the gated activations swiglu and geglu, and gelu_tanh: geglu of ones. */
#include "kernels/x86/target_avx2.h"

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

/* g / (1 + e^(-u)) * up */
static inline __m256 gated(__m256 g, __m256 u, __m256 up) {
    __m256 e = oc_exp_avx2(_mm256_xor_ps(u, _mm256_set1_ps(-0.0f)));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

static inline __m256 swiglu8(__m256 g, __m256 up) { return gated(g, g, up); }

static inline __m256 geglu8(__m256 g, __m256 up) {
    __m256 slope =
        _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(0.0713548162726f), _mm256_set1_ps(1.5957691216f));
    return gated(g, _mm256_mul_ps(g, slope), up);
}

/* The last n < 8 elements take the same path as the rest, so that a value does not depend on its place. */
#define GLU(name, eight)                                                                                     \
    void name(const float *gate, const float *up, float *y, int64_t n) {                                     \
        int64_t i = 0;                                                                                       \
        for (; i + 8 <= n; i += 8)                                                                           \
            _mm256_storeu_ps(y + i, eight(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));              \
        if (i == n) return;                                                                                  \
        float g[8] = {0}, u[8] = {0};                                                                        \
        memcpy(g, gate + i, (size_t)(n - i) * sizeof(float));                                                \
        memcpy(u, up + i, (size_t)(n - i) * sizeof(float));                                                  \
        _mm256_storeu_ps(g, eight(_mm256_loadu_ps(g), _mm256_loadu_ps(u)));                                  \
        memcpy(y + i, g, (size_t)(n - i) * sizeof(float));                                                   \
    }

GLU(oc_swiglu_avx2, swiglu8)
GLU(oc_geglu_avx2, geglu8)

void oc_gelu_tanh_avx2(float *x, int64_t n) {
    const __m256 one = _mm256_set1_ps(1.0f);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, geglu8(_mm256_loadu_ps(x + i), one));
    if (i == n) return;
    float last[8] = {0};
    memcpy(last, x + i, (size_t)(n - i) * sizeof(float));
    _mm256_storeu_ps(last, geglu8(_mm256_loadu_ps(last), one));
    memcpy(x + i, last, (size_t)(n - i) * sizeof(float));
}

#include "kernels/x86/target_end.h"
