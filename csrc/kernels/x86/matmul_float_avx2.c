/* matmul_float_avx2.c - AVX2 matmul of F32, F16 and BF16 weights: one group of rows in a vector. */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

typedef __m256 vector;

OC_INLINE vector v_zero(void) { return _mm256_setzero_ps(); }
OC_INLINE vector v_set(float x) { return _mm256_set1_ps(x); }
OC_INLINE vector v_add(vector x, vector y) { return _mm256_add_ps(x, y); }
OC_INLINE vector v_fma(vector x, vector y, vector z) { return _mm256_fmadd_ps(x, y, z); }
OC_INLINE void v_store(float *out, vector v, int groups) { _mm256_storeu_ps(out, v); }

OC_INLINE vector load_f32(const oc_packed_f32 *w, int64_t stride) { return _mm256_loadu_ps(w->w); }
OC_INLINE vector load_f16(const oc_packed_16 *w, int64_t stride) { return oc_halves(w->w); }
OC_INLINE vector load_bf16(const oc_packed_16 *w, int64_t stride) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)w->w));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

#define GROUPS 1
#define NARROW 3
#define WIDE 6 /* 12 sums */
#define OC_ROW(suffix) oc_matmul_##suffix##_avx2
#include "kernels/x86/matmul_float.inc"

#include "kernels/x86/target_end.h"
