/* books.c - reads blocks of the codebook formats of OC_BOOKS: 16-bit scale, integer scales, 4-bit codes. */
#include <string.h>

#include "quant/codecs.h"
#include "quant/iq_tables.h"

/* The scale of sub-blocks of 32 is that of two times 16. */
static inline void put_scale_32(oc_book_block *out, int s, int scale) {
    out->scale[2 * s] = out->scale[2 * s + 1] = (int8_t)scale;
}

static inline int nibble(const uint8_t *bytes, int i) { return bytes[i / 2] >> (i % 2 * 4) & 15; }

/* Codes of the 8 elements from 8 g on, one in each byte. */
static inline void put_8(oc_book_block *out, int g, uint64_t codes) {
    uint8_t *to = out->qs[g / 4] + 8 * (g % 2);
    uint64_t low = 0;
    if (g % 4 >= 2) memcpy(&low, to, 8); /* the first 16 elements of a part are low nibbles */
    const uint64_t both = low | codes << (g % 4 / 2 * 4);
    memcpy(to, &both, 8);
}

/* Bit i to bit 3 of byte i, where a code has its sign */
static inline uint64_t spread_signs(uint64_t bits) {
    bits = (bits | bits << 28) & 0x0000000F0000000F;
    bits = (bits | bits << 14) & 0x0003000300030003;
    return ((bits | bits << 7) & 0x0101010101010101) << 3;
}

/* Fields of 2 bits to bytes */
static inline uint64_t spread_2(uint64_t fields) {
    fields = (fields | fields << 24) & 0x000000FF000000FF;
    fields = (fields | fields << 12) & 0x000F000F000F000F;
    return (fields | fields << 6) & 0x0303030303030303;
}

/* Fields of 3 bits, of two entries of a grid of 4, to bytes */
static inline uint64_t spread_3(uint64_t first, uint64_t second) {
    uint64_t fields = first | second << 32;
    fields = (fields | fields << 10) & 0x003F003F003F003F;
    return (fields | fields << 5) & 0x0707070707070707;
}

static inline void put_2(oc_book_block *out, int g, uint16_t entry, int signs) {
    put_8(out, g, spread_2(entry) | spread_signs((uint64_t)signs));
}

static inline void put_3(oc_book_block *out, int g, uint16_t first, uint16_t second, int signs) {
    put_8(out, g, spread_3(first, second) | spread_signs((uint64_t)signs));
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
    }
    memcpy(out->qs, in->qs, sizeof out->qs);
}

void oc_read_iq3_s(const oc_block_iq3_s *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) put_scale_32(out, s, 2 * nibble(in->scales, s) + 1);
    for (int g = 0; g < 32; g++) { /* 8 elements */
        const int high = in->qh[g / 4] >> (g % 4 * 2);
        const int first = in->qs[2 * g] | (high & 1) << 8, second = in->qs[2 * g + 1] | (high & 2) << 7;
        put_3(out, g, oc_grid_iq3_s[first], oc_grid_iq3_s[second], in->signs[g]);
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
            put_3(out, 4 * s + g, oc_grid_iq3_xxs[qs[0]], oc_grid_iq3_xxs[qs[1]], signs);
        }
    }
}

void oc_read_iq2_s(const oc_block_iq2_s *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 16; s++) out->scale[s] = (int8_t)(2 * nibble(in->scales, s) + 1);
    for (int g = 0; g < 32; g++) {
        const int high = in->qh[g / 4] >> (g % 4 * 2) & 3;
        put_2(out, g, oc_grid_iq2_s[in->qs[g] | high << 8], in->signs[g]);
    }
}

void oc_read_iq2_xs(const oc_block_iq2_xs *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 16; s++) out->scale[s] = (int8_t)(2 * nibble(in->scales, s) + 1);
    for (int g = 0; g < 32; g++)
        put_2(out, g, oc_grid_iq2_xs[in->qs[g] & 511], even_signs(in->qs[g] >> 9));
}

void oc_read_iq2_xxs(const oc_block_iq2_xxs *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) {
        const uint32_t indices = word_of(in->qs[s]), word = word_of(in->qs[s] + 2);
        put_scale_32(out, s, (int)(word >> 28) * 2 + 1);
        for (int g = 0; g < 4; g++) {
            const int index = indices >> (8 * g) & 255;
            put_2(out, 4 * s + g, oc_grid_iq2_xxs[index], even_signs(word >> (7 * g)));
        }
    }
}

void oc_read_iq1_m(const oc_block_iq1_m *in, oc_book_block *out) {
    out->d = 0;
    for (int i = 0; i < 4; i++) out->d |= (uint16_t)(in->scales[i] >> 12 << (4 * i));
    for (int s = 0; s < 16; s++) out->scale[s] = (int8_t)(2 * (in->scales[s / 4] >> (s % 4 * 3) & 7) + 1);
    for (int g = 0; g < 32; g++) {
        const int high = nibble(in->qh, g);
        put_2(out, g, oc_grid_iq1[in->qs[g] | (high & 7) << 8], high & 8 ? 255 : 0);
    }
}

void oc_read_iq1_s(const oc_block_iq1_s *in, oc_book_block *out) {
    out->d = in->d;
    for (int s = 0; s < 8; s++) put_scale_32(out, s, 2 * (in->qh[s] >> 12 & 7) + 1);
    for (int g = 0; g < 32; g++) {
        const int bits = in->qh[g / 4], high = bits >> (g % 4 * 3) & 7;
        put_2(out, g, oc_grid_iq1[in->qs[g] | high << 8], bits & 0x8000 ? 255 : 0);
    }
}
