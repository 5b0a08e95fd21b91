/* dot16_dotprod.h - 8 rows of 16 codes times 16 activation codes by sdot: an int32 lane is a row, and the 4
 * activations of a vector are one lane of theirs. Sums are exact for any codes. Include after
 * target_dotprod.h. */
#ifndef OC_KERNELS_ARM_DOT16_H
#define OC_KERNELS_ARM_DOT16_H

#define OC_DOT_ISA dotprod

/* Vector j of codes is q[2j] for rows 0-3 and q[2j + 1] for rows 4-7; the result likewise. `wide` is of no
 * account. */
static inline __attribute__((always_inline)) int32x4x2_t oc_dot16(const int8x16_t q[8], int8x16_t a,
                                                                  int wide) {
    (void)wide;
    int32x4x2_t sum = {{vdupq_n_s32(0), vdupq_n_s32(0)}};
#define OC_ADD(j)                                                                                            \
    sum.val[0] = vdotq_laneq_s32(sum.val[0], q[2 * j], a, j);                                                \
    sum.val[1] = vdotq_laneq_s32(sum.val[1], q[2 * j + 1], a, j)
    OC_ADD(0);
    OC_ADD(1);
    OC_ADD(2);
    OC_ADD(3);
#undef OC_ADD
    return sum;
}

#endif
