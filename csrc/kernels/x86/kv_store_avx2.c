/* kv_store_avx2.c - kv_store_f16 and kv_store_q8_0 with hardware conversion; head sizes off the vector width go to
 * the reference. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"

extern oc_kv_store_row oc_kv_store_f16_generic, oc_kv_store_q8_0_generic;

void oc_kv_store_f16_avx2(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                          int64_t head_dim) {
    if (head_dim % 8) {
        oc_kv_store_f16_generic(k, v, k_tile, v_tile, slot, head_dim);
        return;
    }
    uint16_t *k_slot = (uint16_t *)k_tile + slot, *v_row = (uint16_t *)v_tile + slot * head_dim, half[8];
    for (int64_t d = 0; d < head_dim; d += 8) {
        _mm_storeu_si128((__m128i *)(void *)half,
                         _mm256_cvtps_ph(_mm256_loadu_ps(k + d), _MM_FROUND_TO_NEAREST_INT));
        for (int i = 0; i < 8; i++) k_slot[(d + i) * OC_TILE] = half[i];
        if (!v) continue;
        _mm_storeu_si128((__m128i *)(void *)(v_row + d),
                         _mm256_cvtps_ph(_mm256_loadu_ps(v + d), _MM_FROUND_TO_NEAREST_INT));
    }
}

/* Codes of 32 values, and their scale. */
static inline uint16_t quantize_block(const float *x, int8_t *code) {
    const __m256i magnitude = _mm256_set1_epi32(INT32_MAX);
    __m256i top = _mm256_setzero_si256();
    __m256 value[4];
    for (int i = 0; i < 4; i++) { /* as integers: NaN and infinity are the largest */
        value[i] = _mm256_loadu_ps(x + i * 8);
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(value[i]), magnitude));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
    const int finite = (uint32_t)_mm_cvtsi128_si32(four) < OC_QUANTIZE_NOT_FINITE;
    const float peak = _mm_cvtss_f32(_mm_castsi128_ps(four));
    const uint16_t scale = finite ? _cvtss_sh(peak * (1.0f / 127.0f), _MM_FROUND_TO_NEAREST_INT) : OC_KV_SCALE_NAN;
    const float size = _cvtsh_ss(scale);
    const __m256 inverse = _mm256_set1_ps(finite && size > 0 ? 1.0f / size : 0);
    const __m256 highest = _mm256_set1_ps(127), lowest = _mm256_set1_ps(-127);
    __m256i whole[4];
    for (int i = 0; i < 4; i++) {
        const __m256 scaled = finite ? _mm256_mul_ps(value[i], inverse) : _mm256_setzero_ps();
        whole[i] = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(scaled, highest), lowest));
    }
    /* packs joins halves of 128 bits: dwords 0 4 1 5 2 6 3 7 put the bytes in order again */
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)(void *)code, _mm256_permutevar8x32_epi32(bytes, order));
    return scale;
}

void oc_kv_store_q8_0_avx2(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                           int64_t head_dim) {
    if (head_dim % OC_KV_BLOCK) {
        oc_kv_store_q8_0_generic(k, v, k_tile, v_tile, slot, head_dim);
        return;
    }
    int8_t *k_slot = (int8_t *)k_tile + slot, *v_row = (int8_t *)v_tile + slot * head_dim, code[OC_KV_BLOCK];
    uint16_t *k_scale = (uint16_t *)(void *)((int8_t *)k_tile + OC_TILE * head_dim) + slot,
             *v_scale = (uint16_t *)(void *)((int8_t *)v_tile + OC_TILE * head_dim) + slot;
    for (int64_t d = 0; d < head_dim; d += OC_KV_BLOCK, k_scale += OC_TILE, v_scale += OC_TILE) {
        *k_scale = quantize_block(k + d, code);
        for (int i = 0; i < OC_KV_BLOCK; i++) k_slot[(d + i) * OC_TILE] = code[i];
        if (v) *v_scale = quantize_block(v + d, v_row + d);
    }
}

#include "kernels/x86/target_end.h"
