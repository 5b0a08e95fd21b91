/* attention_neon.c - attention_f16 and attention_f32 for head sizes that are multiples of 4.
 *
 * Tiles are the outer loop. In a tile, runs of rows with the same key range (the query heads of one token; in
 * full tiles all rows) are cut into blocks of at most 6 rows, so that every loaded vector of K or V serves
 * the whole block. That does not reach the result: each score is one fused chain over d, each output one
 * fused chain over the keys, whatever block the row is in.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns") /* see matmul_neon.h */
#endif

#include <float.h>
#include <string.h>

#include "kernels/arm/vecmath_neon.h"
#include "kernels/kernels.h"

#define MAX_BLOCK 6
#define MAX_WIDTH 8
#define VECTORS (OC_TILE / 4)
#define INLINE static inline __attribute__((always_inline))

extern void oc_attention_f16_generic(const oc_attention_args *args);
extern void oc_attention_f32_generic(const oc_attention_args *args);

typedef struct tile {
    const void *k, *v;
    int low, high; /* keys of it that the rows of the block attend to */
} tile;

typedef struct block {
    float score[MAX_BLOCK][OC_TILE];
    float rescale[MAX_BLOCK];
    const float *q;
    float *out;
    int64_t q_stride, out_stride, head_dim;
} block;

INLINE float32x4_t load4(const void *base, int64_t index, int is_f16) {
    if (is_f16) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)base + index)));
    return vld1q_f32((const float *)base + index);
}

/* sum[row][w] += factors[row * stride] * (vector w from `index` of base on): up to 24 sums, 6 factors and a
 * vector fill the 32 registers. */
INLINE void outer_product(float32x4_t sum[][MAX_WIDTH], const float *factors, int64_t stride,
                          const void *base, int64_t index, int is_f16, int rows, int width) {
    float factor[MAX_BLOCK];
    for (int row = 0; row < rows; row++) factor[row] = factors[row * stride];
    for (int w = 0; w < width; w++) {
        const float32x4_t vector = load4(base, index + 4 * w, is_f16);
        for (int row = 0; row < rows; row++) sum[row][w] = vfmaq_n_f32(sum[row][w], vector, factor[row]);
    }
}

/* Scores of `rows` rows, `width` vectors of 4 keys at a time: rows * width accumulators. */
INLINE void block_scores(block *b, const void *k, int is_f16, int rows, int width) {
    for (int part = 0; part < VECTORS; part += width) {
        float32x4_t sum[MAX_BLOCK][MAX_WIDTH];
        for (int row = 0; row < rows; row++)
            for (int w = 0; w < width; w++) sum[row][w] = vdupq_n_f32(0);
        for (int64_t d = 0; d < b->head_dim; d++)
            outer_product(sum, b->q + d, b->q_stride, k, d * OC_TILE + 4 * part, is_f16, rows, width);
        for (int row = 0; row < rows; row++)
            for (int w = 0; w < width; w++) vst1q_f32(&b->score[row][4 * (part + w)], sum[row][w]);
    }
}

/* Add the weighted values of the tile to `width` vectors of the outputs, from element d on. */
INLINE void block_values(block *b, const tile *t, int64_t d, int is_f16, int rows, int width) {
    float32x4_t sum[MAX_BLOCK][MAX_WIDTH];
    for (int row = 0; row < rows; row++)
        for (int w = 0; w < width; w++)
            sum[row][w] = vmulq_n_f32(vld1q_f32(b->out + row * b->out_stride + d + 4 * w), b->rescale[row]);
    for (int key = t->low; key < t->high; key++)
        outer_product(sum, &b->score[0][key], OC_TILE, t->v, key * b->head_dim + d, is_f16, rows, width);
    for (int row = 0; row < rows; row++)
        for (int w = 0; w < width; w++) vst1q_f32(b->out + row * b->out_stride + d + 4 * w, sum[row][w]);
}

/* All ones in the lanes of keys 4w .. 4w+3 that lie in the range. */
INLINE uint32x4_t keys_inside(const tile *t, int w) {
    static const int32_t first[4] = {0, 1, 2, 3};
    const int32x4_t key = vaddq_s32(vld1q_s32(first), vdupq_n_s32(4 * w));
    return vandq_u32(vcgeq_s32(key, vdupq_n_s32(t->low)), vcltq_s32(key, vdupq_n_s32(t->high)));
}

/* Scores of one row to weights e^(score - max), 0 outside the range; returns the factor for what was summed
 * before. */
static __attribute__((noinline)) float row_weights(float *score, const tile *t, float softcap, float *max,
                                                   float *sum) {
    const int partial = t->low > 0 || t->high < OC_TILE;
    float32x4_t s[VECTORS], top = vdupq_n_f32(*max), total = vdupq_n_f32(0);
    for (int w = 0; w < VECTORS; w++) {
        s[w] = vld1q_f32(score + 4 * w);
        if (softcap > 0) s[w] = vmulq_n_f32(oc_tanh_neon(vdivq_f32(s[w], vdupq_n_f32(softcap))), softcap);
        if (partial) s[w] = vbslq_f32(keys_inside(t, w), s[w], vdupq_n_f32(-INFINITY));
        top = vmaxq_f32(top, s[w]); /* NaN in a score shows in the whole row */
    }
    const float highest = vmaxvq_f32(top);
    for (int w = 0; w < VECTORS; w++) {
        s[w] = oc_exp_neon(vsubq_f32(s[w], vdupq_n_f32(highest)));
        total = vaddq_f32(total, s[w]);
        vst1q_f32(score + 4 * w, s[w]);
    }
    const float rescale = vgetq_lane_f32(oc_exp_neon(vdupq_n_f32(*max - highest)), 0);
    *max = highest;
    *sum = *sum * rescale + vaddvq_f32(total);
    return rescale;
}

INLINE void block_attend(block *b, const tile *t, int is_f16, float softcap, float *max, float *sum,
                         int rows) {
    const int width = rows > 3 ? 4 : 8; /* up to 24 sums */
    int64_t d = 0;
    block_scores(b, t->k, is_f16, rows, width);
    for (int row = 0; row < rows; row++)
        b->rescale[row] = row_weights(b->score[row], t, softcap, &max[row], &sum[row]);
    for (; d + 4 * width <= b->head_dim; d += 4 * width) block_values(b, t, d, is_f16, rows, width);
    for (; d < b->head_dim; d += 4) block_values(b, t, d, is_f16, rows, 1);
}

INLINE void attend(block *b, const tile *t, int is_f16, float softcap, float *max, float *sum, int rows) {
    switch (rows) {
    case 1: block_attend(b, t, is_f16, softcap, max, sum, 1); break;
    case 2: block_attend(b, t, is_f16, softcap, max, sum, 2); break;
    case 3: block_attend(b, t, is_f16, softcap, max, sum, 3); break;
    case 4: block_attend(b, t, is_f16, softcap, max, sum, 4); break;
    case 5: block_attend(b, t, is_f16, softcap, max, sum, 5); break;
    case 6: block_attend(b, t, is_f16, softcap, max, sum, 6); break;
    }
}

/* The keys of the tile at `start` that a row attends to; low >= high if none. */
static void row_range(const oc_attention_args *args, int64_t row, int32_t start, tile *t) {
    t->low = args->first[row] > start ? args->first[row] - start : 0;
    t->high = args->last[row] < start + OC_TILE ? args->last[row] - start : OC_TILE;
}

INLINE void tile_attend(const oc_attention_args *args, int32_t start, int is_f16, float *max, float *sum) {
    tile t = {args->k_tiles[start / OC_TILE], args->v_tiles[start / OC_TILE], 0, 0};
    block b = {.q_stride = args->q_stride, .out_stride = args->out_stride, .head_dim = args->head_dim};
    for (int64_t row = 0, end; row < args->n_rows; row = end) {
        tile next = t;
        row_range(args, row, start, &t);
        for (end = row + 1; end < args->n_rows; end++) {
            row_range(args, end, start, &next);
            if (next.low != t.low || next.high != t.high) break;
        }
        if (t.low >= t.high) continue;
        for (int64_t at = row; at < end;) { /* blocks of even size: 7 rows are 4 + 3 */
            const int64_t left = end - at, blocks = (left + MAX_BLOCK - 1) / MAX_BLOCK;
            const int64_t rows = (left + blocks - 1) / blocks;
            b.q = args->q + at * args->q_stride;
            b.out = args->out + at * args->out_stride;
            attend(&b, &t, is_f16, args->softcap, &max[at], &sum[at], (int)rows);
            at += rows;
        }
    }
}

/* The running maxima and sums stand where the reference has them; the room in front is not needed here. */
INLINE void attention(const oc_attention_args *args, int is_f16) {
    float *max = args->scratch + 2 * OC_TILE * args->head_dim, *sum = max + args->n_rows;
    int32_t begin = INT32_MAX, end = 0;
    for (int64_t row = 0; row < args->n_rows; row++) {
        begin = args->first[row] < begin ? args->first[row] : begin;
        end = args->last[row] > end ? args->last[row] : end;
        max[row] = -FLT_MAX; /* finite, so that max - max is never NaN */
        sum[row] = 0;
        memset(args->out + row * args->out_stride, 0, (size_t)args->head_dim * sizeof(float));
    }
    for (int32_t start = begin / OC_TILE * OC_TILE; start < end; start += OC_TILE)
        tile_attend(args, start, is_f16, max, sum);
    for (int64_t row = 0; row < args->n_rows; row++)
        for (int64_t d = 0; d < args->head_dim; d += 4) {
            float *out = args->out + row * args->out_stride + d;
            vst1q_f32(out, vdivq_f32(vld1q_f32(out), vdupq_n_f32(sum[row])));
        }
}

void oc_attention_f16_neon(const oc_attention_args *args) {
    if (args->head_dim % 4)
        oc_attention_f16_generic(args);
    else
        attention(args, 1);
}

void oc_attention_f32_neon(const oc_attention_args *args) {
    if (args->head_dim % 4)
        oc_attention_f32_generic(args);
    else
        attention(args, 0);
}
