/* moe.c - mixtures of experts: which experts a token goes to, and their part of the plan.
 *
 * Tokens are grouped by expert, so that an expert's rows are read once for all its tokens, and rows of experts that no
 * token chose are not read at all. A token's experts are summed up in ascending order: neither the grouping nor the
 * other tokens reach the bits of its result.
 */
#include <math.h>
#include <string.h>

#include "engine/walk.h"
#include "kernels/vecmath.h"

#define SUM_GROUPS 4 /* a chunk of EXPERT_SUM: every expert of the batch is multiplied over its rows */

static float sigmoid(float x) { return 1.0f / (1.0f + oc_expf(-x)); }

/* ---- ROUTE ---- */

/* Logits to the probabilities from which experts are chosen and weighted, in place. */
static void probabilities(const oc_op *op, float *p) {
    if (op->flags & OC_FLAG_SIGMOID) {
        for (int32_t i = 0; i < op->n_expert; i++) p[i] = sigmoid(p[i]);
        return;
    }
    float max = p[0], sum = 0;
    for (int32_t i = 1; i < op->n_expert; i++) max = p[i] > max ? p[i] : max;
    for (int32_t i = 0; i < op->n_expert; i++) sum += p[i] = oc_expf(p[i] - max);
    for (int32_t i = 0; i < op->n_expert; i++) p[i] /= sum;
}

/* The index of the largest of n values, the first of equals; what has been taken is -infinity. */
static int32_t best_of(const float *value, int32_t n) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if (value[i] != -INFINITY && (best < 0 || value[i] > value[best])) best = i;
    return best < 0 ? 0 : best;
}

/* What a group of experts counts for: its best, with sigmoid the sum of its two best. */
static float group_value(const oc_op *op, const float *value, int32_t size) {
    float first = -INFINITY, second = -INFINITY;
    for (int32_t i = 0; i < size; i++) {
        if (value[i] > first) second = first, first = value[i];
        else if (value[i] > second) second = value[i];
    }
    return op->flags & OC_FLAG_SIGMOID && size > 1 ? first + second : first;
}

/* Takes the experts of all but the n_group_used best groups out of the choice. */
static void limit_groups(const oc_op *op, float *value) {
    float groups[OC_MAX_GROUPS];
    const int32_t size = op->n_expert / op->n_group;
    char is_kept[OC_MAX_GROUPS] = {0};
    for (int32_t g = 0; g < op->n_group; g++) groups[g] = group_value(op, value + g * size, size);
    for (int32_t i = 0; i < op->n_group_used; i++) {
        const int32_t best = best_of(groups, op->n_group);
        is_kept[best] = 1;
        groups[best] = -INFINITY;
    }
    for (int32_t i = 0; i < op->n_expert; i++)
        if (!is_kept[i / size]) value[i] = -INFINITY;
}

static void route_column(const walker *w, int64_t c) {
    const oc_op *op = w->op;
    oc_choice *chosen = w->engine->step.routes.chosen + c * op->n_used;
    float *p = column(w, op->src, c), *value = w->engine->threads[w->thread].column, sum = 0;
    const float *bias = vector(w, op->vector), *factors = vector(w, op->vector2);
    probabilities(op, p);
    for (int32_t i = 0; i < op->n_expert; i++) value[i] = bias ? p[i] + bias[i] : p[i];
    if (op->n_group > 1) limit_groups(op, value);
    for (int32_t j = 0; j < op->n_used; j++) {
        const int32_t best = best_of(value, op->n_expert);
        int32_t at = j;
        for (; at > 0 && chosen[at - 1].expert > best; at--) chosen[at] = chosen[at - 1];
        chosen[at] = (oc_choice){.expert = best, .weight = p[best]};
        value[best] = -INFINITY;
        sum += p[best];
    }
    const float factor = op->flags & OC_FLAG_NORMALIZE ? op->scale / (sum + 1e-20f) : op->scale;
    for (int32_t j = 0; j < op->n_used; j++) chosen[j].weight *= factors ? factor * factors[chosen[j].expert] : factor;
}

/* Pairs by expert: a counting sort of what the columns chose. */
static void group_by_expert(const walker *w) {
    const oc_op *op = w->op;
    oc_routes *routes = &w->engine->step.routes;
    const int32_t n = w->n * op->n_used;
    memset(routes->first, 0, ((size_t)op->n_expert + 1) * sizeof *routes->first);
    for (int32_t i = 0; i < n; i++) routes->first[routes->chosen[i].expert + 1]++;
    routes->n_active = 0;
    for (int32_t e = 0; e < op->n_expert; e++) {
        if (routes->first[e + 1] > 0) routes->active[routes->n_active++] = e;
        routes->first[e + 1] += routes->first[e];
    }
    for (int32_t i = n - 1; i >= 0; i--) { /* backwards: each expert's end moves down to its begin */
        const int32_t pair = --routes->first[routes->chosen[i].expert + 1];
        routes->column[pair] = i / op->n_used;
        routes->weight[pair] = routes->chosen[i].weight;
    }
    memmove(routes->first, routes->first + 1, (size_t)op->n_expert * sizeof *routes->first);
    routes->first[op->n_expert] = n;
}

/* The thread that routes the last column groups them all. */
void oc_run_route(walker *w) {
    oc_routes *routes = &w->engine->step.routes;
    oc_share columns = share_columns(w);
    while (oc_share_next(&columns)) {
        route_column(w, columns.begin);
        if (atomic_fetch_add(&routes->n_routed, 1) + 1 < w->n) continue;
        atomic_store(&routes->n_routed, 0);
        group_by_expert(w);
    }
}

/* ---- EXPERT_GLU ---- */

/* gpt-oss: g * sigmoid(1.702 g) * (u + 1), g at most 7 and u within -7 and 7. As SiLU of 1.702 g, so u takes 1 / 1.702. */
static void clamp_gate(float *gate, float *up, int64_t n) {
    const float limit = 7.0f, alpha = 1.702f;
    for (int64_t i = 0; i < n; i++) {
        const float u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
        gate[i] = alpha * (gate[i] > limit ? limit : gate[i]);
        up[i] = (u + 1.0f) / alpha;
    }
}

/* Values from what one expert has of a buffer to what the next one has: whole groups. */
static int64_t ff_width(const walker *w, int32_t buffer) { return w->engine->buffers[buffer].n / w->op->n_used; }

/* Adds what one expert has of a bias from `row` on; rows that fill its last group have none. */
static void add_bias(const walker *w, int32_t index, int32_t expert, int64_t row, float *y, int64_t n) {
    if (index < 0) return;
    const int64_t rows = w->engine->vectors[index].n / w->op->n_expert;
    oc_kernels.add(y, vector(w, index) + expert * rows + row, rows - row < n ? rows - row : n);
}

/* Rows [row, row + n) of the GLU of pairs [p0, p1), of one expert. */
static void glu_slice(const walker *w, int32_t expert, int64_t row, int64_t n, int32_t p0, int32_t p1) {
    const oc_op *op = w->op;
    const oc_engine *engine = w->engine;
    const int is_gated = !(op->flags & OC_FLAG_ERF);
    const oc_matrix *gate = &engine->matrices[op->matrix], *up = is_gated ? &engine->matrices[op->matrix2] : gate;
    const int64_t n_ff = ff_width(w, op->dst), from = expert * n_ff + row;
    const oc_matrix gate_rows = oc_rows_of(gate, from, n), up_rows = oc_rows_of(up, from, n);
    const int with_f32 = gate->format->needs_f32 | up->format->needs_f32;
    const oc_columns *dst = &engine->buffers[op->dst].shared;
    const int32_t *columns = engine->step.routes.column + p0;
    int64_t at[OC_SLICE];
    for (int32_t i = 0; i < p1 - p0; i++) at[i] = (int64_t)columns[i] * engine->buffers[op->src].width;
    const oc_act x = oc_gather(w, op->src, at, p1 - p0, gate->k, with_f32);
    float *out = dst->f32 + p0 * n_ff + row, *ups = engine->threads[w->thread].rows;
    oc_matmul(w, &gate_rows, &x, out, n_ff, 0, n / OC_GROUP);
    if (is_gated) oc_matmul(w, &up_rows, &x, ups, n, 0, n / OC_GROUP);
    for (int32_t p = p0; p < p1; p++, out += n_ff, ups += n) {
        add_bias(w, op->vector, expert, row, out, n);
        add_bias(w, op->vector2, expert, row, ups, n);
        if (op->flags & OC_FLAG_CLAMP) clamp_gate(out, ups, n);
        if (is_gated) (op->flags & OC_FLAG_GELU ? oc_kernels.geglu : oc_kernels.swiglu)(out, ups, out, n);
        else oc_kernels.gelu(out, n);
        const oc_act y = oc_act_at(dst, p * n_ff, 1, n_ff);
        if (y.codes)
            oc_kernels.quantize(out, 1, n, (int8_t *)y.codes + row, (float *)y.scale + row / OC_ACT_BLOCK, (float *)y.sum + row / OC_TILE);
    }
}

/* The most experts that may have a token, whatever the routes are: a thread that comes late finds those of a later layer,
 * perhaps unfinished ones, and must not wait for items that nobody has had. */
static long most_active(const walker *w) {
    const long pairs = (long)w->n * w->op->n_used;
    return pairs < w->op->n_expert ? pairs : w->op->n_expert;
}

void oc_run_expert_glu(walker *w) {
    const oc_routes *routes = &w->engine->step.routes;
    const int64_t n_ff = ff_width(w, w->op->dst);
    const long panels = (long)((n_ff + OC_EXPERT_ROWS - 1) / OC_EXPERT_ROWS);
    oc_share items = share(w, panels * most_active(w), 1);
    while (oc_share_next(&items))
        for (long i = items.begin; i < items.end && i < panels * routes->n_active; i++) {
            const int32_t expert = routes->active[i / panels], end = routes->first[expert + 1];
            const int64_t row = i % panels * OC_EXPERT_ROWS, n = n_ff - row < OC_EXPERT_ROWS ? n_ff - row : OC_EXPERT_ROWS;
            for (int32_t p = routes->first[expert]; p < end; p += OC_SLICE)
                glu_slice(w, expert, row, n, p, end - p < OC_SLICE ? end : p + OC_SLICE);
        }
}

/* ---- EXPERT_SUM ---- */

/* What a column's rows begin with: nothing, or the expert that all tokens share. */
static void begin_sum(const walker *w, int64_t c, int64_t row, int64_t n) {
    const oc_op *op = w->op;
    float *y = column(w, op->dst, c) + row;
    if (op->src2 < 0) {
        memset(y, 0, (size_t)n * sizeof *y);
        return;
    }
    const float *x = column(w, op->src2, c) + row;
    const float gate = op->src3 < 0 ? 1.0f : sigmoid(*column(w, op->src3, c));
    for (int64_t i = 0; i < n; i++) y[i] = gate * x[i];
}

/* Rows that each expert has of a matrix, the last group filled up. */
static int64_t whole_rows(const walker *w, const oc_matrix *m) { return oc_whole_groups(m->n_rows / w->op->n_expert); }

/* Adds rows [row, row + n) of one expert's answers to pairs [p0, p1). */
static void add_slice(const walker *w, int32_t expert, int64_t row, int64_t n, int32_t p0, int32_t p1) {
    const oc_op *op = w->op;
    const oc_routes *routes = &w->engine->step.routes;
    const oc_matrix *down = &w->engine->matrices[op->matrix];
    const oc_matrix rows = oc_rows_of(down, expert * whole_rows(w, down) + row, n);
    const int64_t n_ff = ff_width(w, op->src);
    oc_act x = oc_act_at(&w->engine->buffers[op->src].shared, p0 * n_ff, p1 - p0, down->k);
    x.stride = n_ff;
    float *part = w->engine->threads[w->thread].rows;
    oc_matmul(w, &rows, &x, part, n, 0, n / OC_GROUP);
    for (int32_t p = p0; p < p1; p++, part += n) {
        float *y = column(w, op->dst, routes->column[p]) + row;
        const float weight = routes->weight[p];
        add_bias(w, op->vector, expert, row, part, n);
        for (int64_t i = 0; i < n; i++) y[i] += weight * part[i];
    }
}

void oc_run_expert_sum(walker *w) {
    const oc_routes *routes = &w->engine->step.routes;
    const int64_t n_rows = whole_rows(w, &w->engine->matrices[w->op->matrix]);
    oc_share groups = share(w, (long)(n_rows / OC_GROUP), SUM_GROUPS);
    while (oc_share_next(&groups)) {
        const int64_t row = groups.begin * OC_GROUP, n = (groups.end - groups.begin) * OC_GROUP;
        for (int64_t c = 0; c < w->n; c++) begin_sum(w, c, row, n);
        for (int32_t a = 0; a < routes->n_active; a++) {
            const int32_t expert = routes->active[a], end = routes->first[expert + 1];
            for (int32_t p = routes->first[expert]; p < end; p += OC_SLICE)
                add_slice(w, expert, row, n, p, end - p < OC_SLICE ? end : p + OC_SLICE);
        }
    }
}
