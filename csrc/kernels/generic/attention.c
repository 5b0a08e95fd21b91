/* attention.c - references of the attention rows, and what their variants share: the size of a tile, and of the
 * scratch, one tile of K and V as floats. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"
#include "kernels/vecmath.h"

size_t oc_attention_scratch(int64_t head_dim) { return (size_t)(2 * OC_TILE * head_dim); }

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
    const int64_t head_dim = args->head_dim;
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
    for (int64_t d = 0; d < head_dim; d++) out[d] *= rescale;
    for (int j = low; j < high; j++) { /* a masked value is not even multiplied by 0: it may be NaN */
        total += score[j];
        for (int64_t d = 0; d < head_dim; d++) out[d] += score[j] * v[j * head_dim + d];
    }
    *max = top;
    *sum = total;
}

/* Tiles as floats, in place where they are. */
static void widen_f32(const oc_attention_args *args, int64_t tile, const float **k, const float **v) {
    *k = args->k_tiles[tile];
    *v = args->v_tiles[tile];
}

static void widen_f16(const oc_attention_args *args, int64_t tile, const float **k, const float **v) {
    const uint16_t *k_half = args->k_tiles[tile], *v_half = args->v_tiles[tile];
    const int64_t n = OC_TILE * args->head_dim;
    float *wide = args->scratch;
    for (int64_t i = 0; i < n; i++) {
        wide[i] = oc_f16_to_f32(k_half[i]);
        wide[n + i] = oc_f16_to_f32(v_half[i]);
    }
    *k = wide;
    *v = wide + n;
}

static void widen_q8_0(const oc_attention_args *args, int64_t tile, const float **k, const float **v) {
    const int8_t *k_code = args->k_tiles[tile], *v_code = args->v_tiles[tile];
    const int64_t head_dim = args->head_dim, n = OC_TILE * head_dim;
    const uint16_t *k_scale = (const uint16_t *)(const void *)(k_code + n),
                   *v_scale = (const uint16_t *)(const void *)(v_code + n);
    float *wide = args->scratch;
    for (int64_t d = 0; d < head_dim; d++)
        for (int64_t j = 0; j < OC_TILE; j++) {
            const int64_t scale = d / OC_KV_BLOCK * OC_TILE + j;
            wide[d * OC_TILE + j] = oc_f16_to_f32(k_scale[scale]) * k_code[d * OC_TILE + j];
            wide[n + j * head_dim + d] = oc_f16_to_f32(v_scale[scale]) * v_code[j * head_dim + d];
        }
    *k = wide;
    *v = wide + n;
}

static void attention(const oc_attention_args *args,
                      void (*widen)(const oc_attention_args *, int64_t, const float **, const float **)) {
    const int64_t head_dim = args->head_dim;
    int32_t begin = INT32_MAX, end = 0;
    for (int64_t row = 0; row < args->n_rows; row++) {
        args->max[row] = -FLT_MAX; /* finite, so that max - max is never NaN */
        args->sum[row] = 0;
        memset(args->out + row * args->out_stride, 0, (size_t)head_dim * sizeof(float));
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
            if (!k) widen(args, start / OC_TILE, &k, &v);
            attend(args, row, k, v, start, low, high);
        }
    }
}

void oc_attention_f32_generic(const oc_attention_args *args) { attention(args, widen_f32); }
void oc_attention_f16_generic(const oc_attention_args *args) { attention(args, widen_f16); }
void oc_attention_q8_0_generic(const oc_attention_args *args) { attention(args, widen_q8_0); }
