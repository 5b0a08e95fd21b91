/* attention_avx2.c - attention_f16 and attention_f32 for head sizes that are multiples of 8.
 *
 * Tiles are the outer loop. In a tile, runs of rows with the same key range (the query heads of one token; in
 * full tiles all rows) are cut into blocks of at most 6 rows, so that every loaded vector of K or V serves
 * the whole block. A tile that serves several blocks is converted to floats once. Neither choice reaches the
 * result: each score is one fused chain over d, each output one fused chain over the keys, whatever block the
 * row is in.
 */
#include "kernels/x86/target_avx2.h"

#include <float.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/vecmath_avx2.h"

#define MAX_BLOCK 6
#define WIDEN_ROWS 48 /* rows of a tile from which converting it first pays */
#define INLINE static inline __attribute__((always_inline))

extern void oc_attention_f16_generic(const oc_attention_args *args);
extern void oc_attention_f32_generic(const oc_attention_args *args);

typedef struct tile {
    const void *k, *v;
    int low, high; /* keys of it that the rows of the block attend to */
} tile;

typedef struct block {
    _Alignas(32) float score[MAX_BLOCK][OC_TILE];
    float rescale[MAX_BLOCK];
    const float *q;
    float *out;
    int64_t q_stride, out_stride, head_dim;
} block;

INLINE __m256 load8(const void *base, int64_t index, int is_f16) {
    if (is_f16)
        return _mm256_cvtph_ps(
            _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)base + index)));
    return _mm256_loadu_ps((const float *)base + index);
}

/* sum[row][w] += factors[row * stride] * (vector w from `index` of base on). What there are fewer of is held
 * in registers: 12 sums, 3 factors and a vector, or 12 sums, 2 vectors and a factor, fill the 16. */
INLINE void outer_product(__m256 sum[][4], const float *factors, int64_t stride, const void *base,
                          int64_t index, int is_f16, int rows, int width) {
    if (rows <= width) {
        __m256 factor[4];
        for (int row = 0; row < rows; row++) factor[row] = _mm256_broadcast_ss(factors + row * stride);
        for (int w = 0; w < width; w++) {
            __m256 vector = load8(base, index + w * 8, is_f16);
            for (int row = 0; row < rows; row++)
                sum[row][w] = _mm256_fmadd_ps(factor[row], vector, sum[row][w]);
        }
    } else {
        __m256 vector[4];
        for (int w = 0; w < width; w++) vector[w] = load8(base, index + w * 8, is_f16);
        for (int row = 0; row < rows; row++) {
            __m256 factor = _mm256_broadcast_ss(factors + row * stride);
            for (int w = 0; w < width; w++) sum[row][w] = _mm256_fmadd_ps(factor, vector[w], sum[row][w]);
        }
    }
}

/* Scores of `rows` rows, `width` vectors of 8 keys at a time: rows * width accumulators. */
INLINE void block_scores(block *b, const void *k, int is_f16, int rows, int width) {
    for (int part = 0; part < OC_TILE / 8; part += width) {
        __m256 sum[MAX_BLOCK][4];
        for (int row = 0; row < rows; row++)
            for (int w = 0; w < width; w++) sum[row][w] = _mm256_setzero_ps();
        for (int64_t d = 0; d < b->head_dim; d++) {
            outer_product(sum, b->q + d, b->q_stride, k, d * OC_TILE + part * 8, is_f16, rows, width);
        }
        for (int row = 0; row < rows; row++)
            for (int w = 0; w < width; w++) _mm256_store_ps(&b->score[row][(part + w) * 8], sum[row][w]);
    }
}

/* Add the weighted values of the tile to `width` vectors of the outputs, from element d on. */
INLINE void block_values(block *b, const tile *t, int64_t d, int is_f16, int rows, int width) {
    __m256 sum[MAX_BLOCK][4];
    for (int row = 0; row < rows; row++)
        for (int w = 0; w < width; w++)
            sum[row][w] = _mm256_mul_ps(_mm256_loadu_ps(b->out + row * b->out_stride + d + w * 8),
                                        _mm256_set1_ps(b->rescale[row]));
    for (int key = t->low; key < t->high; key++)
        outer_product(sum, &b->score[0][key], OC_TILE, t->v, key * b->head_dim + d, is_f16, rows, width);
    for (int row = 0; row < rows; row++)
        for (int w = 0; w < width; w++)
            _mm256_storeu_ps(b->out + row * b->out_stride + d + w * 8, sum[row][w]);
}

/* All ones in the lanes of keys 8w .. 8w+7 that lie in the range. */
INLINE __m256 keys_inside(const tile *t, int w) {
    __m256i key = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(w * 8));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(key, _mm256_set1_epi32(t->low - 1)),
                                                _mm256_cmpgt_epi32(_mm256_set1_epi32(t->high), key)));
}

/* Scores of one row to weights e^(score - max), 0 outside the range; returns the factor for what was summed
 * before. */
static __attribute__((noinline)) float row_weights(float *score, const tile *t, float softcap, float *max,
                                                   float *sum) {
    const int partial = t->low > 0 || t->high < OC_TILE;
    __m256 s[4], top = _mm256_set1_ps(*max);
    for (int w = 0; w < 4; w++) {
        s[w] = _mm256_load_ps(score + w * 8);
        if (softcap > 0) {
            __m256 capped = oc_tanh_avx2(_mm256_div_ps(s[w], _mm256_set1_ps(softcap)));
            s[w] = _mm256_mul_ps(capped, _mm256_set1_ps(softcap));
        }
        if (partial) s[w] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), s[w], keys_inside(t, w));
        top = _mm256_max_ps(s[w], top);
    }
    float highest = oc_max_avx2(top);
    __m256 total = _mm256_setzero_ps();
    for (int w = 0; w < 4; w++) {
        s[w] = oc_exp_avx2(_mm256_sub_ps(s[w], _mm256_set1_ps(highest)));
        total = _mm256_add_ps(total, s[w]);
        _mm256_store_ps(score + w * 8, s[w]);
    }
    float rescale = _mm256_cvtss_f32(oc_exp_avx2(_mm256_set1_ps(*max - highest)));
    *max = highest;
    *sum = *sum * rescale + oc_sum_avx2(total);
    return rescale;
}

INLINE void block_attend(block *b, const tile *t, int is_f16, float softcap, float *max, float *sum,
                         int rows) {
    const int width = rows > 3 ? 2 : 4; /* up to 12 sums */
    int64_t d = 0;
    block_scores(b, t->k, is_f16, rows, width);
    for (int row = 0; row < rows; row++)
        b->rescale[row] = row_weights(b->score[row], t, softcap, &max[row], &sum[row]);
    for (; d + 8 * width <= b->head_dim; d += 8 * width) block_values(b, t, d, is_f16, rows, width);
    for (; d < b->head_dim; d += 8) block_values(b, t, d, is_f16, rows, 1);
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

static void attend_f16(block *b, const tile *t, float softcap, float *max, float *sum, int rows) {
    attend(b, t, 1, softcap, max, sum, rows);
}

static void attend_f32(block *b, const tile *t, float softcap, float *max, float *sum, int rows) {
    attend(b, t, 0, softcap, max, sum, rows);
}

static void widen(const void *half, int64_t n, float *wide) {
    for (int64_t i = 0; i < n; i += 8) _mm256_storeu_ps(wide + i, load8(half, i, 1));
}

/* The keys of the tile at `start` that a row attends to; low >= high if none. */
static void row_range(const oc_attention_args *args, int64_t row, int32_t start, tile *t) {
    t->low = args->first[row] > start ? args->first[row] - start : 0;
    t->high = args->last[row] < start + OC_TILE ? args->last[row] - start : OC_TILE;
}

static int64_t rows_in_tile(const oc_attention_args *args, int32_t start) {
    int64_t count = 0;
    for (int64_t row = 0; row < args->n_rows; row++)
        count += args->first[row] < start + OC_TILE && args->last[row] > start;
    return count;
}

static void tile_attend(const oc_attention_args *args, int32_t start, int is_f16) {
    int64_t head_dim = args->head_dim, tile_floats = OC_TILE * head_dim;
    float *k_wide = args->scratch, *v_wide = k_wide + tile_floats;
    float *max = v_wide + tile_floats, *sum = max + args->n_rows;

    tile t = {args->k_tiles[start / OC_TILE], args->v_tiles[start / OC_TILE], 0, 0};
    if (is_f16 && rows_in_tile(args, start) >= WIDEN_ROWS) {
        widen(t.k, tile_floats, k_wide);
        widen(t.v, tile_floats, v_wide);
        t.k = k_wide;
        t.v = v_wide;
        is_f16 = 0;
    }
    block b = {.q_stride = args->q_stride, .out_stride = args->out_stride, .head_dim = head_dim};
    for (int64_t row = 0, end; row < args->n_rows; row = end) {
        tile next = t;
        row_range(args, row, start, &t);
        for (end = row + 1; end < args->n_rows; end++) {
            row_range(args, end, start, &next);
            if (next.low != t.low || next.high != t.high) break;
        }
        if (t.low >= t.high) continue;
        for (int64_t at = row; at < end;) { /* blocks of even size: 7 rows are 4 + 3 */
            int64_t left = end - at, blocks = (left + MAX_BLOCK - 1) / MAX_BLOCK,
                    rows = (left + blocks - 1) / blocks;
            b.q = args->q + at * args->q_stride;
            b.out = args->out + at * args->out_stride;
            (is_f16 ? attend_f16 : attend_f32)(&b, &t, args->softcap, &max[at], &sum[at], (int)rows);
            at += rows;
        }
    }
}

static void attention(const oc_attention_args *args, int is_f16) {
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
        tile_attend(args, start, is_f16);
    for (int64_t row = 0; row < args->n_rows; row++)
        for (int64_t d = 0; d < args->head_dim; d += 8) {
            float *out = args->out + row * args->out_stride + d;
            _mm256_storeu_ps(out, _mm256_div_ps(_mm256_loadu_ps(out), _mm256_set1_ps(sum[row])));
        }
}

void oc_attention_f16_avx2(const oc_attention_args *args) {
    if (args->head_dim % 8)
        oc_attention_f16_generic(args);
    else
        attention(args, 1);
}

void oc_attention_f32_avx2(const oc_attention_args *args) {
    if (args->head_dim % 8)
        oc_attention_f32_generic(args);
    else
        attention(args, 0);
}

#include "kernels/x86/target_end.h"
