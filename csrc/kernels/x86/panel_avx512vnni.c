/* panel_avx512vnni.c - products of unpacked panels of weights and strips of columns (see panel_avx512.h).
 *
 * vpdpbusd wants one unsigned operand: the activations, 128 more than they are. 128 * (sum of 16 weights),
 * the same for all columns, is taken off beforehand. Sums start at the bits of the float 1.5 * 2^23, in whose
 * last place an integer counts as it is: read as a float the sum is 1.5 * 2^23 more, and the multiplication
 * by the scale takes that off, exactly: no conversion. The sums are below 2^22, their products with a scale
 * below 2^24 (see matmul_k.inc and matmul_codebook.inc), and 1.5 * 2^23 times 8 bits has 10. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/panel_avx512.h"

#define TILE 6 /* columns at a time, by 32 rows: every activation that is loaded is multiplied twice */
#define MAGIC 12582912.0f
#define MAGIC_BITS 0x4B400000

typedef struct column { /* 256 activations */
    uint8_t codes[256]; /* 128 more than they are */
    float scale[16], sum[16];
} column;

OC_INLINE void load_column(const oc_format_panels *f, const oc_act *x, int64_t c, int64_t at, int elements,
                           column *to) {
    const int8_t *codes = x->codes + c * x->k + at;
    const __m512 scale = _mm512_loadu_ps(x->scale + (c * x->k + at) / 16);
    for (int i = 0; i < 256; i += 64)
        _mm512_storeu_si512(to->codes + i,
                            _mm512_xor_si512(_mm512_loadu_si512(codes + i), _mm512_set1_epi8(-128)));
    _mm512_storeu_ps(to->scale, scale);
    if (f->mins == OC_PANEL_MINS_OF_32)
        _mm256_storeu_ps(to->sum, _mm256_loadu_ps(x->sum + (c * x->k + at) / 32));
    if (f->mins == OC_PANEL_MINS_OF_16) {
        __m256i t[2];
        oc_sums_of_16(codes, t);
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(t[0]), t[1], 1);
        _mm512_storeu_ps(to->sum, _mm512_mul_ps(_mm512_cvtepi32_ps(both), scale));
    }
}

static void unpack_panel(const oc_format_panels *f, const uint8_t *const w[2], int64_t at, int elements,
                         oc_panel *panel) {
    f->unpack(w[0] + at, w[1] + at, panel);
    for (int p = 0; p < 16; p++) {
        __m512i sum = _mm512_setzero_si512();
        for (int j = 0; j < 4; j++)
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), panel->codes[p][j]);
        panel->start[p] = _mm512_sub_epi32(_mm512_set1_epi32(MAGIC_BITS), sum);
        panel->scaled_start[p] = _mm512_mul_ps(_mm512_set1_ps(MAGIC), panel->scale[p]);
    }
}

/* Add the products of two panels with TILE columns to their sums. */
static void multiply(const oc_panel *const panel[2], const column *x, __m512 (*acc)[2]) {
    __m512 products[TILE][2];
    for (int i = 0; i < TILE; i++) products[i][0] = products[i][1] = _mm512_setzero_ps();
    for (int p = 0; p < 16; p++) {
        __m512i total[TILE][2];
        for (int i = 0; i < TILE; i++)
            for (int r = 0; r < 2; r++) total[i][r] = panel[r]->start[p];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m512i q0 = panel[0]->codes[p][j], q1 = panel[1]->codes[p][j];
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
                const __m512 t = _mm512_fmsub_ps(sum, panel[r]->scale[p], panel[r]->scaled_start[p]);
                products[i][r] = _mm512_fmadd_ps(t, scale, products[i][r]);
            }
        }
    }
    for (int i = 0; i < TILE; i++)
        for (int r = 0; r < 2; r++) acc[i][r] = _mm512_fmadd_ps(panel[r]->d, products[i][r], acc[i][r]);
}

/* Take their minima off, `n_mins` for a block. */
static void subtract_mins(const oc_panel *const panel[2], const int n_mins, const column *x,
                          __m512 (*acc)[2]) {
    __m512 mins[TILE][2];
    for (int i = 0; i < TILE; i++) mins[i][0] = mins[i][1] = _mm512_setzero_ps();
    for (int p = 0; p < n_mins; p++)
        for (int i = 0; i < TILE; i++) {
            const __m512 sum = _mm512_set1_ps(x[i].sum[p]);
            for (int r = 0; r < 2; r++) mins[i][r] = _mm512_fmadd_ps(panel[r]->min[p], sum, mins[i][r]);
        }
    for (int i = 0; i < TILE; i++)
        for (int r = 0; r < 2; r++) acc[i][r] = _mm512_fnmadd_ps(panel[r]->dmin, mins[i][r], acc[i][r]);
}

/* One panel stands in for the other that is missing. The next tile is left to the processor: asking for it
 * gains as often as it costs. */
static void multiply_tile(const oc_format_panels *f, const oc_panel *panels, int n_panels, int elements,
                          const column *columns, __m512 (*acc)[2], const oc_act *x, int64_t next,
                          int64_t next_at) {
    const oc_panel *const pair[2] = {panels, panels + n_panels - 1};
    multiply(pair, columns, acc);
    if (f->mins != OC_PANEL_NO_MINS)
        subtract_mins(pair, f->mins == OC_PANEL_MINS_OF_16 ? 16 : 8, columns, acc);
}

static void store_sums(float *out, __m512 sums, int groups) { oc_store2(out, sums, groups > 1); }

#define OC_PANEL_LINKAGE
#define OC_PANEL_MATMUL oc_panel_matmul_avx512vnni
#define oc_panel_sums __m512
#define PANEL_GROUPS 2
#define PANEL_ROWS 4
#define PANEL_TILE TILE
#define PANEL_STRIP 96
#include "kernels/x86/panel_walk.inc"

#include "kernels/x86/target_end.h"
