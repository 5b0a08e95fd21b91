/* panel_avx512vnni.c - products of unpacked panels of weights and strips of columns (see panel_avx512.h).
 *
 * vpdpbusd wants one unsigned operand: the activations, 128 more than they are. 128 * (sum of 16 weights),
 * the same for all columns, is taken off beforehand. Sums start at the bits of the float 1.5 * 2^23, in whose
 * last place an integer counts as it is: read as a float the sum is 1.5 * 2^23 more, and the multiplication
 * by the scale takes that off, exactly: no conversion. The sums are below 2^22, their products with a scale
 * below 2^24 (see matmul_k.inc and matmul_codebook.inc), and 1.5 * 2^23 times 8 bits has 10. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/panel_avx512.h"

#define STRIP 64 /* columns that pass over an unpacked panel */
#define PAIRS 2  /* of groups whose panels a strip passes over one after another */
#define TILE 8   /* columns at a time */
#define MAGIC 12582912.0f
#define MAGIC_BITS 0x4B400000

typedef struct column { /* 256 activations */
    uint8_t codes[256]; /* 128 more than they are */
    float scale[16], sum[16];
} column;

typedef struct start { /* of the sums of 16 products, and what it becomes */
    __m512i bits[16];
    __m512 scaled[16];
} start;

OC_INLINE void load_column(const oc_act *x, int64_t c, int64_t b, const oc_panel_mins mins, column *to) {
    const int8_t *codes = x->codes + c * x->k + 256 * b;
    const __m512 scale = _mm512_loadu_ps(x->scale + c * (x->k / 16) + 16 * b);
    for (int i = 0; i < 256; i += 64)
        _mm512_storeu_si512(to->codes + i,
                            _mm512_xor_si512(_mm512_loadu_si512(codes + i), _mm512_set1_epi8(-128)));
    _mm512_storeu_ps(to->scale, scale);
    if (mins == OC_PANEL_MINS_OF_32)
        _mm256_storeu_ps(to->sum, _mm256_loadu_ps(x->sum + c * (x->k / 32) + 8 * b));
    if (mins == OC_PANEL_MINS_OF_16) {
        __m256i t[2];
        oc_sums_of_16(codes, t);
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(t[0]), t[1], 1);
        _mm512_storeu_ps(to->sum, _mm512_mul_ps(_mm512_cvtepi32_ps(both), scale));
    }
}

static void load_strip(const oc_act *x, int64_t c, int64_t n, int64_t b, oc_panel_mins mins, column *to) {
    for (int64_t i = 0; i < n; i++) load_column(x, c + i, b, mins, to + i);
}

static void find_start(const oc_panel *panel, start *to) {
    for (int p = 0; p < 16; p++) {
        __m512i sum = _mm512_setzero_si512();
        for (int j = 0; j < 4; j++)
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), panel->codes[p][j]);
        to->bits[p] = _mm512_sub_epi32(_mm512_set1_epi32(MAGIC_BITS), sum);
        to->scaled[p] = _mm512_mul_ps(_mm512_set1_ps(MAGIC), panel->scale[p]);
    }
}

/* Add the products of a panel with TILE columns to their sums. */
OC_INLINE void tile(const oc_panel *panel, const start *start, const column *x, __m512 *acc,
                    const oc_panel_mins mins) {
    __m512 products[TILE];
    for (int i = 0; i < TILE; i++) products[i] = _mm512_setzero_ps();
    for (int p = 0; p < 16; p++) {
        __m512i total[TILE];
        for (int i = 0; i < TILE; i++) total[i] = start->bits[p];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < TILE; i++) {
                const __m512i codes = oc_codes4_wide((const int8_t *)x[i].codes + 16 * p + 4 * j);
                total[i] = _mm512_dpbusd_epi32(total[i], codes, panel->codes[p][j]);
            }
        for (int i = 0; i < TILE; i++) {
            const __m512 t =
                _mm512_fmsub_ps(_mm512_castsi512_ps(total[i]), panel->scale[p], start->scaled[p]);
            products[i] = _mm512_fmadd_ps(t, _mm512_set1_ps(x[i].scale[p]), products[i]);
        }
    }
    for (int i = 0; i < TILE; i++) acc[i] = _mm512_fmadd_ps(panel->d, products[i], acc[i]);
    if (mins == OC_PANEL_NO_MINS) return;
    __m512 sums[TILE];
    for (int i = 0; i < TILE; i++) sums[i] = _mm512_setzero_ps();
    for (int p = 0; p < (mins == OC_PANEL_MINS_OF_16 ? 16 : 8); p++)
        for (int i = 0; i < TILE; i++)
            sums[i] = _mm512_fmadd_ps(panel->min[p], _mm512_set1_ps(x[i].sum[p]), sums[i]);
    for (int i = 0; i < TILE; i++) acc[i] = _mm512_fnmadd_ps(panel->dmin, sums[i], acc[i]);
}

static void strip(const oc_panel *panel, const column *x, int64_t n, __m512 *acc, oc_panel_mins mins) {
    start start;
    find_start(panel, &start);
    for (int64_t c = 0; c < n; c += TILE) {
        if (mins == OC_PANEL_NO_MINS) tile(panel, &start, x + c, acc + c, OC_PANEL_NO_MINS);
        else if (mins == OC_PANEL_MINS_OF_32) tile(panel, &start, x + c, acc + c, OC_PANEL_MINS_OF_32);
        else tile(panel, &start, x + c, acc + c, OC_PANEL_MINS_OF_16);
    }
}

void oc_panel_matmul_avx512vnni(oc_panel_unpack unpack, oc_panel_mins mins, size_t block_bytes,
                                const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,
                                int64_t g1) {
    const int64_t n_blocks = x->k / 256, columns = oc_panel_columns(x);
    const size_t group = n_blocks * block_bytes;
    column activations[STRIP];
    __m512 acc[PAIRS][STRIP];
    for (int64_t from = g0; from < g1; from += 2 * PAIRS) {
        const int64_t to = from + 2 * PAIRS < g1 ? from + 2 * PAIRS : g1;
        for (int64_t c = 0; c < columns; c += STRIP) {
            const int64_t n = columns - c < STRIP ? columns - c : STRIP;
            memset(acc, 0, sizeof acc);
            for (int64_t b = 0; b < n_blocks; b++) {
                load_strip(x, c, n, b, mins, activations);
                for (int64_t g = from; g < to; g += 2) {
                    const uint8_t *w = (const uint8_t *)packed + g * group + b * block_bytes;
                    oc_panel panel;
                    unpack(w, w + (g + 1 < to ? group : 0), &panel);
                    strip(&panel, activations, n, acc[(g - from) / 2], mins);
                }
            }
            for (int64_t g = from; g < to; g += 2)
                for (int64_t i = 0; i < n; i++)
                    oc_store2(y + (c + i) * ldy + 8 * g, acc[(g - from) / 2][i], g + 1 < to);
        }
    }
}

#include "kernels/x86/target_end.h"
