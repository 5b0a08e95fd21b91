/* quantize.c - reference quantisation of activations: 16 values share one float scale. */

/* Every operation rounds by itself, whatever the processor could join: the bits are part of the contract. */
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "base/fp16.h"
#include "kernels/kernels.h"

/* v rounded to the nearest integer, ties to even, for |v| < 2^22: the sum has no room for a fraction. */
static inline int round_half_even(float v) {
    const float shift = 0x1.8p23f;
    return (int)oc_f32_to_bits(v + shift) - (int)oc_f32_to_bits(shift);
}

/* The scale and the codes of one block; returns the sum of the codes. GCC unrolls so short a loop
 * before it looks for vectors, and then finds none: hence the pragmas. */
static inline int quantize_block(const float *x, int8_t *codes, float *scale) {
    uint32_t peak = 0; /* the largest magnitude, as bits: ordered like the numbers, with NaN on top */
#pragma GCC unroll 1
    for (int i = 0; i < OC_ACT_BLOCK; i++) {
        uint32_t magnitude = oc_f32_to_bits(x[i]) & 0x7FFFFFFFu;
        peak = magnitude > peak ? magnitude : peak;
    }
    float max = oc_bits_to_f32(peak), inverse = 127.0f / max;
    int total = 0;
    if (peak >= OC_QUANTIZE_NOT_FINITE || peak < OC_QUANTIZE_ZERO) {
        *scale = peak < OC_QUANTIZE_ZERO ? 0.0f : oc_bits_to_f32(0x7FC00000u);
        for (int i = 0; i < OC_ACT_BLOCK; i++) codes[i] = 0;
        return total;
    }
#pragma GCC unroll 1
    for (int i = 0; i < OC_ACT_BLOCK; i++) {
        int code = round_half_even(x[i] * inverse);
        codes[i] = (int8_t)code;
        total += code;
    }
    *scale = max / 127.0f;
    return total;
}

void oc_quantize_generic(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum) {
    double first = 0; /* the product of the even block */
    for (int64_t b = 0; b < n * (k / OC_ACT_BLOCK); b++, x += OC_ACT_BLOCK, codes += OC_ACT_BLOCK) {
        const int total = quantize_block(x, codes, scale + b);
        const double product = (double)scale[b] * total;
        if (b % 2 == 0)
            first = product;
        else
            sum[b / 2] = (float)(first + product);
    }
}
