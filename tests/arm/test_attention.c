/* test_attention.c - one attention row against double arithmetic and row by row against itself. */
#include "base/fp16.h"
#include "check.h"
#include "kernels/vecmath.h"

#define MAX_ROWS 40
#define MAX_TILES 8

/* Tiles of K and V whose slots outside [from, to) hold NaN; tiles that no row attends to do not exist. */
typedef struct sequence {
    int64_t head_dim;
    int is_f16;
    const void *k_tiles[MAX_TILES], *v_tiles[MAX_TILES];
    float *k, *v; /* (positions, head_dim), as stored */
} sequence;

static void put(void *tile, int64_t at, float value, int is_f16) {
    if (is_f16)
        ((uint16_t *)tile)[at] = oc_f32_to_f16(value);
    else
        ((float *)tile)[at] = value;
}

static sequence make_sequence(int64_t head_dim, int is_f16, int from, int to) {
    sequence s = {.head_dim = head_dim,
                  .is_f16 = is_f16,
                  .k = guarded_floats(to * head_dim),
                  .v = guarded_floats(to * head_dim)};
    const size_t bytes = (size_t)(OC_TILE * head_dim) * (is_f16 ? 2 : 4);
    for (int t = from / OC_TILE; t * OC_TILE < to; t++) {
        void *k = guarded(bytes), *v = guarded(bytes);
        for (int slot = 0; slot < OC_TILE; slot++)
            for (int64_t d = 0; d < head_dim; d++) {
                const int position = t * OC_TILE + slot;
                float key = NAN, value = NAN;
                if (position >= from && position < to) {
                    key = oc_f16_to_f32(oc_f32_to_f16(random_between(-2, 2)));
                    value = oc_f16_to_f32(oc_f32_to_f16(random_between(-2, 2)));
                    s.k[position * head_dim + d] = key;
                    s.v[position * head_dim + d] = value;
                }
                put(k, d * OC_TILE + slot, key, is_f16);
                put(v, slot * head_dim + d, value, is_f16);
            }
        s.k_tiles[t] = k;
        s.v_tiles[t] = v;
    }
    return s;
}

typedef struct queries {
    int64_t n_rows, q_stride, out_stride;
    float *q;
    int32_t first[MAX_ROWS], last[MAX_ROWS];
    float softcap;
} queries;

static float *attend(const oc_kernel *row, const sequence *s, const queries *q, int64_t from, int64_t n) {
    float *out = guarded_floats((n - 1) * q->out_stride + s->head_dim);
    float *scratch = guarded_floats((int64_t)oc_attention_scratch(n, s->head_dim));
    const oc_attention_args args = {
        q->q + from * q->q_stride,
        q->first + from,
        q->last + from,
        s->k_tiles,
        s->v_tiles,
        out,
        scratch,
        n,
        s->head_dim,
        q->q_stride,
        q->out_stride,
        q->softcap,
    };
    ((oc_attention_fn)row->fn)(&args);
    return out;
}

static void expected_row(const sequence *s, const queries *q, int64_t row, double *out) {
    const float *query = q->q + row * q->q_stride;
    double score[MAX_TILES * OC_TILE], top = -1e300, total = 0;
    for (int at = q->first[row]; at < q->last[row]; at++) {
        score[at] = 0;
        for (int64_t d = 0; d < s->head_dim; d++) score[at] += (double)query[d] * s->k[at * s->head_dim + d];
        if (q->softcap > 0) score[at] = q->softcap * tanh(score[at] / q->softcap);
        top = fmax(top, score[at]);
    }
    memset(out, 0, (size_t)s->head_dim * sizeof *out);
    for (int at = q->first[row]; at < q->last[row]; at++) {
        const double weight = exp(score[at] - top);
        total += weight;
        for (int64_t d = 0; d < s->head_dim; d++) out[d] += weight * s->v[at * s->head_dim + d];
    }
    for (int64_t d = 0; d < s->head_dim; d++) out[d] /= total;
}

static void compare(const oc_kernel *row, const sequence *s, const queries *q, const char *what) {
    const float *out = attend(row, s, q, 0, q->n_rows);
    const float *reference = attend(generic_of(row), s, q, 0, q->n_rows);
    double expected[512];
    int right = 1, close = 1;
    for (int64_t r = 0; r < q->n_rows; r++) {
        expected_row(s, q, r, expected);
        for (int64_t d = 0; d < s->head_dim; d++) {
            const float got = out[r * q->out_stride + d], ref = reference[r * q->out_stride + d];
            right &= fabs(got - expected[d]) <= 2e-5; /* largest |v| is 2 */
            close &= fabs((double)got - ref) <= 2e-5;
        }
    }
    check(right, row->symbol, "%s, head size %d: not the exact result", what, (int)s->head_dim);
    check(close, row->symbol, "%s, head size %d: not the reference", what, (int)s->head_dim);

    int zones = 1, bits = 1;
    for (int64_t r = 0; r + 1 < q->n_rows; r++)
        for (int64_t d = s->head_dim; d < q->out_stride; d++)
            zones &= oc_f32_to_bits(out[r * q->out_stride + d]) == 0xA5A5A5A5u;
    for (int64_t r = 0; r < q->n_rows; r++) {
        const int64_t more = q->n_rows - r < 3 ? q->n_rows - r : 3;
        const float *alone = attend(row, s, q, r, 1), *three = attend(row, s, q, r, more);
        bits &= same_floats(alone, out + r * q->out_stride, s->head_dim) &&
                same_floats(three, alone, s->head_dim);
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
        for (int64_t d = 0; d < s->head_dim; d++)
            q.q[r * q.q_stride + d] = random_between(-scale, scale) / sqrtf((float)s->head_dim);
    }
    q.first[0] = from;
    q.last[0] = to;
    return q;
}

void test_attention(const oc_kernel *row) {
    static const int head_dims[] = {4, 6, 8, 12, 24, 32, 64, 80, 128};
    const int is_f16 = strstr(row->op, "f16") != NULL;
    for (size_t i = 0; i < sizeof head_dims / sizeof *head_dims; i++)
        for (int run = 1; run <= 13; run += 3) {
            const int from = random_below(70), to = from + 1 + random_below(110), n_rows = run == 13 ? 26 : 7;
            const sequence s = make_sequence(head_dims[i], is_f16, from, to);
            const queries q = make_queries(&s, n_rows, from, to, run, 3, run == 4 ? 20.0f : 0.0f);
            compare(row, &s, &q, run == 4 ? "softcap" : "plain");
            release(row->symbol);
        }
    const sequence s = make_sequence(32, is_f16, 0, 77); /* large logits: one key takes it all */
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
