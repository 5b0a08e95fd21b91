/* books.c - reads blocks of the codebook formats of OC_BOOKS: 16-bit scale, integer scales, 4-bit codes. */
#include "quant/codecs.h"

void oc_read_iq4_xs(const oc_block_iq4_xs *in, oc_book_block *out) {
    const int scales_h = in->scales_h[0] | in->scales_h[1] << 8;
    out->d = in->d;
    for (int s = 0; s < 8; s++) {
        const int low = in->scales_l[s / 2] >> (s % 2 * 4) & 15, high = scales_h >> (2 * s) & 3;
        out->scale[2 * s] = out->scale[2 * s + 1] = (int8_t)((low | high << 4) - 32);
        for (int i = 0; i < 16; i++) {
            out->code[32 * s + i] = in->qs[s][i] & 15;
            out->code[32 * s + 16 + i] = in->qs[s][i] >> 4;
        }
    }
}
