/* attention.c - references of the attention rows, and what their variants share: the size of a tile, and of the
 * scratch, scores of a pass and one tile of K and V as floats. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"
#include "kernels/vecmath.h"

size_t oc_attention_scratch(int64_t head_dim) {
    return (size_t)(OC_ATTENTION_ROWS * OC_ATTENTION_KEYS + 2 * OC_TILE * head_dim);
}

size_t oc_kv_tile_size(oc_kv_type type, int64_t head_dim) {
    const size_t elements = (size_t)head_dim * OC_TILE, blocks = ((size_t)head_dim + OC_KV_BLOCK - 1) / OC_KV_BLOCK;
    switch (type) {
    case OC_KV_F32: return elements * sizeof(float);
    case OC_KV_Q8_0: return elements + blocks * OC_TILE * sizeof(uint16_t);
    default: return elements * sizeof(uint16_t);
    }
}

/* One tile for one row: keys [low, high) of those from `start` on. State: the row's max, sum and unscaled output. */
static void attend(const oc_attention_args *args, int64_t row, const float *k, const float *v, int32_t start, int low,
                   int high) {
    const int64_t head_dim = args->head_dim, value_dim = args->value_dim;
    const float *q = args->q + row * args->q_stride, softcap = args->softcap;
    float *max = &args->max[row], *sum = &args->sum[row], *out = args->out + row * args->out_stride;
    float score[OC_TILE] = {0}, top = *max;
    for (int64_t d = 0; d < head_dim; d++)
        for (int j = 0; j < OC_TILE; j++) score[j] += q[d] * k[d * OC_TILE + j];
    for (int j = 0; softcap > 0 && j < OC_TILE; j++) score[j] = softcap * oc_tanhf(score[j] / softcap);
    for (int j = 0; args->slope && j < OC_TILE; j++)
        score[j] -= args->slope[row] * fabsf((float)(start + j - args->position[row]));
    for (int j = low; j < high; j++) top = score[j] > top ? score[j] : top;

    float rescale = oc_expf(*max - top), total = *sum * rescale;
    for (int j = 0; j < OC_TILE; j++) score[j] = oc_expf(score[j] - top);
    for (int64_t d = 0; d < value_dim; d++) out[d] *= rescale;
    for (int j = low; j < high; j++) { /* a masked value is not even multiplied by 0: it may be NaN */
        total += score[j];
        for (int64_t d = 0; d < value_dim; d++) out[d] += score[j] * v[j * value_dim + d];
    }
    *max = top;
    *sum = total;
}

/* The keys or the values of a tile as floats, in place where they are. */
static const float *widen_f32(const void *tile, int64_t head_dim, int is_key, float *wide) {
    (void)head_dim, (void)is_key, (void)wide;
    return tile;
}

static const float *widen_f16(const void *tile, int64_t head_dim, int is_key, float *wide) {
    const uint16_t *half = tile;
    (void)is_key;
    for (int64_t i = 0; i < OC_TILE * head_dim; i++) wide[i] = oc_f16_to_f32(half[i]);
    return wide;
}

static const float *widen_q8_0(const void *tile, int64_t head_dim, int is_key, float *wide) {
    const int8_t *code = tile;
    const uint16_t *scale = (const uint16_t *)(const void *)(code + OC_TILE * head_dim);
    for (int64_t d = 0; d < head_dim; d++)
        for (int64_t j = 0; j < OC_TILE; j++) {
            const int64_t at = is_key ? d * OC_TILE + j : j * head_dim + d;
            wide[at] = oc_f16_to_f32(scale[d / OC_KV_BLOCK * OC_TILE + j]) * code[at];
        }
    return wide;
}

typedef const float *widen_fn(const void *tile, int64_t head_dim, int is_key, float *wide);

/* The values of a tile: its own, or the first elements of its keys, given as floats. */
static const float *values_of(const oc_attention_args *args, int64_t tile, const float *k, widen_fn *widen) {
    float *wide = args->scratch + OC_TILE * args->head_dim;
    if (args->v_tiles) return widen(args->v_tiles[tile], args->head_dim, 0, wide);
    for (int64_t d = 0; d < args->value_dim; d++)
        for (int64_t j = 0; j < OC_TILE; j++) wide[j * args->value_dim + d] = k[d * OC_TILE + j];
    return wide;
}

static void attention(const oc_attention_args *args, widen_fn *widen) {
    int32_t begin = INT32_MAX, end = 0;
    for (int64_t row = 0; row < args->n_rows; row++) {
        args->max[row] = -FLT_MAX; /* finite, so that max - max is never NaN */
        args->sum[row] = 0;
        memset(args->out + row * args->out_stride, 0, (size_t)args->value_dim * sizeof(float));
        if (args->first[row] >= args->last[row]) continue;
        begin = args->first[row] < begin ? args->first[row] : begin;
        end = args->last[row] > end ? args->last[row] : end;
    }
    for (int32_t start = begin / OC_TILE * OC_TILE; start < end; start += OC_TILE) {
        const float *k = NULL, *v = NULL;
        for (int64_t row = 0; row < args->n_rows; row++) {
            int low = args->first[row] > start ? args->first[row] - start : 0;
            int high = args->last[row] < start + OC_TILE ? args->last[row] - start : OC_TILE;
            if (low >= high) continue; /* a tile that no row attends to is never touched */
            if (!k) {
                k = widen(args->k_tiles[start / OC_TILE], args->head_dim, 1, args->scratch);
                v = values_of(args, start / OC_TILE, k, widen);
            }
            attend(args, row, k, v, start, low, high);
        }
    }
}

void oc_attention_f32_generic(const oc_attention_args *args) { attention(args, widen_f32); }
void oc_attention_f16_generic(const oc_attention_args *args) { attention(args, widen_f16); }
void oc_attention_q8_0_generic(const oc_attention_args *args) { attention(args, widen_q8_0); }
