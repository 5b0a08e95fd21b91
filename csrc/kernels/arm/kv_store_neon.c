/* kv_store_neon.c - kv_store_f16 with hardware conversion; head sizes off the vector width go to the
 * reference. */
#include <arm_neon.h>

#include "kernels/kernels.h"

extern void oc_kv_store_f16_generic(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                                    int64_t head_dim);

void oc_kv_store_f16_neon(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                          int64_t head_dim) {
    if (head_dim % 4) {
        oc_kv_store_f16_generic(k, v, k_tile, v_tile, slot, head_dim);
        return;
    }
    uint16_t *k_slot = (uint16_t *)k_tile + slot, *v_row = (uint16_t *)v_tile + slot * head_dim;
    for (int64_t d = 0; d < head_dim; d += 4, k_slot += 4 * OC_TILE) {
        const uint16x4_t half = vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(k + d)));
        vst1_lane_u16(k_slot, half, 0);
        vst1_lane_u16(k_slot + OC_TILE, half, 1);
        vst1_lane_u16(k_slot + 2 * OC_TILE, half, 2);
        vst1_lane_u16(k_slot + 3 * OC_TILE, half, 3);
        vst1_u16(v_row + d, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(v + d))));
    }
}
