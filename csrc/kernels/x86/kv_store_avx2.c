/* kv_store_avx2.c - kv_store_f16 with hardware conversion; head sizes off the vector width go to the
 * reference. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"

extern void oc_kv_store_f16_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                                    int64_t head_dim);

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
        _mm_storeu_si128((__m128i *)(void *)(v_row + d),
                         _mm256_cvtps_ph(_mm256_loadu_ps(v + d), _MM_FROUND_TO_NEAREST_INT));
    }
}

#include "kernels/x86/target_end.h"
