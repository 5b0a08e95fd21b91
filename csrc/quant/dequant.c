/* dequant.c - the reference decoders: one GGUF row to floats, written from the definitions in blocks.h. */

/* A decoder's product and sum are rounded separately, as in every other implementation of the formats. */
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include <string.h>

#include "base/fp16.h"
#include "quant/codecs.h"

void oc_dequantize_f32(const void *row, float *y, int64_t k) { memcpy(y, row, (size_t)k * sizeof *y); }

void oc_dequantize_f16(const void *row, float *y, int64_t k) {
    const uint16_t *x = row;
    for (int64_t i = 0; i < k; i++) y[i] = oc_f16_to_f32(x[i]);
}

void oc_dequantize_bf16(const void *row, float *y, int64_t k) {
    const uint16_t *x = row;
    for (int64_t i = 0; i < k; i++) y[i] = oc_bf16_to_f32(x[i]);
}

void oc_dequantize_q4_0(const void *row, float *y, int64_t k) {
    const oc_block_q4_0 *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_f16_to_f32(block->d);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((block->qs[i] & 15) - 8);
            y[16 + i] = d * (float)((block->qs[i] >> 4) - 8);
        }
    }
}

void oc_dequantize_q4_1(const void *row, float *y, int64_t k) {
    const oc_block_q4_1 *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_f16_to_f32(block->d), m = oc_f16_to_f32(block->m);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)(block->qs[i] & 15) + m;
            y[16 + i] = d * (float)(block->qs[i] >> 4) + m;
        }
    }
}

static inline int fifth(const uint8_t qh[4], int element) {
    return (qh[element / 8] >> (element % 8) & 1) << 4;
}

void oc_dequantize_q5_0(const void *row, float *y, int64_t k) {
    const oc_block_q5_0 *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_f16_to_f32(block->d);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)(((block->qs[i] & 15) | fifth(block->qh, i)) - 16);
            y[16 + i] = d * (float)(((block->qs[i] >> 4) | fifth(block->qh, 16 + i)) - 16);
        }
    }
}

void oc_dequantize_q5_1(const void *row, float *y, int64_t k) {
    const oc_block_q5_1 *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_f16_to_f32(block->d), m = oc_f16_to_f32(block->m);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((block->qs[i] & 15) | fifth(block->qh, i)) + m;
            y[16 + i] = d * (float)((block->qs[i] >> 4) | fifth(block->qh, 16 + i)) + m;
        }
    }
}

void oc_dequantize_q8_0(const void *row, float *y, int64_t k) {
    const oc_block_q8_0 *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_f16_to_f32(block->d);
        for (int i = 0; i < 32; i++) y[i] = d * (float)block->qs[i];
    }
}

static inline int two_bits(const uint8_t qs[64], int e) {
    return qs[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
}

void oc_dequantize_q2_k(const void *row, float *y, int64_t k) {
    const oc_block_q2_k *block = row;
    for (int64_t b = 0; b < k / 256; b++, block++, y += 256) {
        float d = oc_f16_to_f32(block->d), dmin = oc_f16_to_f32(block->dmin);
        for (int e = 0; e < 256; e++) {
            uint8_t both = block->scales[e / 16];
            y[e] = d * (float)(both & 15) * (float)two_bits(block->qs, e) - dmin * (float)(both >> 4);
        }
    }
}

void oc_dequantize_q3_k(const void *row, float *y, int64_t k) {
    const oc_block_q3_k *block = row;
    for (int64_t b = 0; b < k / 256; b++, block++, y += 256) {
        float d = oc_f16_to_f32(block->d);
        for (int e = 0; e < 256; e++) {
            int q = two_bits(block->qs, e) | (block->hmask[e % 32] >> (e / 32) & 1) << 2;
            y[e] = d * (float)oc_q3_k_scale(block->scales, e / 16) * (float)(q - 4);
        }
    }
}

void oc_dequantize_q4_k(const void *row, float *y, int64_t k) {
    const oc_block_q4_k *block = row;
    for (int64_t b = 0; b < k / 256; b++, block++, y += 256) {
        float d = oc_f16_to_f32(block->d), dmin = oc_f16_to_f32(block->dmin);
        for (int s = 0; s < 8; s++) {
            float scale = d * (float)oc_k_scale(block->scales, s, 0);
            float min = dmin * (float)oc_k_scale(block->scales, s, 4);
            const uint8_t *qs = block->qs + s / 2 * 32;
            for (int i = 0; i < 32; i++) y[32 * s + i] = scale * (float)(qs[i] >> (s % 2 * 4) & 15) - min;
        }
    }
}

void oc_dequantize_q5_k(const void *row, float *y, int64_t k) {
    const oc_block_q5_k *block = row;
    for (int64_t b = 0; b < k / 256; b++, block++, y += 256) {
        float d = oc_f16_to_f32(block->d), dmin = oc_f16_to_f32(block->dmin);
        for (int s = 0; s < 8; s++) {
            float scale = d * (float)oc_k_scale(block->scales, s, 0);
            float min = dmin * (float)oc_k_scale(block->scales, s, 4);
            const uint8_t *qs = block->qs + s / 2 * 32;
            for (int i = 0; i < 32; i++) {
                int q = (qs[i] >> (s % 2 * 4) & 15) | (block->qh[i] >> s & 1) << 4;
                y[32 * s + i] = scale * (float)q - min;
            }
        }
    }
}

void oc_dequantize_q6_k(const void *row, float *y, int64_t k) {
    const oc_block_q6_k *block = row;
    for (int64_t b = 0; b < k / 256; b++, block++, y += 256) {
        float d = oc_f16_to_f32(block->d);
        for (int e = 0; e < 256; e++) {
            int half = e / 128, part = e % 128 / 32, i = e % 32;
            int low = block->ql[64 * half + 32 * (part % 2) + i] >> (part / 2 * 4) & 15;
            int high = block->qh[32 * half + i] >> (2 * part) & 3;
            y[e] = d * (float)block->scales[e / 16] * (float)((low | high << 4) - 32);
        }
    }
}

void oc_dequantize_iq4_nl(const void *row, float *y, int64_t k) {
    const oc_block_iq4_nl *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_f16_to_f32(block->d);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)oc_book_iq4[block->qs[i] & 15];
            y[16 + i] = d * (float)oc_book_iq4[block->qs[i] >> 4];
        }
    }
}

void oc_dequantize_mxfp4(const void *row, float *y, int64_t k) {
    const oc_block_mxfp4 *block = row;
    for (int64_t b = 0; b < k / 32; b++, block++, y += 32) {
        float d = oc_bits_to_f32(oc_mxfp4_scale_bits(block->e));
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)oc_book_mxfp4[block->qs[i] & 15];
            y[16 + i] = d * (float)oc_book_mxfp4[block->qs[i] >> 4];
        }
    }
}

#define OC_BOOK(suffix, packed, values, largest, unit)                                                       \
    void oc_dequantize_##suffix(const void *row, float *y, int64_t k) {                                      \
        const oc_block_##suffix *block = row;                                                                \
        for (int64_t b = 0; b < k / 256; b++, block++, y += 256) {                                           \
            oc_book_block book;                                                                              \
            oc_read_##suffix(block, &book);                                                                  \
            const float d = oc_f16_to_f32(book.d) * unit;                                                    \
            for (int e = 0; e < 256; e++) {                                                                  \
                const int code = book.qs[e / 32][e % 16] >> (e % 32 / 16 * 4) & 15;                          \
                y[e] = d * (float)book.scale[e / 16] * (float)values[code];                                  \
            }                                                                                                \
        }                                                                                                    \
    }
OC_BOOKS(OC_BOOK)
#undef OC_BOOK

#define OC_TERNARY(suffix)                                                                                   \
    void oc_dequantize_##suffix(const void *row, float *y, int64_t k) {                                      \
        const oc_block_##suffix *block = row;                                                                \
        for (int64_t b = 0; b < k / 256; b++) {                                                              \
            oc_block_q2_k same;                                                                              \
            oc_read_##suffix(block + b, &same);                                                              \
            const float d = oc_f16_to_f32(same.d);                                                           \
            for (int e = 0; e < 256; e++) y[256 * b + e] = d * (float)(two_bits(same.qs, e) - 1);            \
        }                                                                                                    \
    }
OC_TERNARIES(OC_TERNARY)
#undef OC_TERNARY
