/* pack.c - op pack in the vectors that every 64-bit processor has. */
#include "kernels/lanes.h"

#define LEVEL(suffix) oc_pack_##suffix##_generic

static inline void transpose(const void *const row[8], size_t at, lanes to[4]) {
    for (int h = 0; h < 2; h++) {
        words w[4], t[4];
        for (int r = 0; r < 4; r++) memcpy(&w[r], (const uint8_t *)row[4 * h + r] + at, sizeof w[r]);
        for (int i = 0; i < 2; i++) {
            t[2 * i] = SHUFFLE(words, w[i], w[i + 2], 0, 4, 1, 5);
            t[2 * i + 1] = SHUFFLE(words, w[i], w[i + 2], 2, 6, 3, 7);
        }
        for (int i = 0; i < 2; i++) {
            const words first = SHUFFLE(words, t[i], t[i + 2], 0, 4, 1, 5);
            const words second = SHUFFLE(words, t[i], t[i + 2], 2, 6, 3, 7);
            memcpy((uint8_t *)&to[2 * i] + 16 * h, &first, sizeof first);
            memcpy((uint8_t *)&to[2 * i + 1] + 16 * h, &second, sizeof second);
        }
    }
}

#include "kernels/pack.inc"
