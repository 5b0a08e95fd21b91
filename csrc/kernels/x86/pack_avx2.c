/* pack_avx2.c - op pack with 8 rows in one register. */
#include "kernels/x86/target_avx2.h"

#include "kernels/lanes.h"

#define LEVEL(suffix) oc_pack_##suffix##_avx2

/* Rows r and r + 4 share a register, so that both halves are transposed at once and end up in order. */
static inline void transpose(const void *const row[8], size_t at, lanes to[4]) {
    __m256i w[4];
    for (int r = 0; r < 4; r++) {
        const __m128i low = _mm_loadu_si128((const __m128i *)((const uint8_t *)row[r] + at));
        const __m128i high = _mm_loadu_si128((const __m128i *)((const uint8_t *)row[r + 4] + at));
        w[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    }
    const __m256i t0 = _mm256_unpacklo_epi32(w[0], w[2]), t1 = _mm256_unpacklo_epi32(w[1], w[3]);
    const __m256i t2 = _mm256_unpackhi_epi32(w[0], w[2]), t3 = _mm256_unpackhi_epi32(w[1], w[3]);
    to[0] = (lanes)_mm256_unpacklo_epi32(t0, t1);
    to[1] = (lanes)_mm256_unpackhi_epi32(t0, t1);
    to[2] = (lanes)_mm256_unpacklo_epi32(t2, t3);
    to[3] = (lanes)_mm256_unpackhi_epi32(t2, t3);
}

#include "kernels/pack.inc"

#include "kernels/x86/target_end.h"
