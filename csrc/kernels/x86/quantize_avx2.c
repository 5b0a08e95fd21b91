/* quantize_avx2.c - AVX2 quantisation of activations, bit for bit the reference. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"

void oc_quantize_avx2(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum) {
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the lane-wise packs */
    for (int64_t b = 0; b < n * (k / 32); b++, x += 32, codes += 32) {
        __m256 v[4];
        __m256i peaks = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            peaks = _mm256_max_epu32(peaks, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i peak4 = _mm_max_epu32(_mm256_castsi256_si128(peaks), _mm256_extracti128_si256(peaks, 1));
        peak4 = _mm_max_epu32(peak4, _mm_shuffle_epi32(peak4, 0x4E));
        peak4 = _mm_max_epu32(peak4, _mm_shuffle_epi32(peak4, 0xB1));
        const uint32_t peak = (uint32_t)_mm_cvtsi128_si32(peak4);
        if (peak >= OC_QUANTIZE_NOT_FINITE || peak < OC_QUANTIZE_ZERO) {
            scale[b] = sum[b] = peak < OC_QUANTIZE_ZERO ? 0.0f : __builtin_nanf("");
            _mm256_storeu_si256((__m256i *)codes, _mm256_setzero_si256());
            continue;
        }
        const float max = _mm_cvtss_f32(_mm_castsi128_ps(peak4));
        const __m256 inverse = _mm256_set1_ps(127.0f / max);
        __m256i code[4];
        for (int i = 0; i < 4; i++) code[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        const __m256i total01 = _mm256_add_epi32(code[0], code[1]);
        const __m256i total23 = _mm256_add_epi32(code[2], code[3]);
        const __m256i total8 = _mm256_add_epi32(total01, total23);
        __m128i total = _mm_add_epi32(_mm256_castsi256_si128(total8), _mm256_extracti128_si256(total8, 1));
        total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4E));
        total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xB1));
        const __m256i half01 = _mm256_packs_epi32(code[0], code[1]);
        const __m256i half23 = _mm256_packs_epi32(code[2], code[3]);
        const __m256i bytes = _mm256_packs_epi16(half01, half23);
        _mm256_storeu_si256((__m256i *)codes, _mm256_permutevar8x32_epi32(bytes, in_order));
        scale[b] = max / 127.0f;
        sum[b] = scale[b] * (float)_mm_cvtsi128_si32(total);
    }
}
