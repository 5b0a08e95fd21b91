/* target_avxvnni.h - stands in for the header of this name, so that the AVX-VNNI kernels can be tested on
 * processors without AVX-VNNI: with EVEX defined vpdpbusd is that of AVX-512, else it is put together from
 * AVX2. */
#if defined(EVEX)
#include "../../../../../csrc/kernels/x86/target_avx512vnni.h"
#else
#include "../../../../../csrc/kernels/x86/target_avx2.h"

#undef _mm256_dpbusd_epi32
#define _mm256_dpbusd_epi32 dpbusd_of_avx2

/* Even and odd bytes apart: no int16 product can saturate. */
static inline __attribute__((always_inline)) __m256i dpbusd_of_avx2(__m256i sum, __m256i u, __m256i s) {
    const __m256i low = _mm256_set1_epi16(255);
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, low),
                                           _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#endif
