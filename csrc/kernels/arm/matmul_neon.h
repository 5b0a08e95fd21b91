/* matmul_neon.h - what the ARM matmul kernels share: the walk over groups and columns, 8 rows of floats, and
 * the unpacking of codes.
 *
 * A tile function computes 8 rows x `cols` columns over the whole of k. It is inlined once per `cols`, so
 * that the loops over columns unroll and weights unpacked in registers serve all of them; one source for
 * every width also means that an output gets the same operations in the same order whatever the number of
 * columns is. They are those of the x86 rows. */
#ifndef OC_KERNELS_ARM_MATMUL_NEON_H
#define OC_KERNELS_ARM_MATMUL_NEON_H

#include "kernels/kernels.h"
#include "quant/blocks.h"

/* The order of the source keeps few vectors alive. Scheduling before register allocation unpacks everything
 * first and then spills: 489 of the 1319 instructions of Q4_K's widest loop, against 13 of 673 without. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

#define OC_INLINE static inline __attribute__((always_inline))

/* oc_matmul_<suffix>_<isa> from tile(weights of the group, x, first column, its outputs, ldy, cols). `wide`
 * is the widest tile, 3 or 4; the rest goes through narrower ones. */
#define OC_DEFINE_MATMUL(suffix, isa, tile, block, elements, wide)                                           \
    OC_DEFINE_MATMUL_OF_ISA(suffix, isa, tile, block, elements, wide)
#define OC_DEFINE_MATMUL_OF_ISA(suffix, isa, tile, block, elements, wide)                                    \
    void oc_matmul_##suffix##_##isa(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,  \
                                    int64_t g1) {                                                            \
        const block *w = (const block *)packed + g0 * (x->k / elements);                                     \
        for (int64_t g = g0; g < g1; g++, w += x->k / elements) {                                            \
            float *out = y + 8 * g;                                                                          \
            int64_t c = 0;                                                                                   \
            for (; c + wide <= x->n; c += wide) tile(w, x, c, out + c * ldy, ldy, wide);                     \
            if (wide > 3 && c + 3 == x->n) tile(w, x, c, out + c * ldy, ldy, 3);                             \
            if (c + 2 == x->n) tile(w, x, c, out + c * ldy, ldy, 2);                                         \
            if (c + 1 == x->n) tile(w, x, c, out + c * ldy, ldy, 1);                                         \
        }                                                                                                    \
    }

/* ---- a float of each of the 8 rows ---- */

typedef float32x4x2_t oc_rows;

OC_INLINE oc_rows oc_rows_of(float v) { return (oc_rows){{vdupq_n_f32(v), vdupq_n_f32(v)}}; }

OC_INLINE oc_rows oc_rows_mul(oc_rows v, float by) {
    return (oc_rows){{vmulq_n_f32(v.val[0], by), vmulq_n_f32(v.val[1], by)}};
}

/* sum + v * by */
OC_INLINE oc_rows oc_rows_fma(oc_rows sum, oc_rows v, float by) {
    return (oc_rows){{vfmaq_n_f32(sum.val[0], v.val[0], by), vfmaq_n_f32(sum.val[1], v.val[1], by)}};
}

/* sum - v * by */
OC_INLINE oc_rows oc_rows_fms(oc_rows sum, oc_rows v, float by) {
    return (oc_rows){{vfmsq_n_f32(sum.val[0], v.val[0], by), vfmsq_n_f32(sum.val[1], v.val[1], by)}};
}

/* sum + v * by, row by row */
OC_INLINE oc_rows oc_rows_fma_each(oc_rows sum, oc_rows v, oc_rows by) {
    return (oc_rows){
        {vfmaq_f32(sum.val[0], v.val[0], by.val[0]), vfmaq_f32(sum.val[1], v.val[1], by.val[1])}};
}

/* sum - v * by, row by row */
OC_INLINE oc_rows oc_rows_fms_each(oc_rows sum, oc_rows v, oc_rows by) {
    return (oc_rows){
        {vfmsq_f32(sum.val[0], v.val[0], by.val[0]), vfmsq_f32(sum.val[1], v.val[1], by.val[1])}};
}

OC_INLINE oc_rows oc_rows_from_int(int32x4x2_t v) {
    return (oc_rows){{vcvtq_f32_s32(v.val[0]), vcvtq_f32_s32(v.val[1])}};
}

/* 8 half floats */
OC_INLINE oc_rows oc_halves(const uint16_t *p) {
    const uint16x8_t bits = vld1q_u16(p);
    return (oc_rows){{vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(bits))),
                      vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(bits)))}};
}

/* 8 bytes */
OC_INLINE int32x4x2_t oc_rows_of_u8(uint8x8_t bytes) {
    const uint16x8_t wide = vmovl_u8(bytes);
    return (int32x4x2_t){
        {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))), vreinterpretq_s32_u32(vmovl_high_u16(wide))}};
}

OC_INLINE int32x4x2_t oc_rows_of_bytes(const uint8_t *p) { return oc_rows_of_u8(vld1_u8(p)); }

OC_INLINE int32x4x2_t oc_rows_of_signed_bytes(const int8_t *p) {
    const int16x8_t wide = vmovl_s8(vld1_s8(p));
    return (int32x4x2_t){{vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)}};
}

OC_INLINE void oc_store_rows(float *out, oc_rows v) {
    vst1q_f32(out, v.val[0]);
    vst1q_f32(out + 4, v.val[1]);
}

/* ---- codes ---- */

/* Bytes shifted by a constant: to the left if `by` > 0, else to the right. */
OC_INLINE uint8x16_t oc_shift(uint8x16_t v, const int by) {
    switch (by) {
    case 4: return vshlq_n_u8(v, 4);
    case 3: return vshlq_n_u8(v, 3);
    case 2: return vshlq_n_u8(v, 2);
    case 1: return vshlq_n_u8(v, 1);
    case -1: return vshrq_n_u8(v, 1);
    case -2: return vshrq_n_u8(v, 2);
    case -3: return vshrq_n_u8(v, 3);
    case -4: return vshrq_n_u8(v, 4);
    case -5: return vshrq_n_u8(v, 5);
    case -6: return vshrq_n_u8(v, 6);
    default: return v;
    }
}

/* The low or the high nibbles */
OC_INLINE uint8x16_t oc_nibbles(const uint8_t *p, const int high) {
    const uint8x16_t q = vld1q_u8(p);
    return high ? vshrq_n_u8(q, 4) : vandq_u8(q, vdupq_n_u8(15));
}

/* 4 vectors of nibbles from qs on; with `fifth`, bit `bit` + j of qh (rows 0-3, rows 4-7) tops vector j. */
OC_INLINE void oc_codes_45(int8x16_t q[8], const uint8_t *qs, const int high, const int fifth,
                           const uint8x16_t qh[2], const int bit) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        uint8x16_t code = oc_nibbles(qs + 16 * i, high);
        if (fifth) code = vbslq_u8(vdupq_n_u8(16), oc_shift(qh[i % 2], 4 - bit - i / 2), code);
        q[i] = vreinterpretq_s8_u8(code);
    }
}

#endif
