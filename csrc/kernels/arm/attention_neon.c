/* attention_neon.c - attention for head sizes that are multiples of 4: the primitives of kernels/attention.inc. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns") /* see matmul_neon.h */
#endif

#include <string.h>

#include "kernels/arm/vecmath_neon.h"
#include "kernels/kernels.h"

typedef float32x4_t vec;
typedef float factor;

#define LANES 4
#define MAX_BLOCK 6
#define MAX_WIDTH 8
/* Up to 24 sums, 6 factors and a vector fill the 32 registers. */
#define FACTORS_FIRST(rows, width) 1
#define SCORE_WIDTH(rows) ((rows) > 3 ? 4 : 8)
#define VALUE_WIDTH(rows) ((rows) > 3 ? 4 : 8)

#define vec_zero() vdupq_n_f32(0)
#define vec_set vdupq_n_f32
#define vec_load vld1q_f32
#define vec_store vst1q_f32
#define vec_add vaddq_f32
#define vec_sub vsubq_f32
#define vec_mul vmulq_f32
#define vec_div vdivq_f32
#define vec_max vmaxq_f32
#define vec_fma(a, b, c) vfmaq_f32(c, a, b)
#define factor_load(from) (*(from))
#define vec_fma_by(v, f, c) vfmaq_n_f32(c, v, f)
#define vec_exp oc_exp_neon
#define vec_tanh oc_tanh_neon
#define vec_highest vmaxvq_f32
#define vec_total vaddvq_f32

static inline vec vec_load_f16(const uint16_t *from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}

static inline vec vec_load_i8(const int8_t *from) {
    uint32_t four;
    memcpy(&four, from, sizeof four);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

static inline vec vec_inside(vec v, int key, int low, int high) {
    static const int32_t lane[4] = {0, 1, 2, 3};
    const int32x4_t keys = vaddq_s32(vld1q_s32(lane), vdupq_n_s32(key));
    const uint32x4_t inside = vandq_u32(vcgeq_s32(keys, vdupq_n_s32(low)), vcltq_s32(keys, vdupq_n_s32(high)));
    return vbslq_f32(inside, v, vdupq_n_f32(-INFINITY));
}

static inline void vec_transpose(vec v[LANES]) {
    const float32x4x2_t even = vzipq_f32(v[0], v[2]), odd = vzipq_f32(v[1], v[3]);
    const float32x4x2_t first = vzipq_f32(even.val[0], odd.val[0]), last = vzipq_f32(even.val[1], odd.val[1]);
    v[0] = first.val[0], v[1] = first.val[1], v[2] = last.val[0], v[3] = last.val[1];
}

#include "kernels/attention.inc"

extern oc_attention_row oc_attention_f32_generic, oc_attention_f16_generic, oc_attention_q8_0_generic;

void oc_attention_f32_neon(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_f32_generic(args);
    else
        attention(args, TILE_F32);
}

void oc_attention_f16_neon(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_f16_generic(args);
    else
        attention(args, TILE_F16);
}

void oc_attention_q8_0_neon(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_q8_0_generic(args);
    else
        attention(args, TILE_Q8_0);
}
