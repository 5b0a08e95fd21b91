/* attention_avx512vnni.c - attention for head sizes that are multiples of 16: the primitives of kernels/attention.inc. */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/kernels.h"
#include "kernels/vecmath.h"

typedef __m512 vec, factor;

#define LANES 16
#define MAX_BLOCK 6
#define MAX_WIDTH 8
/* 24 sums, and 3 factors or 4 vectors, and one of the others, fit the 32 registers. */
#define FACTORS_FIRST(rows, width) ((rows) <= (width))
#define SCORE_WIDTH(rows) ((rows) > 3 ? 4 : 8)
#define VALUE_WIDTH(rows) ((rows) > 3 ? 4 : 8)

#define vec_zero _mm512_setzero_ps
#define vec_set _mm512_set1_ps
#define vec_load _mm512_loadu_ps
#define vec_store _mm512_storeu_ps
#define vec_add _mm512_add_ps
#define vec_sub _mm512_sub_ps
#define vec_mul _mm512_mul_ps
#define vec_div _mm512_div_ps
#define vec_max _mm512_max_ps
#define vec_fma _mm512_fmadd_ps
#define factor_load(from) _mm512_set1_ps(*(from))
#define vec_fma_by _mm512_fmadd_ps
#define vec_highest _mm512_reduce_max_ps
#define vec_total _mm512_reduce_add_ps

static inline vec vec_load_f16(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

static inline vec vec_load_i8(const int8_t *from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)from)));
}

static inline vec vec_inside(vec v, int key, int low, int high) {
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i keys = _mm512_add_epi32(lane, _mm512_set1_epi32(key));
    __mmask16 inside = _mm512_cmpge_epi32_mask(keys, _mm512_set1_epi32(low)) &
                       _mm512_cmplt_epi32_mask(keys, _mm512_set1_epi32(high));
    return _mm512_mask_blend_ps(inside, _mm512_set1_ps(-INFINITY), v);
}

/* As oc_exp_parts. */
static inline vec exp_parts(vec x, vec *half) {
    const vec round = _mm512_set1_ps(OC_EXP_ROUND);
    const vec shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(OC_EXP_LOG2E), round), n = _mm512_sub_ps(shifted, round);
    vec r = _mm512_fnmadd_ps(n, _mm512_set1_ps(OC_EXP_LN2_HIGH), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(OC_EXP_LN2_LOW), r);
    vec q = _mm512_fmadd_ps(_mm512_set1_ps(OC_EXP_Q5), r, _mm512_set1_ps(OC_EXP_Q4));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(OC_EXP_Q3));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(OC_EXP_Q2));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(OC_EXP_Q1));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(OC_EXP_Q0));
    const __m512i exponent = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(126));
    *half = _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
    return _mm512_fmadd_ps(_mm512_mul_ps(q, r), r, r);
}

static inline vec vec_exp(vec x) {
    vec half, y = exp_parts(_mm512_min_ps(_mm512_set1_ps(OC_EXP_MAX), x), &half); /* this order keeps NaN */
    y = _mm512_fmadd_ps(y, half, half);
    const __mmask16 too_low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(OC_EXP_MIN), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(_mm512_add_ps(y, y), too_low, _mm512_setzero_ps());
}

static inline vec vec_tanh(vec x) {
    const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN));
    const vec a = _mm512_min_ps(_mm512_set1_ps(10.0f), _mm512_abs_ps(x)), one = _mm512_set1_ps(1.0f);
    vec half, y = exp_parts(_mm512_add_ps(a, a), &half);
    const vec scale = _mm512_add_ps(half, half), m = _mm512_fmadd_ps(y, scale, _mm512_sub_ps(scale, one));
    const vec t = _mm512_div_ps(m, _mm512_add_ps(m, _mm512_set1_ps(2.0f)));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(t), sign));
}

/* Four times vectors i and i + 8 interleave into 2 i and 2 i + 1. */
static inline void vec_transpose(vec v[LANES]) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    vec from[LANES];
    for (int step = 1; step < LANES; step *= 2) {
        for (int i = 0; i < LANES; i++) from[i] = v[i];
        for (int i = 0; i < LANES / 2; i++) {
            v[2 * i] = _mm512_permutex2var_ps(from[i], low, from[i + LANES / 2]);
            v[2 * i + 1] = _mm512_permutex2var_ps(from[i], high, from[i + LANES / 2]);
        }
    }
}

#include "kernels/attention.inc"

extern oc_attention_row oc_attention_f32_avx2, oc_attention_f16_avx2, oc_attention_q8_0_avx2;

void oc_attention_f32_avx512vnni(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_f32_avx2(args);
    else
        attention(args, TILE_F32);
}

void oc_attention_f16_avx512vnni(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_f16_avx2(args);
    else
        attention(args, TILE_F16);
}

void oc_attention_q8_0_avx512vnni(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_q8_0_avx2(args);
    else
        attention(args, TILE_Q8_0);
}

#include "kernels/x86/target_end.h"
