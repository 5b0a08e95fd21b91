/* quantize_neon.c - NEON quantisation of activations, bit for bit the reference: two blocks at a time, which
 * share the divisions. */
#include <arm_neon.h>

#include "kernels/kernels.h"

static inline uint32_t peak_of_block(const float32x4_t v[4]) {
    uint32x4_t magnitude[4];
    for (int j = 0; j < 4; j++) magnitude[j] = vreinterpretq_u32_f32(vabsq_f32(v[j]));
    return vmaxvq_u32(
        vmaxq_u32(vmaxq_u32(magnitude[0], magnitude[1]), vmaxq_u32(magnitude[2], magnitude[3])));
}

/* The codes of a block, all 0 unless `plain` is all ones; the result is their sum. */
static inline int codes_of_block(const float32x4_t v[4], float inverse, uint32_t plain, int8_t *codes) {
    int32x4_t code[4];
    for (int j = 0; j < 4; j++) code[j] = vcvtnq_s32_f32(vmulq_n_f32(v[j], inverse));
    const int16x8_t first = vcombine_s16(vqmovn_s32(code[0]), vqmovn_s32(code[1]));
    const int16x8_t second = vcombine_s16(vqmovn_s32(code[2]), vqmovn_s32(code[3]));
    int8x16_t bytes = vcombine_s8(vqmovn_s16(first), vqmovn_s16(second));
    bytes = vandq_s8(bytes, vreinterpretq_s8_u32(vdupq_n_u32(plain)));
    vst1q_s8(codes, bytes);
    return vaddlvq_s8(bytes);
}

void oc_quantize_neon(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum) {
    const uint32x2_t not_finite = vdup_n_u32(OC_QUANTIZE_NOT_FINITE), zero = vdup_n_u32(OC_QUANTIZE_ZERO);
    const float32x2_t nan = vdup_n_f32(__builtin_nanf("")), most = vdup_n_f32(127.0f);
    for (int64_t i = 0; i < n * (k / 32); i++, x += 32, codes += 32, scale += 2) {
        float32x4_t v[8];
        for (int j = 0; j < 8; j++) v[j] = vld1q_f32(x + 4 * j);
        const uint32x2_t peak = vset_lane_u32(peak_of_block(v + 4), vdup_n_u32(peak_of_block(v)), 1);
        const uint32x2_t is_finite = vclt_u32(peak, not_finite), is_zero = vclt_u32(peak, zero);
        const uint32x2_t is_plain = vbic_u32(is_finite, is_zero);
        const float32x2_t max = vreinterpret_f32_u32(peak), inverse = vdiv_f32(most, max);
        float32x2_t s = vbsl_f32(is_finite, vdiv_f32(max, most), nan);
        s = vreinterpret_f32_u32(vbic_u32(vreinterpret_u32_f32(s), is_zero));
        vst1_f32(scale, s);

        const int first = codes_of_block(v, vget_lane_f32(inverse, 0), vget_lane_u32(is_plain, 0), codes);
        const int second =
            codes_of_block(v + 4, vget_lane_f32(inverse, 1), vget_lane_u32(is_plain, 1), codes + 16);
        const double product = (double)vget_lane_f32(s, 0) * first; /* exact, as is the other */
        sum[i] = (float)(product + (double)vget_lane_f32(s, 1) * second);
    }
}
