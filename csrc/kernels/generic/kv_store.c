/* kv_store.c - references of kv_store_f16 and kv_store_f32. */
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"

void oc_kv_store_f16_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                             int64_t head_dim) {
    uint16_t *k_slot = (uint16_t *)k_tile + slot, *v_row = (uint16_t *)v_tile + slot * head_dim;
    for (int64_t d = 0; d < head_dim; d++) {
        k_slot[d * OC_TILE] = oc_f32_to_f16(k[d]);
        v_row[d] = oc_f32_to_f16(v[d]);
    }
}

void oc_kv_store_f32_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                             int64_t head_dim) {
    float *k_slot = (float *)k_tile + slot;
    for (int64_t d = 0; d < head_dim; d++) k_slot[d * OC_TILE] = k[d];
    memcpy((float *)v_tile + slot * head_dim, v, (size_t)head_dim * sizeof(float));
}
