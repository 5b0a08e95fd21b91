/* kv_store_neon.c - kv_store_f16 and kv_store_q8_0 with hardware conversion; head sizes off the vector width go to
 * the reference. */
#include <arm_neon.h>

#include "base/fp16.h"
#include "kernels/kernels.h"

extern oc_kv_store_row oc_kv_store_f16_generic, oc_kv_store_q8_0_generic;

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
        if (v) vst1_u16(v_row + d, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(v + d))));
    }
}

/* Codes of 32 values, and their scale. */
static inline uint16_t quantize_block(const float *x, int8_t *code) {
    float32x4_t value[8];
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < 8; i++) { /* as integers: NaN and infinity are the largest */
        value[i] = vld1q_f32(x + 4 * i);
        top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(value[i])));
    }
    const uint32_t peak = vmaxvq_u32(top);
    const int finite = peak < OC_QUANTIZE_NOT_FINITE;
    const uint16_t scale = finite ? oc_f32_to_f16(oc_bits_to_f32(peak) * (1.0f / 127.0f)) : OC_KV_SCALE_NAN;
    const float size = oc_f16_to_f32(scale), inverse = finite && size > 0 ? 1.0f / size : 0;
    for (int i = 0; i < 8; i += 4) {
        int32x4_t whole[4];
        for (int j = 0; j < 4; j++) {
            const float32x4_t scaled = finite ? vmulq_n_f32(value[i + j], inverse) : vdupq_n_f32(0);
            whole[j] = vmaxq_s32(vminq_s32(vcvtnq_s32_f32(scaled), vdupq_n_s32(127)), vdupq_n_s32(-127));
        }
        const int16x8_t low = vcombine_s16(vmovn_s32(whole[0]), vmovn_s32(whole[1]));
        const int16x8_t high = vcombine_s16(vmovn_s32(whole[2]), vmovn_s32(whole[3]));
        vst1q_s8(code + 4 * i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
    return scale;
}

void oc_kv_store_q8_0_neon(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
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
