/* ternary.c - reads blocks of TQ1_0 and TQ2_0 as q2_k: d * (q - 1) is d * q - d, and both products are exact. */
#include "quant/codecs.h"

static void put_ends(uint16_t d, oc_block_q2_k *out) {
    out->d = out->dmin = d;
    memset(out->scales, 0x11, sizeof out->scales);
}

/* The byte is a fraction of 256; digits before are shifted out, the next one is its whole part times 3. */
static inline uint8_t digit(uint8_t byte, int n) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    return (uint8_t)((byte * power[n] & 255) * 3 >> 8);
}

void oc_read_tq1_0(const oc_block_tq1_0 *in, oc_block_q2_k *out) {
    uint8_t q[256];
    for (int n = 0; n < 5; n++) {
        for (int i = 0; i < 32; i++) q[32 * n + i] = digit(in->qs[i], n);
        for (int i = 0; i < 16; i++) q[160 + 16 * n + i] = digit(in->qs[32 + i], n);
    }
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 4; i++) q[240 + 4 * n + i] = digit(in->qh[i], n);
    for (int h = 0; h < 2; h++) {
        const uint8_t *part = q + 128 * h;
        for (int i = 0; i < 32; i++)
            out->qs[32 * h + i] =
                (uint8_t)(part[i] | part[32 + i] << 2 | part[64 + i] << 4 | part[96 + i] << 6);
    }
    put_ends(in->d, out);
}

void oc_read_tq2_0(const oc_block_tq2_0 *in, oc_block_q2_k *out) {
    memcpy(out->qs, in->qs, sizeof out->qs);
    put_ends(in->d, out);
}
