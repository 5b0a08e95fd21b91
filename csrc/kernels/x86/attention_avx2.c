/* attention_avx2.c - attention for head sizes that are multiples of 8: the primitives of kernels/attention.inc. */
#include "kernels/x86/target_avx2.h"

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

typedef __m256 vec, factor;

#define LANES 8
#define MAX_BLOCK 6
#define MAX_WIDTH 4
/* What there are fewer of is held in registers: 12 sums, 3 factors and a vector, or 12 sums, 2 vectors and a
 * factor, fill the 16. */
#define FACTORS_FIRST(rows, width) ((rows) <= (width))
#define SCORE_WIDTH(rows) ((rows) > 3 ? 2 : 4)
#define VALUE_WIDTH(rows) ((rows) > 3 ? 2 : 4)

#define vec_zero _mm256_setzero_ps
#define vec_set _mm256_set1_ps
#define vec_load _mm256_loadu_ps
#define vec_store _mm256_storeu_ps
#define vec_add _mm256_add_ps
#define vec_sub _mm256_sub_ps
#define vec_mul _mm256_mul_ps
#define vec_div _mm256_div_ps
#define vec_max _mm256_max_ps
#define vec_fma _mm256_fmadd_ps
#define factor_load _mm256_broadcast_ss
#define vec_fma_by _mm256_fmadd_ps
#define vec_exp oc_exp_avx2
#define vec_tanh oc_tanh_avx2
#define vec_highest oc_max_avx2
#define vec_total oc_sum_avx2

static inline vec vec_load_f16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
}

static inline vec vec_load_i8(const int8_t *from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)from)));
}

static inline vec vec_inside(vec v, int key, int low, int high) {
    __m256i keys = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(key));
    __m256i inside = _mm256_and_si256(_mm256_cmpgt_epi32(keys, _mm256_set1_epi32(low - 1)),
                                      _mm256_cmpgt_epi32(_mm256_set1_epi32(high), keys));
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, _mm256_castsi256_ps(inside));
}

static inline void vec_transpose(vec v[LANES]) {
    vec pair[LANES], four[LANES];
    for (int i = 0; i < LANES; i += 2) {
        pair[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            four[i + 2 * j] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], _MM_SHUFFLE(1, 0, 1, 0));
            four[i + 2 * j + 1] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], _MM_SHUFFLE(3, 2, 3, 2));
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
    }
}

#include "kernels/attention.inc"

extern oc_attention_row oc_attention_f32_generic, oc_attention_f16_generic, oc_attention_q8_0_generic;

void oc_attention_f32_avx2(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_f32_generic(args);
    else
        attention(args, TILE_F32);
}

void oc_attention_f16_avx2(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_f16_generic(args);
    else
        attention(args, TILE_F16);
}

void oc_attention_q8_0_avx2(const oc_attention_args *args) {
    if ((args->head_dim | args->value_dim) % LANES)
        oc_attention_q8_0_generic(args);
    else
        attention(args, TILE_Q8_0);
}

#include "kernels/x86/target_end.h"
