/* panel_avx512.h - matmul of many columns on AVX-512 VNNI: weights unpacked once for all of them, as told in
 * panel_walk.inc. A block of 256 elements of 16 rows becomes signed bytes and scales as floats, the same form
 * for every format. */
#ifndef OC_KERNELS_X86_PANEL_AVX512_H
#define OC_KERNELS_X86_PANEL_AVX512_H

#include "kernels/x86/matmul_avx512.h"

#define OC_PANEL_MIN 16 /* columns from which unpacking pays */

typedef enum oc_panel_mins { OC_PANEL_NO_MINS, OC_PANEL_MINS_OF_32, OC_PANEL_MINS_OF_16 } oc_panel_mins;

typedef struct oc_panel { /* part p is elements 16 p .. 16 p + 15, vector j of it 4 of them in 16 rows */
    __m512i codes[16][4];
    __m512 scale[16]; /* integers */
    __m512 min[16];   /* integers, for 16 or 32 elements each */
    __m512 d, dmin;
    __m512i start[16]; /* of the sums of 16 products, and what it becomes: see panel_avx512vnni.c */
    __m512 scaled_start[16];
} oc_panel;

typedef struct oc_format_panels {
    void (*unpack)(const void *w0, const void *w1, oc_panel *panel); /* one block of two groups */
    oc_panel_mins mins;
    int64_t elements, block_bytes; /* of a packed block */
} oc_format_panels;

/* The contract of matmul. */
void oc_panel_matmul_avx512vnni(const oc_format_panels *format, const void *packed, const oc_act *x, float *y,
                                int64_t ldy, int64_t g0, int64_t g1);

/* oc_matmul_<suffix>_avx512vnni of a format with blocks of 256: panels for many columns, and for few `tile`
 * as in OC_DEFINE_MATMUL_PAIRS. */
#define OC_DEFINE_MATMUL_PANELS(suffix, tile, block, unpack, mins)                                           \
    OC_DEFINE_MATMUL_TILES(static, few_##suffix, oc_matmul_##suffix##_avx512vl, tile, block, 256, 8)         \
    void oc_matmul_##suffix##_avx512vnni(const void *packed, const oc_act *x, float *y, int64_t ldy,         \
                                         int64_t g0, int64_t g1) {                                           \
        static const oc_format_panels format = {unpack, mins, 256, sizeof(block)};                           \
        if (x->n < OC_PANEL_MIN) few_##suffix(packed, x, y, ldy, g0, g1);                                    \
        else oc_panel_matmul_avx512vnni(&format, packed, x, y, ldy, g0, g1);                                 \
    }

#endif
