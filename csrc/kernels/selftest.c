/* selftest.c - whether a matmul row computes what the reference does, asked before it is chosen: should an
 * emulator or a hypervisor get an instruction wrong that it advertises, nothing else would tell.
 *
 * 16 rows of 256 weights, 8 of random bytes and 8 of the largest codes, times activations that are random and
 * as large as they get, three columns at once and each alone. Scales are 1 and integers small enough for floats
 * to hold, so that results are equal to the bit. */
#include <string.h>

#include "kernels/kernels.h"
#include "quant/format.h"

enum { K = 256, COLUMNS = 3, GROUPS = 2, ROWS = 8 * GROUPS, MAX_GROUP_BYTES = 8 * 272 };

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* The block scales, and the minima where a format has them, are the first 16 or 32 bytes. */
static void fill_group(uint8_t *group, const oc_format *format, int extreme, uint32_t *state) {
    static const uint8_t one[2] = {0x00, 0x3C}; /* as a half float; as exponents of MXFP4 they are small */
    const int bytes = format->group_bytes;
    for (int b = 0; b < K / format->block; b++, group += bytes) {
        const uint8_t high = b % 2 ? 0x80 : 0xFF;
        for (int i = 0; i < bytes; i++) group[i] = extreme ? high : (uint8_t)(next_random(state) >> 24);
        for (int i = 0; i < 32; i++) group[i] = one[i % 2];
    }
}

static int8_t code_of(int column, uint32_t *state) {
    const int random = (int)(next_random(state) >> 24) % 255 - 127;
    return (int8_t)(column == 0 ? random : column == 1 ? 127 : -127);
}

int oc_matmul_agrees(int gguf_type, oc_matmul_fn row, oc_matmul_fn reference) {
    const oc_format *format = oc_format_get(gguf_type);
    _Alignas(64) uint8_t packed[GROUPS * MAX_GROUP_BYTES] = {0};
    _Alignas(64) int8_t codes[COLUMNS * K];
    float scale[COLUMNS * K / 16], sum[COLUMNS * K / 32], expected[COLUMNS * ROWS], got[COLUMNS * ROWS];
    uint32_t state = 1;
    if (format->needs_f32) return 1;
    for (int g = 0; g < GROUPS; g++)
        fill_group(packed + g * (K / format->block * format->group_bytes), format, g, &state);
    memset(sum, 0, sizeof sum);
    for (int i = 0; i < COLUMNS * K / 16; i++) scale[i] = 1;
    for (int i = 0; i < COLUMNS * K; i++) {
        codes[i] = code_of(i / K, &state);
        sum[i / 32] += codes[i];
    }
    oc_act x = {.codes = codes, .scale = scale, .sum = sum, .n = COLUMNS, .k = K};
    reference(packed, &x, expected, ROWS, 0, GROUPS);
    row(packed, &x, got, ROWS, 0, GROUPS);
    if (memcmp(expected, got, sizeof got) != 0) return 0;
    memset(got, 0, sizeof got);
    x.n = 1; /* a column alone may go to other instructions */
    for (int c = 0; c < COLUMNS; c++, x.codes += K, x.scale += K / 16, x.sum += K / 32)
        row(packed, &x, got + c * ROWS, ROWS, 0, GROUPS);
    return memcmp(expected, got, sizeof got) == 0;
}
