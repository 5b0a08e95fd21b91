/* kv_store.c - references of the kv_store rows. */
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"

void oc_kv_store_f16_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                             int64_t head_dim) {
    uint16_t *k_slot = (uint16_t *)k_tile + slot, *v_row = (uint16_t *)v_tile + slot * head_dim;
    for (int64_t d = 0; d < head_dim; d++) {
        k_slot[d * OC_TILE] = oc_f32_to_f16(k[d]);
        if (v) v_row[d] = oc_f32_to_f16(v[d]);
    }
}

void oc_kv_store_f32_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                             int64_t head_dim) {
    float *k_slot = (float *)k_tile + slot;
    for (int64_t d = 0; d < head_dim; d++) k_slot[d * OC_TILE] = k[d];
    if (v) memcpy((float *)v_tile + slot * head_dim, v, (size_t)head_dim * sizeof(float));
}

/* One block of a Q8_0 row: codes and scale. */
static uint16_t quantize_block(const float *x, int64_t n, int8_t *code) {
    float peak = 0;
    int finite = 1;
    for (int64_t i = 0; i < n; i++) {
        finite &= isfinite(x[i]);
        peak = fabsf(x[i]) > peak ? fabsf(x[i]) : peak;
    }
    const uint16_t scale = finite ? oc_f32_to_f16(peak * (1.0f / 127.0f)) : OC_KV_SCALE_NAN;
    const float size = oc_f16_to_f32(scale), inverse = finite && size > 0 ? 1.0f / size : 0;
    for (int64_t i = 0; i < n; i++) {
        const float value = finite ? rintf(x[i] * inverse) : 0;
        code[i] = (int8_t)(value > 127 ? 127 : value < -127 ? -127 : value);
    }
    return scale;
}

void oc_kv_store_q8_0_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                              int64_t head_dim) {
    int8_t *k_slot = (int8_t *)k_tile + slot, *v_row = (int8_t *)v_tile + slot * head_dim, code[OC_KV_BLOCK];
    uint16_t *k_scale = (uint16_t *)(void *)((int8_t *)k_tile + OC_TILE * head_dim) + slot,
             *v_scale = (uint16_t *)(void *)((int8_t *)v_tile + OC_TILE * head_dim) + slot;
    for (int64_t d = 0; d < head_dim; d += OC_KV_BLOCK, k_scale += OC_TILE, v_scale += OC_TILE) {
        const int64_t n = head_dim - d < OC_KV_BLOCK ? head_dim - d : OC_KV_BLOCK;
        *k_scale = quantize_block(k + d, n, code);
        for (int64_t i = 0; i < n; i++) k_slot[(d + i) * OC_TILE] = code[i];
        if (v) *v_scale = quantize_block(v + d, n, v_row + d);
    }
}
