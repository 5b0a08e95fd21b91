/* books.c - reads blocks of the codebook formats of OC_BOOKS: 16-bit scale, integer scales, 4-bit codes. */
#include "quant/codecs.h"
#include "quant/iq_tables.h"

/* The scale of sub-blocks of 32 is that of two times 16. */
static inline void put_scale_32(oc_book_block *out, int s, int scale) {
    out->scale[2 * s] = out->scale[2 * s + 1] = (int8_t)scale;
}

static inline int nibble(const uint8_t *bytes, int i) { return bytes[i / 2] >> (i % 2 * 4) & 15; }

/* 8 elements: an entry of a grid, and signs (bit 3 of a code) */
static inline void put_8(uint8_t code[8], int entry, int signs) {
    for (int i = 0; i < 8; i++) code[i] = (uint8_t)((entry >> (2 * i) & 3) | (signs >> i & 1) << 3);
}

/* 8 elements: two entries of a grid of 4 */
static inline void put_4_4(uint8_t code[8], int first, int second, int signs) {
    const int entry = first | second << 12;
    for (int i = 0; i < 8; i++) code[i] = (uint8_t)((entry >> (3 * i) & 7) | (signs >> i & 1) << 3);
}

/* 7 signs, and the eighth that makes the number of ones even */
static inline int even_signs(uint32_t seven) {
    seven &= 127;
    return (int)(seven | (uint32_t)__builtin_parity(seven) << 7);
}

static inline uint32_t word_of(const uint16_t halves[2]) { return halves[0] | (uint32_t)halves[1] << 16; }

void oc_read_iq4_xs(const oc_block_iq4_xs *in, oc_book_block *out) {
    const int scales_h = in->scales_h[0] | in->scales_h[1] << 8;
    out->d = in->d;
    for (int s = 0; s < 8; s++) {
        put_scale_32(out, s, (nibble(in->scales_l, s) | (scales_h >> (2 * s) & 3) << 4) - 32);
        for (int i = 0; i < 16; i++) {
            out->code[32 * s + i] = in->qs[s][i] & 15;
            out->code[32 * s + 16 + i] = in->qs[s][i] >> 4;
        }
    }
}

void oc_read_iq3_s(const oc_block_iq3_s *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) put_scale_32(out, s, 2 * nibble(in->scales, s) + 1);
    for (int g = 0; g < 32; g++) { /* 8 elements */
        const int high = in->qh[g / 4] >> (g % 4 * 2);
        const int first = in->qs[2 * g] | (high & 1) << 8, second = in->qs[2 * g + 1] | (high & 2) << 7;
        put_4_4(out->code + 8 * g, oc_grid_iq3_s[first], oc_grid_iq3_s[second], in->signs[g]);
    }
}

void oc_read_iq3_xxs(const oc_block_iq3_xxs *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) {
        const uint32_t word = word_of(in->signs[s]);
        put_scale_32(out, s, (int)(word >> 28) * 2 + 1);
        for (int g = 0; g < 4; g++) {
            const uint8_t *qs = in->qs + 8 * s + 2 * g;
            const int signs = even_signs(word >> (7 * g));
            put_4_4(out->code + 32 * s + 8 * g, oc_grid_iq3_xxs[qs[0]], oc_grid_iq3_xxs[qs[1]], signs);
        }
    }
}

void oc_read_iq2_s(const oc_block_iq2_s *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 16; s++) out->scale[s] = (int8_t)(2 * nibble(in->scales, s) + 1);
    for (int g = 0; g < 32; g++) {
        const int high = in->qh[g / 4] >> (g % 4 * 2) & 3;
        put_8(out->code + 8 * g, oc_grid_iq2_s[in->qs[g] | high << 8], in->signs[g]);
    }
}

void oc_read_iq2_xs(const oc_block_iq2_xs *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 16; s++) out->scale[s] = (int8_t)(2 * nibble(in->scales, s) + 1);
    for (int g = 0; g < 32; g++)
        put_8(out->code + 8 * g, oc_grid_iq2_xs[in->qs[g] & 511], even_signs(in->qs[g] >> 9));
}

void oc_read_iq2_xxs(const oc_block_iq2_xxs *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) {
        const uint32_t indices = word_of(in->qs[s]), word = word_of(in->qs[s] + 2);
        put_scale_32(out, s, (int)(word >> 28) * 2 + 1);
        for (int g = 0; g < 4; g++) {
            const int index = indices >> (8 * g) & 255;
            put_8(out->code + 32 * s + 8 * g, oc_grid_iq2_xxs[index], even_signs(word >> (7 * g)));
        }
    }
}

void oc_read_iq1_m(const oc_block_iq1_m *in, oc_book_block *out) {
    out->d = 0;
    for (int i = 0; i < 4; i++) out->d |= (uint16_t)(in->scales[i] >> 12 << (4 * i));
    for (int s = 0; s < 16; s++) out->scale[s] = (int8_t)(2 * (in->scales[s / 4] >> (s % 4 * 3) & 7) + 1);
    for (int g = 0; g < 32; g++) {
        const int high = nibble(in->qh, g);
        put_8(out->code + 8 * g, oc_grid_iq1[in->qs[g] | (high & 7) << 8], high & 8 ? 255 : 0);
    }
}

void oc_read_iq1_s(const oc_block_iq1_s *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) put_scale_32(out, s, 2 * (in->qh[s] >> 12 & 7) + 1);
    for (int g = 0; g < 32; g++) {
        const int bits = in->qh[g / 4], high = bits >> (g % 4 * 3) & 7;
        put_8(out->code + 8 * g, oc_grid_iq1[in->qs[g] | high << 8], bits & 0x8000 ? 255 : 0);
    }
}

void oc_read_tq1_0(const oc_block_tq1_0 *in, oc_book_block *out) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    out->d = in->d;
    for (int s = 0; s < 8; s++) put_scale_32(out, s, 1);
    for (int e = 0; e < 256; e++) {
        const int n = e < 160 ? e / 32 : e < 240 ? (e - 160) / 16 : (e - 240) / 4;
        const int byte = e < 160 ? in->qs[e % 32] : e < 240 ? in->qs[32 + e % 16] : in->qh[e % 4];
        /* The byte is a fraction of 256; n digits shifted out, the next one is its whole part times 3. */
        out->code[e] = (uint8_t)((byte * power[n] & 255) * 3 >> 8);
    }
}

void oc_read_tq2_0(const oc_block_tq2_0 *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) put_scale_32(out, s, 1);
    for (int e = 0; e < 256; e++) out->code[e] = in->qs[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
}
