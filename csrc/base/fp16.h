/* fp16.h - IEEE half and bfloat16 to and from float, exact: subnormals, infinities, NaN, round-half-even.
 * Branch-free where it helps, so loops over them vectorise without any ISA flag. */
#ifndef OC_BASE_FP16_H
#define OC_BASE_FP16_H

#include <stdint.h>
#include <string.h>

static inline float oc_bits_to_f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t oc_f32_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float oc_bf16_to_f32(uint16_t half) { return oc_bits_to_f32((uint32_t)half << 16); }

static inline float oc_f16_to_f32(uint16_t half) {
    uint32_t magnitude = half & 0x7FFFu;
    /* The fields of a half moved to their places in a float stand for value * 2^-112: one exact multiplication
     * repairs the exponent of normal and subnormal numbers alike. Infinity and NaN keep the highest exponent. */
    float finite = oc_bits_to_f32(magnitude << 13) * 0x1p112f;
    uint32_t bits = magnitude >= 0x7C00u ? 0x7F800000u | magnitude << 13 : oc_f32_to_bits(finite);
    return oc_bits_to_f32(bits | (uint32_t)(half & 0x8000u) << 16);
}

static inline uint16_t oc_f32_to_f16(float value) {
    uint32_t bits = oc_f32_to_bits(value), magnitude = bits & 0x7FFFFFFFu, sign = bits >> 16 & 0x8000u;
    /* Below 2^-14 a half has the fixed unit 2^-24: adding 0.5 puts it at the float's last bit and rounds. */
    uint32_t subnormal = oc_f32_to_bits(oc_bits_to_f32(magnitude) + 0.5f) - 0x3F000000u;
    uint32_t normal = (magnitude + 0xFFFu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    if (magnitude >= 0x477FF000u) half = 0x7C00u; /* rounds to 65536 or more */
    if (magnitude > 0x7F800000u) half = 0x7E00u | (magnitude >> 13 & 0x1FFu);
    return (uint16_t)(sign | half);
}

#endif
