/* recurrent.c - ops that carry state from position to position: CONV and DELTA.
 *
 * A work item is a strip of channels, or a head, of one sequence, and takes its positions one after another. So
 * a result does not depend on how a prompt is cut into steps, nor on which thread makes it.
 */
#include <math.h>

#include "engine/walk.h"
#include "kernels/vecmath.h"

/* ---- CONV ---- */

#define CONV_STRIP 256 /* channels */

static void conv_strip(const walker *w, int32_t item, int64_t strip) {
    const oc_op *op = w->op;
    const oc_engine *engine = w->engine;
    const oc_batch_item *of = &engine->step.items[item];
    const oc_buffer *src = &engine->buffers[op->src], *dst = &engine->buffers[op->dst];
    const int64_t channels = dst->width, first = strip * CONV_STRIP, left = channels - first;
    const int64_t n = left < CONV_STRIP ? left : CONV_STRIP, column0 = engine->step.first[item];
    const float *x = column(w, op->src, column0) + first;
    const int is_gated = (op->flags & OC_FLAG_GATED) != 0;
    oc_kernels.conv(&(oc_conv_args){
        .x = is_gated ? x + 2 * channels : x, .before = is_gated ? x : NULL,
        .after = is_gated ? x + channels : NULL,
        .w = vector(w, op->vector) + first, .state = oc_state_at(engine, of->seq->state) + op->state + first,
        .next = oc_state_at(engine, of->seq->next) + op->state + first,
        .y = column(w, op->dst, column0) + first,
        .n = n, .n_tokens = of->n_tokens, .width = op->window, .x_stride = src->width, .y_stride = dst->width,
        .channels = channels});
    float *ones = engine->threads[w->thread].column;
    for (int64_t i = 0; !is_gated && i < n; i++) ones[i] = 1.0f;
    for (int64_t t = column0; t < column0 + of->n_tokens; t++) {
        float *y = column(w, op->dst, t) + first;
        if (op->vector2 >= 0) oc_kernels.add(y, vector(w, op->vector2) + first, n);
        if (!is_gated) oc_kernels.swiglu(y, ones, y, n);
        if (op->flags & OC_FLAG_QUANTIZE) quantize(w, op->dst, t, first, n);
    }
}

void oc_run_conv(walker *w) {
    oc_check_cancel(w);
    long strips = (w->engine->buffers[w->op->dst].width + CONV_STRIP - 1) / CONV_STRIP;
    oc_share items = share(w, w->extent->n_items * strips, 1);
    while (oc_share_next(&items)) conv_strip(w, (int32_t)(items.begin / strips), items.begin % strips);
}

/* ---- DELTA ---- */

#define UNIT_EPS 1e-6f /* beside the sum of squares, where queries and keys are made unit vectors */

static float sigmoid(float x) { return 1.0f / (1.0f + oc_expf(-x)); }

static float softplus(float x) { return x > 20.0f ? x : log1pf(oc_expf(x)); }

/* How much of the state stays, and how much of what is new goes in, at one position. */
static void rates(const walker *w, int64_t head, int64_t c, float *decay, float *beta) {
    const oc_op *op = w->op;
    float alpha;
    if (op->flags & OC_FLAG_GROUPED) {
        int64_t ratio = op->n_head / op->n_kv_head, at = head / ratio * 2 * ratio + head % ratio;
        *beta = column(w, op->src2, c)[at];
        alpha = column(w, op->src2, c)[at + ratio];
    } else {
        *beta = column(w, op->src2, c)[head];
        alpha = column(w, op->src3, c)[head];
    }
    const float time = softplus(alpha + vector(w, op->vector3)[head]);
    *beta = op->flags & OC_FLAG_SCAN ? time : sigmoid(*beta);
    *decay = oc_expf(vector(w, op->vector2)[head] * time);
}

/* x over its length, times scale. */
static void unit(const float *x, float *y, int64_t n, float scale) {
    oc_kernels.rmsnorm(x, NULL, y, n, UNIT_EPS / (float)n);
    scale /= sqrtf((float)n);
    for (int64_t i = 0; i < n; i++) y[i] *= scale;
}

/* Of a state space: its output goes on beside the input, and through the gate. */
static void scan_column(const walker *w, const float *state, float *next, int64_t head, int64_t c) {
    const oc_op *op = w->op;
    const int64_t n_k = op->head_dim, n_v = oc_value_length(w->engine, op), keys = op->n_kv_head * n_k;
    const float *v = column(w, op->src, c), *k = v + op->n_head * n_v + head / (op->n_head / op->n_kv_head) * n_k;
    const float *gate = column(w, op->src4, c) + head * n_v, skip = vector(w, op->vector)[head];
    float *y = column(w, op->dst, c) + head * n_v, *sum = w->engine->threads[w->thread].column;
    oc_delta_args args = {.state = state, .next = next, .q = k + keys, .k = k, .v = v + head * n_v, .y = sum,
                          .n_k = n_k, .n_v = n_v, .is_scan = 1};
    rates(w, head, c, &args.decay, &args.beta);
    oc_kernels.delta(&args);
    for (int64_t i = 0; i < n_v; i++) sum[i] += skip * args.v[i];
    oc_kernels.swiglu(gate, sum, y, n_v);
    if (op->flags & OC_FLAG_QUANTIZE) quantize(w, op->dst, c, head * n_v, n_v);
}

static void delta_column(const walker *w, const float *state, float *next, int64_t head, int64_t c) {
    const oc_op *op = w->op;
    const oc_engine *engine = w->engine;
    const int64_t n_k = op->head_dim, n_v = engine->vectors[op->vector].n, keys = op->n_kv_head * n_k;
    const int64_t ratio = op->n_head / op->n_kv_head;
    const int64_t of = op->flags & OC_FLAG_GROUPED ? head / ratio : head % op->n_kv_head;
    const float *x = column(w, op->src, c), *gate = column(w, op->src4, c) + head * n_v;
    float *q = engine->threads[w->thread].column, *k = q + n_k, *y = column(w, op->dst, c) + head * n_v;
    oc_delta_args args = {.state = state, .next = next, .q = q, .k = k, .y = y, .n_k = n_k, .n_v = n_v};
    args.v = x + 2 * keys + head * n_v;
    unit(x + of * n_k, q, n_k, 1.0f / sqrtf((float)n_k));
    unit(x + keys + of * n_k, k, n_k, 1.0f);
    rates(w, head, c, &args.decay, &args.beta);
    oc_kernels.delta(&args);
    float *normed = q; /* of no more use */
    oc_kernels.rmsnorm(y, vector(w, op->vector), normed, n_v, op->eps);
    oc_kernels.swiglu(gate, normed, y, n_v);
    if (op->flags & OC_FLAG_QUANTIZE) quantize(w, op->dst, c, head * n_v, n_v);
}

static void delta_head(const walker *w, int32_t item, int64_t head) {
    const oc_op *op = w->op;
    const oc_engine *engine = w->engine;
    const oc_batch_item *of = &engine->step.items[item];
    const int64_t at = op->state + head * op->head_dim * oc_value_length(engine, op);
    const float *state = oc_state_at(engine, of->seq->state) + at;
    float *next = oc_state_at(engine, of->seq->next) + at;
    for (int32_t t = 0; t < of->n_tokens; t++)
        (op->flags & OC_FLAG_SCAN ? scan_column : delta_column)(w, t == 0 ? state : next, next, head,
                                                                engine->step.first[item] + t);
}

void oc_run_delta(walker *w) {
    const long n = w->op->n_head;
    oc_share items = share(w, w->extent->n_items * n, 1);
    while (oc_share_next(&items)) delta_head(w, (int32_t)(items.begin / n), items.begin % n);
}
