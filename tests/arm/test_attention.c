/* test_attention.c - one attention row against double arithmetic and row by row against itself. */
#include "base/fp16.h"
#include "check.h"
#include "kernels/vecmath.h"

#define MAX_ROWS 40
#define MAX_TILES 8

/* Tiles of K and V whose slots outside [from, to) hold NaN; tiles that no row attends to do not exist. */
typedef struct sequence {
    int64_t head_dim, value_dim; /* if they differ, values are part of their keys */
    const void *k_tiles[MAX_TILES], *v_tiles[MAX_TILES];
    float *k, *v; /* (positions, head_dim), as stored; of values value_dim count */
} sequence;

static oc_kv_type type_of(const oc_kernel *row) {
    return strstr(row->op, "q8_0") ? OC_KV_Q8_0 : strstr(row->op, "f16") ? OC_KV_F16 : OC_KV_F32;
}

/* What the reference of kv_store makes of a slot's key and value; k and v become what can be read back. */
static void put(oc_kv_type type, void *k_tile, void *v_tile, int slot, float *k, float *v, int64_t head_dim) {
    extern oc_kv_store_row oc_kv_store_f16_generic, oc_kv_store_f32_generic, oc_kv_store_q8_0_generic;
    oc_kv_store_row *const store[] = {oc_kv_store_f16_generic, oc_kv_store_f32_generic, oc_kv_store_q8_0_generic};
    store[type](k, v, k_tile, v_tile, slot, head_dim);
    const int8_t *k_code = k_tile, *v_code = v_tile;
    const uint16_t *k_scale = (const uint16_t *)(const void *)(k_code + OC_TILE * head_dim),
                   *v_scale = (const uint16_t *)(const void *)(v_code + OC_TILE * head_dim);
    for (int64_t d = 0; type == OC_KV_Q8_0 && d < head_dim; d++) {
        const int64_t scale = d / OC_KV_BLOCK * OC_TILE + slot;
        k[d] = oc_f16_to_f32(k_scale[scale]) * k_code[d * OC_TILE + slot];
        v[d] = oc_f16_to_f32(v_scale[scale]) * v_code[slot * head_dim + d];
    }
}

static sequence make_sequence(int64_t head_dim, int64_t value_dim, oc_kv_type type, int from, int to) {
    sequence s = {.head_dim = head_dim, .value_dim = value_dim};
    s.k = guarded_floats(to * head_dim);
    s.v = guarded_floats(to * head_dim);
    const size_t bytes = oc_kv_tile_size(type, head_dim);
    float *unused = guarded_floats(head_dim);
    for (int64_t d = 0; d < head_dim; d++) unused[d] = NAN;
    for (int t = from / OC_TILE; t * OC_TILE < to; t++) {
        void *k_tile = guarded(bytes), *v_tile = guarded(bytes);
        for (int slot = 0; slot < OC_TILE; slot++) {
            const int position = t * OC_TILE + slot;
            float *k = unused, *v = unused;
            if (position >= from && position < to) {
                k = s.k + position * head_dim;
                v = s.v + position * head_dim;
                for (int64_t d = 0; d < head_dim; d++) {
                    k[d] = oc_f16_to_f32(oc_f32_to_f16(random_between(-2, 2)));
                    v[d] = oc_f16_to_f32(oc_f32_to_f16(random_between(-2, 2)));
                }
            }
            put(type, k_tile, v_tile, slot, k, v, head_dim);
        }
        s.k_tiles[t] = k_tile;
        s.v_tiles[t] = v_tile;
    }
    if (value_dim < head_dim) s.v = s.k;
    return s;
}

typedef struct queries {
    int64_t n_rows, q_stride, out_stride;
    float *q;
    int32_t first[MAX_ROWS], last[MAX_ROWS], position[MAX_ROWS];
    float slope[MAX_ROWS], softcap;
    int has_slope;
} queries;

static float *attend(const oc_kernel *row, const sequence *s, const queries *q, int64_t from, int64_t n) {
    float *out = guarded_floats((n - 1) * q->out_stride + s->value_dim);
    float *scratch = guarded_floats((int64_t)oc_attention_scratch(s->head_dim));
    float *max = guarded_floats(n), *sum = guarded_floats(n);
    const oc_attention_args args = {
        q->q + from * q->q_stride,
        q->first + from,
        q->last + from,
        s->k_tiles,
        s->v == s->k ? NULL : s->v_tiles,
        out,
        max,
        sum,
        scratch,
        n,
        s->head_dim,
        s->value_dim,
        q->q_stride,
        q->out_stride,
        q->softcap,
        q->has_slope ? q->slope + from : NULL,
        q->position + from,
    };
    ((oc_attention_fn)row->fn)(&args);
    for (int64_t r = 0; r < n; r++)
        for (int64_t d = 0; d < s->value_dim; d++) out[r * q->out_stride + d] /= sum[r];
    return out;
}

static void expected_row(const sequence *s, const queries *q, int64_t row, double *out) {
    const float *query = q->q + row * q->q_stride;
    double score[MAX_TILES * OC_TILE], top = -1e300, total = 0;
    for (int at = q->first[row]; at < q->last[row]; at++) {
        score[at] = 0;
        for (int64_t d = 0; d < s->head_dim; d++) score[at] += (double)query[d] * s->k[at * s->head_dim + d];
        if (q->softcap > 0) score[at] = q->softcap * tanh(score[at] / q->softcap);
        if (q->has_slope) score[at] -= (double)q->slope[row] * abs(at - q->position[row]);
        top = fmax(top, score[at]);
    }
    memset(out, 0, (size_t)s->value_dim * sizeof *out);
    for (int at = q->first[row]; at < q->last[row]; at++) {
        const double weight = exp(score[at] - top);
        total += weight;
        for (int64_t d = 0; d < s->value_dim; d++) out[d] += weight * s->v[at * s->head_dim + d];
    }
    for (int64_t d = 0; d < s->value_dim; d++) out[d] /= total;
}

static void compare(const oc_kernel *row, const sequence *s, const queries *q, const char *what) {
    const float *out = attend(row, s, q, 0, q->n_rows);
    const float *reference = attend(generic_of(row), s, q, 0, q->n_rows);
    double expected[512];
    int right = 1, close = 1;
    for (int64_t r = 0; r < q->n_rows; r++) {
        expected_row(s, q, r, expected);
        for (int64_t d = 0; d < s->value_dim; d++) {
            const float got = out[r * q->out_stride + d], ref = reference[r * q->out_stride + d];
            right &= fabs(got - expected[d]) <= 2e-5; /* largest |v| is 2 */
            close &= fabs((double)got - ref) <= 2e-5;
        }
    }
    check(right, row->symbol, "%s, head size %d: not the exact result", what, (int)s->head_dim);
    check(close, row->symbol, "%s, head size %d: not the reference", what, (int)s->head_dim);

    int zones = 1, bits = 1;
    for (int64_t r = 0; r + 1 < q->n_rows; r++)
        for (int64_t d = s->value_dim; d < q->out_stride; d++)
            zones &= oc_f32_to_bits(out[r * q->out_stride + d]) == 0xA5A5A5A5u;
    for (int64_t r = 0; r < q->n_rows; r++) {
        const int64_t more = q->n_rows - r < 3 ? q->n_rows - r : 3;
        const float *alone = attend(row, s, q, r, 1), *three = attend(row, s, q, r, more);
        bits &= same_floats(alone, out + r * q->out_stride, s->value_dim) &&
                same_floats(three, alone, s->value_dim);
    }
    check(zones, row->symbol, "%s, head size %d: wrote between its rows", what, (int)s->head_dim);
    check(bits, row->symbol, "%s, head size %d: a row depends on the others", what, (int)s->head_dim);
}

static queries make_queries(const sequence *s, int64_t n_rows, int from, int to, int run, float scale,
                            float softcap) {
    queries q = {
        .n_rows = n_rows, .q_stride = s->head_dim + 3, .out_stride = s->head_dim + 5, .softcap = softcap};
    q.q = guarded_floats((n_rows - 1) * q.q_stride + s->head_dim);
    for (int64_t r = 0; r < n_rows; r++) {
        if (r % run == 0) { /* `run` rows share a range, as the heads of one token do */
            q.first[r] = from + random_below(to - from);
            q.last[r] = q.first[r] + 1 + random_below(to - q.first[r]);
        } else {
            q.first[r] = q.first[r - 1];
            q.last[r] = q.last[r - 1];
        }
        q.position[r] = (int32_t)(37 * r) % to;
        q.slope[r] = 1 / (1 + (float)r);
        for (int64_t d = 0; d < s->head_dim; d++)
            q.q[r * q.q_stride + d] = random_between(-scale, scale) / sqrtf((float)s->head_dim);
    }
    q.first[0] = from;
    q.last[0] = to;
    return q;
}

void test_attention(const oc_kernel *row) {
    static const int head_dims[] = {4, 6, 8, 12, 24, 32, 64, 80, 128, 96, 20, 9};
    static const int value_dims[] = {4, 6, 8, 12, 24, 32, 64, 80, 128, 64, 12, 7};
    const oc_kv_type type = type_of(row);
    for (size_t i = 0; i < sizeof head_dims / sizeof *head_dims; i++)
        for (int run = 1; run <= 13; run += 3) {
            const int from = random_below(70), to = from + 1 + random_below(110), n_rows = run == 13 ? 26 : 7;
            const sequence s = make_sequence(head_dims[i], value_dims[i], type, from, to);
            queries q = make_queries(&s, n_rows, from, to, run, 3, run == 4 ? 20.0f : 0.0f);
            q.has_slope = run == 7;
            compare(row, &s, &q, run == 4 ? "softcap" : run == 7 ? "bias by distance" : "plain");
            release(row->symbol);
        }
    const sequence s = make_sequence(32, 32, type, 0, 77); /* large logits: one key takes it all */
    queries q = make_queries(&s, 5, 0, 77, 5, 20000, 0);
    compare(row, &s, &q, "large logits");
    const float *before = attend(row, &s, &q, 0, 5);
    q.q[2 * q.q_stride + 7] = NAN;
    const float *after = attend(row, &s, &q, 0, 5);
    for (int r = 0; r < 5; r++) {
        int ok = same_floats(before + r * q.out_stride, after + r * q.out_stride, 32);
        for (int d = 0; r == 2 && d < 32; d++) ok = (d == 0 || ok) && isnan(after[r * q.out_stride + d]);
        check(ok, row->symbol, "NaN in query 2, row %d", r);
    }
    release(row->symbol);
}
