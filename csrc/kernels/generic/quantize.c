/* quantize.c - reference quantisation of activations: 32 values share one float scale. */
#include "base/fp16.h"
#include "kernels/kernels.h"

/* v rounded to the nearest integer, ties to even, for |v| < 2^22: the sum has no room for a fraction. */
static inline int round_half_even(float v) {
    const float shift = 0x1.8p23f;
    return (int)oc_f32_to_bits(v + shift) - (int)oc_f32_to_bits(shift);
}

void oc_quantize_generic(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum) {
    for (int64_t b = 0; b < n * (k / 32); b++, x += 32, codes += 32) {
        uint32_t peak = 0; /* the largest magnitude, as bits: ordered like the numbers, with NaN on top */
        for (int i = 0; i < 32; i++) {
            uint32_t magnitude = oc_f32_to_bits(x[i]) & 0x7FFFFFFFu;
            peak = magnitude > peak ? magnitude : peak;
        }
        float max = oc_bits_to_f32(peak), inverse = 127.0f / max;
        if (peak >= OC_QUANTIZE_NOT_FINITE || peak < OC_QUANTIZE_ZERO) {
            scale[b] = sum[b] = peak < OC_QUANTIZE_ZERO ? 0.0f : oc_bits_to_f32(0x7FC00000u);
            for (int i = 0; i < 32; i++) codes[i] = 0;
            continue;
        }
        int total = 0;
        for (int i = 0; i < 32; i++) {
            int code = round_half_even(x[i] * inverse);
            codes[i] = (int8_t)code;
            total += code;
        }
        scale[b] = max / 127.0f;
        sum[b] = scale[b] * (float)total;
    }
}
