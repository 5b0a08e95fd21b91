/* walk.h - what the ops of a plan share while they run: the walker, columns, the sharing of work. For exec.c, moe.c,
 * heads.c, altup.c and recurrent.c. */
#ifndef OC_ENGINE_WALK_H
#define OC_ENGINE_WALK_H

#include "base/share.h"
#include "engine/engine.h"

/* What one thread knows while it walks the plan. */
typedef struct walker {
    oc_engine *engine;
    const oc_op *op;
    int thread, n_threads;
    int n;       /* columns in work: those of the extent, after SELECT those with outputs */
    const oc_extent *extent;
    int is_solo; /* one column: private buffers are computed by every thread for itself */
    uint32_t epoch; /* of the step */
} walker;

static inline const oc_columns *columns_of(const walker *w, int32_t index) {
    const oc_buffer *buffer = &w->engine->buffers[index];
    return w->is_solo && buffer->is_private ? &buffer->own[w->thread] : &buffer->shared;
}

static inline float *column(const walker *w, int32_t index, int64_t c) {
    return columns_of(w, index)->f32 + c * w->engine->buffers[index].width;
}

static inline const float *vector(const walker *w, int32_t index) { return index < 0 ? NULL : w->engine->vectors[index].data; }

/* Values [from, from + n) of a column, in their quantised form. */
static inline void quantize_values(const walker *w, const float *values, int32_t index, int64_t c, int64_t from, int64_t n) {
    const oc_buffer *buffer = &w->engine->buffers[index];
    if (!buffer->is_quantized) return; /* nobody reads the codes */
    const oc_columns *at = columns_of(w, index);
    int64_t start = c * buffer->width + from;
    float *scale = at->scale + start / OC_ACT_BLOCK, *sum = at->sum + start / OC_TILE;
    oc_kernels.quantize(values, 1, n, at->codes + start, scale, sum);
}

static inline void quantize(const walker *w, int32_t index, int64_t c, int64_t from, int64_t n) {
    quantize_values(w, column(w, index, c) + from, index, c, from, n);
}

/* Where an op writes the values of a column from `from` on before they are quantised: to their place, or to `aside`, which
 * is in a cache, while others may have the lines of that place. */
static inline float *place_of_values(const walker *w, int32_t index, int64_t c, int64_t from, float *aside) {
    return w->engine->buffers[index].is_codes ? aside : column(w, index, c) + from;
}

static inline oc_act activations(const walker *w, int32_t index) {
    const oc_columns *at = columns_of(w, index);
    const oc_buffer *b = &w->engine->buffers[index];
    return (oc_act){.f32 = at->f32, .codes = at->codes, .scale = at->scale, .sum = at->sum, .n = w->n, .k = b->n, .stride = b->width};
}

static inline oc_share share(const walker *w, long n, long chunk) {
    const oc_engine *engine = w->engine;
    const uint32_t number = (uint32_t)(w->op - engine->ops);
    return (oc_share){.n = n, .chunk = chunk, .thread = w->thread, .n_threads = w->n_threads, .n_ranges = w->n_threads,
                      .epoch = w->epoch, .lanes = engine->step.lanes + number * engine->params.n_threads,
                      .is_loose = 1, .number = number};
}

static inline oc_share share_columns(const walker *w) { return share(w, w->n, 1); }

/* y[c * ldy + r] = rows of groups [g0, g1) times column c of x, from the packed matrix or from its file. */
void oc_matmul(const walker *w, const oc_matrix *m, const oc_act *x, float *y, int64_t ldy, long g0, long g1);

/* heads.c: `n` rows of a matrix from row `from` on, both multiples of a group. */
oc_matrix oc_rows_of(const oc_matrix *m, int64_t from, int64_t n);
/* n columns of k values, from value `at` of the buffer on. */
oc_act oc_act_at(const oc_columns *columns, int64_t at, int64_t n, int64_t k);
/* n columns of k values side by side, as matmul wants them, copied unless it is one: they begin at values `at` of a
 * buffer. */
oc_act oc_gather(const walker *w, int32_t index, const int64_t *at, int32_t n, int64_t k, int with_f32);
void oc_run_head_linear(walker *w);

/* Every thread computes a private column for itself; others, and those of larger steps, are shared out. */
static inline int is_own(const walker *w, int32_t dst) { return w->is_solo && w->engine->buffers[dst].is_private; }

/* altup.c */
void oc_run_predict(walker *w);
void oc_run_correct(walker *w);
void oc_run_match(walker *w);

/* Thread 0 looks at the cancel flags of the step; all see what it found behind their next ops. */
void oc_check_cancel(const walker *w);

/* recurrent.c */
void oc_run_conv(walker *w);
void oc_run_delta(walker *w);

/* moe.c */
void oc_run_route(walker *w);
void oc_run_expert_glu(walker *w);
void oc_run_expert_sum(walker *w);

#endif
