/* dot16_neon.h - 8 rows of 16 codes times 16 activation codes, with the multiplications of the base
 * architecture.
 *
 * An int16 lane sums the products of one element in 4; two of them are joined before they are widened:
 *     `wide` 0: codes of 4 to 6 bits, |code| <= 32, all 4 vectors: 2 * 4 * 32 * 127 = 32512 < 32768
 *     `wide` 1: up to 8 bits, 2 vectors, widened before they are joined: 2 * 128 * 127 = 32512 */
#ifndef OC_KERNELS_ARM_DOT16_H
#define OC_KERNELS_ARM_DOT16_H

#include <arm_neon.h>

#define OC_DOT_ISA neon

/* Vector j of codes is q[2j] for rows 0-3 and q[2j + 1] for rows 4-7; the result likewise. */
static inline __attribute__((always_inline)) int32x4x2_t oc_dot16(const int8x16_t q[8], int8x16_t a,
                                                                  int wide) {
    int16x8_t rows01, rows23, rows45, rows67;
    int32x4_t four01, four23, four45, four67;
#define OC_FOURS(j) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(a), j))
#define OC_START(j)                                                                                          \
    rows01 = vmull_s8(vget_low_s8(q[2 * j]), vget_low_s8(OC_FOURS(j)));                                      \
    rows23 = vmull_high_s8(q[2 * j], OC_FOURS(j));                                                           \
    rows45 = vmull_s8(vget_low_s8(q[2 * j + 1]), vget_low_s8(OC_FOURS(j)));                                  \
    rows67 = vmull_high_s8(q[2 * j + 1], OC_FOURS(j))
#define OC_ADD(j)                                                                                            \
    rows01 = vmlal_s8(rows01, vget_low_s8(q[2 * j]), vget_low_s8(OC_FOURS(j)));                              \
    rows23 = vmlal_high_s8(rows23, q[2 * j], OC_FOURS(j));                                                   \
    rows45 = vmlal_s8(rows45, vget_low_s8(q[2 * j + 1]), vget_low_s8(OC_FOURS(j)));                          \
    rows67 = vmlal_high_s8(rows67, q[2 * j + 1], OC_FOURS(j))
    OC_START(0);
    OC_ADD(1);
    if (wide) {
        four01 = vpaddlq_s16(rows01);
        four23 = vpaddlq_s16(rows23);
        four45 = vpaddlq_s16(rows45);
        four67 = vpaddlq_s16(rows67);
        OC_START(2);
        OC_ADD(3);
        four01 = vpadalq_s16(four01, rows01);
        four23 = vpadalq_s16(four23, rows23);
        four45 = vpadalq_s16(four45, rows45);
        four67 = vpadalq_s16(four67, rows67);
        return (int32x4x2_t){{vpaddq_s32(four01, four23), vpaddq_s32(four45, four67)}};
    }
    OC_ADD(2);
    OC_ADD(3);
#undef OC_FOURS
#undef OC_START
#undef OC_ADD
    return (int32x4x2_t){{vpaddlq_s16(vpaddq_s16(rows01, rows23)), vpaddlq_s16(vpaddq_s16(rows45, rows67))}};
}

#endif
