/* attention.c - references of attention_f16 and attention_f32, and the scratch layout of every variant:
 * one tile of K and V as floats (2 x 32 x head_dim), then the running maximum and sum of each row (2 x
 * n_rows). */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "kernels/kernels.h"
#include "kernels/vecmath.h"

size_t oc_attention_scratch(int64_t n_rows, int64_t head_dim) {
    return (size_t)(2 * OC_TILE * head_dim + 2 * n_rows);
}

/* One tile for one row: keys [low, high) of it. State: *max, *sum and the unscaled output. */
static void attend(const float *q, const float *k, const float *v, int64_t head_dim, int low, int high,
                   float softcap, float *max, float *sum, float *out) {
    float score[OC_TILE] = {0}, top = *max;
    for (int64_t d = 0; d < head_dim; d++)
        for (int j = 0; j < OC_TILE; j++) score[j] += q[d] * k[d * OC_TILE + j];
    for (int j = 0; softcap > 0 && j < OC_TILE; j++) score[j] = softcap * oc_tanhf(score[j] / softcap);
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

static void widen(const uint16_t *half, int64_t n, float *wide) {
    for (int64_t i = 0; i < n; i++) wide[i] = oc_f16_to_f32(half[i]);
}

static void attention(const oc_attention_args *args, int is_f16) {
    int64_t head_dim = args->head_dim, tile_floats = OC_TILE * head_dim;
    float *k_wide = args->scratch, *v_wide = k_wide + tile_floats;
    float *max = v_wide + tile_floats, *sum = max + args->n_rows;
    int32_t begin = INT32_MAX, end = 0;
    for (int64_t row = 0; row < args->n_rows; row++) {
        begin = args->first[row] < begin ? args->first[row] : begin;
        end = args->last[row] > end ? args->last[row] : end;
        max[row] = -FLT_MAX; /* finite, so that max - max is never NaN */
        sum[row] = 0;
        memset(args->out + row * args->out_stride, 0, (size_t)head_dim * sizeof(float));
    }
    for (int32_t start = begin / OC_TILE * OC_TILE; start < end; start += OC_TILE) {
        const float *k = NULL, *v = NULL;
        for (int64_t row = 0; row < args->n_rows; row++) {
            int low = args->first[row] > start ? args->first[row] - start : 0;
            int high = args->last[row] < start + OC_TILE ? args->last[row] - start : OC_TILE;
            if (low >= high) continue; /* a tile that no row attends to is never touched */
            if (!k) {
                k = args->k_tiles[start / OC_TILE];
                v = args->v_tiles[start / OC_TILE];
                if (is_f16) {
                    widen((const uint16_t *)(const void *)k, tile_floats, k_wide);
                    widen((const uint16_t *)(const void *)v, tile_floats, v_wide);
                    k = k_wide;
                    v = v_wide;
                }
            }
            attend(args->q + row * args->q_stride, k, v, head_dim, low, high, args->softcap, &max[row],
                   &sum[row], args->out + row * args->out_stride);
        }
    }
    for (int64_t row = 0; row < args->n_rows; row++)
        for (int64_t d = 0; d < head_dim; d++) args->out[row * args->out_stride + d] /= sum[row];
}

void oc_attention_f16_generic(const oc_attention_args *args) { attention(args, 1); }

void oc_attention_f32_generic(const oc_attention_args *args) { attention(args, 0); }
