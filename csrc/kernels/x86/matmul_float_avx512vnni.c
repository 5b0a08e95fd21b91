/* matmul_float_avx512vnni.c - AVX-512 matmul of F32, F16 and BF16 weights: two groups of rows in a vector. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/matmul_avx512.h"

typedef __m512 vector;

OC_INLINE vector v_zero(void) { return _mm512_setzero_ps(); }
OC_INLINE vector v_set(float x) { return _mm512_set1_ps(x); }
OC_INLINE vector v_add(vector x, vector y) { return _mm512_add_ps(x, y); }
OC_INLINE vector v_fma(vector x, vector y, vector z) { return _mm512_fmadd_ps(x, y, z); }
OC_INLINE void v_store(float *out, vector v, int groups) { oc_store2(out, v, groups > 1); }

OC_INLINE vector load_f32(const oc_packed_f32 *w, int64_t stride) {
    return _mm512_castsi512_ps(oc_load2(w->w, w[stride].w));
}
OC_INLINE vector load_f16(const oc_packed_16 *w, int64_t stride) { return oc_halves2(w->w, w[stride].w); }
OC_INLINE vector load_bf16(const oc_packed_16 *w, int64_t stride) {
    const __m128i first = _mm_loadu_si128((const __m128i *)w->w);
    const __m128i second = _mm_loadu_si128((const __m128i *)w[stride].w);
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(both), 16));
}

#define GROUPS 2
#define NARROW 4
#define WIDE 12 /* 24 sums */
#define OC_ROW(suffix) oc_matmul_##suffix##_avx512vnni
#include "kernels/x86/matmul_float.inc"

#include "kernels/x86/target_end.h"
