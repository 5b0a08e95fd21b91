/* panel_avx512vnni.c - products of unpacked panels of weights and strips of columns (see panel_avx512.h).
 *
 * vpdpbusd wants one unsigned operand: the activations, 128 more than they are. 128 * (sum of 16 weights),
 * the same for all columns, is taken off beforehand. Sums start at the bits of the float 1.5 * 2^23, in whose
 * last place an integer counts as it is: read as a float the sum is 1.5 * 2^23 more, and the multiplication
 * by the scale takes that off, exactly: no conversion. The sums are below 2^22, their products with a scale
 * below 2^24 (see matmul_k.inc and matmul_codebook.inc), and 1.5 * 2^23 times 8 bits has 10. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/panel_avx512.h"

#define STRIP 96 /* columns that pass over an unpacked panel */
#define TILE 6   /* columns at a time, by 32 rows: every activation that is loaded is multiplied twice */
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

/* n columns from c on, and zeros up to whole tiles; returns the number of all. */
static int64_t load_strip(const oc_act *x, int64_t c, int64_t n, int64_t b, oc_panel_mins mins, column *to) {
    for (int64_t i = 0; i < n; i++) load_column(x, c + i, b, mins, to + i);
    for (; n % TILE; n++) memset(to + n, 0, sizeof *to);
    return n;
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

/* Add the products of two panels with TILE columns to their sums. */
static void multiply(const oc_panel panel[2], const start start[2], const column *x, __m512 (*acc)[2]) {
    __m512 products[TILE][2];
    for (int i = 0; i < TILE; i++) products[i][0] = products[i][1] = _mm512_setzero_ps();
    for (int p = 0; p < 16; p++) {
        __m512i total[TILE][2];
        for (int i = 0; i < TILE; i++)
            for (int r = 0; r < 2; r++) total[i][r] = start[r].bits[p];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m512i q0 = panel[0].codes[p][j], q1 = panel[1].codes[p][j];
            for (int i = 0; i < TILE; i++) {
                const __m512i codes = oc_codes4_wide((const int8_t *)x[i].codes + 16 * p + 4 * j);
                total[i][0] = _mm512_dpbusd_epi32(total[i][0], codes, q0);
                total[i][1] = _mm512_dpbusd_epi32(total[i][1], codes, q1);
            }
        }
        for (int i = 0; i < TILE; i++) {
            const __m512 scale = _mm512_set1_ps(x[i].scale[p]);
            for (int r = 0; r < 2; r++) {
                const __m512 sum = _mm512_castsi512_ps(total[i][r]);
                const __m512 t = _mm512_fmsub_ps(sum, panel[r].scale[p], start[r].scaled[p]);
                products[i][r] = _mm512_fmadd_ps(t, scale, products[i][r]);
            }
        }
    }
    for (int i = 0; i < TILE; i++)
        for (int r = 0; r < 2; r++) acc[i][r] = _mm512_fmadd_ps(panel[r].d, products[i][r], acc[i][r]);
}

/* Take their minima off, `n_mins` for a block. */
static void subtract_mins(const oc_panel panel[2], const int n_mins, const column *x, __m512 (*acc)[2]) {
    __m512 mins[TILE][2];
    for (int i = 0; i < TILE; i++) mins[i][0] = mins[i][1] = _mm512_setzero_ps();
    for (int p = 0; p < n_mins; p++)
        for (int i = 0; i < TILE; i++) {
            const __m512 sum = _mm512_set1_ps(x[i].sum[p]);
            for (int r = 0; r < 2; r++) mins[i][r] = _mm512_fmadd_ps(panel[r].min[p], sum, mins[i][r]);
        }
    for (int i = 0; i < TILE; i++)
        for (int r = 0; r < 2; r++) acc[i][r] = _mm512_fnmadd_ps(panel[r].dmin, mins[i][r], acc[i][r]);
}

/* 4 groups; of a part of them the last ones stand in for those that are missing. */
static void multiply_strip(const oc_format_panels *f, const uint8_t *const w[4], const oc_act *x, int64_t c,
                           int64_t n, __m512 (*acc)[2]) {
    column columns[STRIP];
    memset(acc, 0, STRIP * sizeof *acc);
    for (int64_t b = 0; b < x->k / 256; b++) {
        oc_panel panel[2];
        start start[2];
        const int64_t at = b * f->block_bytes, all = load_strip(x, c, n, b, f->mins, columns);
        for (int r = 0; r < 2; r++) {
            f->unpack(w[2 * r] + at, w[2 * r + 1] + at, &panel[r]);
            find_start(&panel[r], &start[r]);
        }
        for (int64_t i = 0; i < all; i += TILE) {
            multiply(panel, start, columns + i, acc + i);
            if (f->mins != OC_PANEL_NO_MINS)
                subtract_mins(panel, f->mins == OC_PANEL_MINS_OF_16 ? 16 : 8, columns + i, acc + i);
        }
    }
}

void oc_panel_matmul_avx512vnni(const oc_format_panels *f, const void *packed, const oc_act *x, float *y,
                                int64_t ldy, int64_t g0, int64_t g1) {
    const int64_t group = x->k / 256 * f->block_bytes;
    for (int64_t g = g0; g < g1; g += 4) {
        const uint8_t *w[4];
        for (int i = 0; i < 4; i++) w[i] = (const uint8_t *)packed + (g + i < g1 ? g + i : g1 - 1) * group;
        for (int64_t c = 0; c < x->n; c += STRIP) {
            __m512 acc[STRIP][2];
            const int64_t n = x->n - c < STRIP ? x->n - c : STRIP;
            multiply_strip(f, w, x, c, n, acc);
            for (int64_t i = 0; i < n; i++)
                for (int r = 0; r < 2 && g + 2 * r < g1; r++)
                    oc_store2(y + (c + i) * ldy + 8 * (g + 2 * r), acc[i][r], g + 2 * r + 1 < g1);
        }
    }
}

#include "kernels/x86/target_end.h"
