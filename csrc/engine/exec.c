/* exec.c - runs the plan. Every thread walks the same list; an op is a phase whose items the threads share. A step goes
 * on without threads that have lost their cores.
 *
 * Determinism: which thread computes an item, and what else is in the batch, never changes the bits of the item.
 */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "engine/walk.h"
#include "kernels/vecmath.h"

/* ---- EMBED ---- */

static void rope_table(const walker *w, const oc_rope *rope, int64_t c) {
    double position = (double)w->engine->step.position[c];
    for (int32_t i = 0; i < rope->n_freq; i++) {
        double angle = position * rope->freq[i];
        rope->cos[c * rope->n_freq + i] = (float)(cos(angle) * rope->mscale);
        rope->sin[c * rope->n_freq + i] = (float)(sin(angle) * rope->mscale);
    }
}

static void weight_row(const oc_matrix *m, int64_t row, float *x) {
    if (m->packed) m->format->unpack_row(m->packed, m->k, row, x);
    else m->format->dequantize((const uint8_t *)m->source + (size_t)row * oc_format_row_bytes(m->format, m->k), x, m->k);
}

static void embed_column(const walker *w, int64_t c) {
    const oc_matrix *m = &w->engine->matrices[w->op->matrix];
    float *x = column(w, w->op->dst, c);
    weight_row(m, w->engine->step.token[c], x);
    for (int64_t i = 0; w->op->scale != 1.0f && i < m->k; i++) x[i] *= w->op->scale;
    if (w->op->matrix2 >= 0) {
        float *row = w->engine->threads[w->thread].column;
        weight_row(&w->engine->matrices[w->op->matrix2], w->engine->step.position[c], row);
        oc_kernels.add(x, row, m->k);
    }
    if (w->op->vector >= 0) oc_kernels.add(x, vector(w, w->op->vector), m->k);
}

static void run_embed(walker *w) {
    oc_share columns = share_columns(w);
    if (w->is_solo) embed_column(w, 0);
    while (oc_share_next(&columns)) {
        long c = columns.begin;
        if (!w->is_solo) embed_column(w, c);
        for (int32_t i = 0; i < w->engine->n_ropes; i++) rope_table(w, &w->engine->ropes[i], c);
    }
}

/* ---- GATHER ---- */

static void gather_column(const walker *w, int64_t c) {
    const oc_matrix *table = &w->engine->tables[w->op->matrix];
    const int32_t token = w->engine->step.token[c];
    float *x = column(w, w->op->dst, c), *row = w->engine->threads[w->thread].column;
    weight_row(table, token < table->n_rows ? token : 0, row);
    for (int64_t i = 0; i < table->k; i++) x[i] += w->op->scale * row[i];
}

static void run_gather(walker *w) {
    oc_share columns = share_columns(w);
    while (oc_share_next(&columns)) gather_column(w, columns.begin);
}

/* ---- NORM ---- */

/* The norm of x, or of each of its parts. */
static void norm_parts(const oc_op *op, const float *x, const float *weights, int64_t n_weights, float *y, int64_t n) {
    const int64_t part = op->n_head > 0 ? n / op->n_head : n, step = n_weights == n ? part : 0;
    for (int64_t at = 0; at < n; at += part, weights += step) oc_kernels.rmsnorm(x + at, weights, y + at, part, op->eps);
}

/* Column `from` of the residual and of the addend gives column `to` of dst. */
static void norm_column(const walker *w, int64_t from, int64_t to) {
    const oc_op *op = w->op;
    int64_t n = w->engine->buffers[op->dst2].n;
    float *x = column(w, op->dst2, from);
    if (op->src >= 0) {
        const float *addend = column(w, op->src, from);
        if (op->vector2 >= 0 && !(op->flags & OC_FLAG_CENTER)) {
            float *normed = w->engine->threads[w->thread].column;
            oc_kernels.rmsnorm(addend, vector(w, op->vector2), normed, n, op->eps);
            addend = normed;
        }
        oc_kernels.add(x, addend, n);
    }
    if (op->src2 >= 0) oc_kernels.add(x, column(w, op->src2, from), n);
    for (int64_t i = 0; op->scale != 1.0f && i < n; i++) x[i] *= op->scale;
    float *y = place_of_values(w, op->dst, to, 0, w->engine->threads[w->thread].column);
    const float *weights = vector(w, op->vector);
    if (op->flags & OC_FLAG_CENTER)
        oc_kernels.layernorm(x, weights, vector(w, op->vector2), y, n, op->eps);
    else if (!(op->flags & OC_FLAG_PLAIN))
        norm_parts(op, x, weights, op->vector < 0 ? 0 : w->engine->vectors[op->vector].n, y, n);
    else
        for (int64_t i = 0; weights && i < n; i++) y[i] = x[i] * weights[i];
    if (op->flags & OC_FLAG_QUANTIZE) quantize_values(w, y, op->dst, to, 0, n);
}

static void run_norm(walker *w) {
    const oc_step_state *step = &w->engine->step;
    int select = w->op->flags & OC_FLAG_SELECT;
    if (select) w->n = step->n_outputs;
    if (w->n == 0) return;
    if (is_own(w, w->op->dst)) {
        norm_column(w, 0, 0);
        return;
    }
    oc_share columns = share_columns(w);
    while (oc_share_next(&columns)) norm_column(w, select ? step->output[columns.begin] : columns.begin, columns.begin);
}

/* ---- LINEAR and GLU ---- */

static long groups_of(const walker *w, int32_t matrix) {
    return (long)((w->engine->matrices[matrix].n_rows + OC_GROUP - 1) / OC_GROUP);
}

/* Chunks of a step of one token are as large as rows of this matrix ask for. */
static oc_share share_groups(const walker *w, int32_t matrix, long groups, long chunk) {
    oc_share own = share(w, groups, w->is_solo ? oc_gemv_chunk(&w->engine->matrices[matrix], chunk) : chunk);
    own.may_redo = 1, own.begun = w->is_solo ? 0 : oc_pool_now();
    return own;
}

/* Groups of a matrix that stays in its file are packed as they are used: the same kernel gives the same bits. */
static void matmul_source(const walker *w, const oc_matrix *m, const oc_act *x, float *y, int64_t ldy, long g0, long g1) {
    void *panel = w->engine->threads[w->thread].panel;
    size_t group = OC_GROUP * oc_format_row_bytes(m->format, m->k), packed = oc_format_packed_bytes(m->format, OC_GROUP, m->k);
    long step = packed < OC_SOURCE_PANEL ? (long)(OC_SOURCE_PANEL / packed) : 1;
    for (long g = g0; g < g1; g += step) {
        long n = g1 - g < step ? g1 - g : step;
        const uint8_t *from = (const uint8_t *)m->source + (size_t)g * group;
        oc_kernels.pack[m->format->gguf_type](from, m->n_rows - g * OC_GROUP, m->k, panel, 0, n);
        oc_kernels.matmul[m->format->gguf_type](panel, x, y + g * OC_GROUP, ldy, 0, n);
    }
}

void oc_matmul(const walker *w, const oc_matrix *m, const oc_act *x, float *y, int64_t ldy, long g0, long g1) {
    if (m->packed) oc_kernels.matmul[m->format->gguf_type](m->packed, x, y, ldy, g0, g1);
    else matmul_source(w, m, x, y, ldy, g0, g1);
}

/* Groups [g0, g1) of a matrix times x, aside: (n, rows of the groups). They go to their place when the chunk is the
 * thread's to write. */
static void multiply(const walker *w, int32_t matrix, const oc_act *x, long g0, long g1, float *aside) {
    const oc_matrix *m = &w->engine->matrices[matrix];
    const oc_matrix rows = oc_rows_of(m, g0 * OC_GROUP, m->n_rows - g0 * OC_GROUP);
    oc_matmul(w, &rows, x, aside, (g1 - g0) * OC_GROUP, 0, g1 - g0);
}

_Static_assert(OC_RUN == OC_ROW_CHUNK * OC_GROUP, "chunks of rows hold whole runs of logits");

/* The head, the last op: the sampler looks at the maxima of runs before it looks at logits. */
static int is_head(const walker *w, const oc_op *op) { return op == w->engine->ops + w->engine->n_ops - 1; }

static void find_maxima(const walker *w, const oc_op *op, int64_t first, int64_t rows) {
    int64_t runs = (w->engine->matrices[op->matrix].n_rows + OC_RUN - 1) / OC_RUN;
    for (int64_t c = 0; c < w->n; c++)
        oc_kernels.maxima(column(w, op->dst, c) + first, rows, w->engine->maxima + c * runs + first / OC_RUN);
}

/* What a LINEAR does to `rows` outputs of a column, from row `first` on. */
static void finish_linear(const walker *w, const oc_op *op, int64_t c, int64_t first, int64_t rows) {
    const float *bias = vector(w, op->vector);
    float *y = column(w, op->dst, c) + first;
    if (bias) oc_kernels.add(y, bias + first, rows);
    for (int64_t i = 0; op->scale != 1.0f && i < rows; i++) y[i] *= op->scale;
    for (int64_t i = 0; op->softcap > 0 && i < rows; i++) y[i] = op->softcap * oc_tanhf(y[i] / op->softcap);
    if (op->flags & OC_FLAG_ERF) oc_kernels.gelu(y, rows);
    if (op->flags & OC_FLAG_GELU) oc_kernels.gelu_tanh(y, rows);
    if (op->src2 >= 0) {
        const float *factors = column(w, op->src2, c) + op->offset + first;
        for (int64_t i = 0; i < rows; i++) y[i] *= factors[i];
    }
    if (op->flags & OC_FLAG_QUANTIZE) quantize(w, op->dst, c, first, rows);
}

/* Groups [g0, g1) of a LINEAR, multiplied: to their place, and what follows; of the head the maxima. */
static void finish_groups(const walker *w, const oc_op *op, long g0, long g1, const float *aside) {
    const int64_t n_rows = w->engine->matrices[op->matrix].n_rows, first = g0 * OC_GROUP, all = (g1 - g0) * OC_GROUP;
    const int64_t rows = g1 * OC_GROUP < n_rows ? all : n_rows - first;
    for (int64_t c = 0; c < w->n; c++) {
        memcpy(column(w, op->dst, c) + first, aside + c * all, (size_t)all * sizeof(float));
        finish_linear(w, op, c, first, rows);
    }
    if (is_head(w, op)) find_maxima(w, op, first, rows);
}

/* One of the two halves of a chunk of joined ops: their products, or what follows. */
static void linear_chunk(const walker *w, const oc_op *last, const oc_share *own, const oc_act *x, int is_finish) {
    float *product = w->engine->threads[w->thread].product;
    long base = 0; /* groups of the ops before */
    for (const oc_op *op = w->op; op <= last; op++) {
        long n = groups_of(w, op->matrix);
        long g0 = own->begin > base ? own->begin - base : 0, g1 = own->end < base + n ? own->end - base : n;
        float *aside = product + (base + g0 - own->begin) * OC_GROUP * w->n;
        if (g0 < g1 && is_finish) finish_groups(w, op, g0, g1, aside);
        else if (g0 < g1) multiply(w, op->matrix, x, g0, g1, aside);
        base += n;
    }
}

/* Joined ops that read the same input are one phase, their rows shared out as those of one matrix: they lie one after
 * another in memory, so that a thread's part of q, k and v is one range to read. */
static void run_linear(walker *w) {
    const oc_op *first = w->op, *last = first, *end = w->engine->ops + w->engine->n_ops;
    long groups = groups_of(w, first->matrix);
    for (; last->flags & OC_FLAG_JOIN && last + 1 < end && last[1].kind == OC_OP_LINEAR && last[1].src == first->src; last++)
        groups += groups_of(w, last[1].matrix);
    oc_act x = activations(w, first->src);
    oc_share own = share_groups(w, first->matrix, groups, OC_ROW_CHUNK);
    while (oc_share_next(&own)) {
        linear_chunk(w, last, &own, &x, 0);
        if (oc_share_keep(&own)) linear_chunk(w, last, &own, &x, 1);
    }
    w->op = last;
}

/* As geglu, with the error function. */
static void geglu_erf(const float *gate, const float *up, float *y, int64_t n) {
    if (y != gate) memcpy(y, gate, (size_t)n * sizeof *y);
    oc_kernels.gelu(y, n);
    for (int64_t i = 0; i < n; i++) y[i] *= up[i];
}

static void finish_glu(const walker *w, long g0, long g1, float *gates, const float *ups) {
    const oc_op *op = w->op;
    int64_t first = g0 * OC_GROUP, rows = (g1 - g0) * OC_GROUP;
    oc_glu_fn glu = oc_kernels.swiglu;
    if (op->flags & OC_FLAG_GELU) glu = oc_kernels.geglu;
    if (op->flags & OC_FLAG_ERF) glu = geglu_erf;
    for (int64_t c = 0; c < w->n; c++) {
        float *y = place_of_values(w, op->dst, c, first, gates + c * rows);
        glu(gates + c * rows, ups + c * rows, y, rows);
        if (op->flags & OC_FLAG_QUANTIZE) quantize_values(w, y, op->dst, c, first, rows);
    }
}

static void run_glu(walker *w) {
    const oc_op *op = w->op;
    oc_act x = activations(w, op->src);
    oc_share groups = share_groups(w, op->matrix, groups_of(w, op->matrix), OC_PANEL_GROUPS);
    float *gates = w->engine->threads[w->thread].product, *ups = gates + groups.chunk * OC_GROUP * w->n;
    while (oc_share_next(&groups)) {
        multiply(w, op->matrix, &x, groups.begin, groups.end, gates);
        multiply(w, op->matrix2, &x, groups.begin, groups.end, ups);
        if (oc_share_keep(&groups)) finish_glu(w, groups.begin, groups.end, gates, ups);
    }
}

/* ---- SPARSE_GLU ---- */

#define PIECE 512L /* values of a lone column that a thread takes at a time */

static float mean_of(const float *sums, int64_t n) {
    float total = 0;
    for (int j = 0; j < OC_GROUP; j++) total += sums[j];
    return total / (float)n;
}

/* The value above which a normal distribution with the mean and deviation of x has a fixed part of its values; n is a
 * multiple of OC_GROUP, in as many chains the sums run. */
static float cutoff_of(const float *x, int64_t n, float deviations) {
    float sums[OC_GROUP] = {0}, squares[OC_GROUP] = {0};
    for (int64_t i = 0; i < n; i += OC_GROUP)
        for (int j = 0; j < OC_GROUP; j++) sums[j] += x[i + j];
    const float mean = mean_of(sums, n);
    for (int64_t i = 0; i < n; i += OC_GROUP)
        for (int j = 0; j < OC_GROUP; j++) squares[j] += (x[i + j] - mean) * (x[i + j] - mean);
    return mean + deviations * sqrtf(mean_of(squares, n));
}

static void sparse_glu_piece(const walker *w, int64_t c, int64_t first, int64_t n, float cutoff) {
    const float *gate = column(w, w->op->src, c) + first, *up = column(w, w->op->src2, c) + first;
    float *y = column(w, w->op->dst, c) + first;
    for (int64_t i = 0; i < n; i++) y[i] = gate[i] > cutoff ? gate[i] - cutoff : 0.0f;
    oc_kernels.geglu(y, up, y, n);
    if (w->op->flags & OC_FLAG_QUANTIZE) quantize(w, w->op->dst, c, first, n);
}

/* Columns are shared out; a lone one in pieces, for which every thread finds the cutoff. */
static void run_sparse_glu(walker *w) {
    const int64_t n = w->engine->buffers[w->op->dst].n;
    const long pieces = w->is_solo ? (long)((n + PIECE - 1) / PIECE) : 1;
    float cutoff = w->is_solo ? cutoff_of(column(w, w->op->src, 0), n, w->op->scale) : 0.0f;
    oc_share items = share(w, w->is_solo ? pieces : w->n, 1);
    while (oc_share_next(&items)) {
        const int64_t c = w->is_solo ? 0 : items.begin, first = w->is_solo ? items.begin * PIECE : 0;
        if (!w->is_solo) cutoff = cutoff_of(column(w, w->op->src, c), n, w->op->scale);
        sparse_glu_piece(w, c, first, w->is_solo && n - first > PIECE ? PIECE : n - first, cutoff);
    }
}

/* ---- ROPE_KV ---- */

static void rope_head(const walker *w, const oc_op *op, float *x, int32_t norm, int64_t c) {
    if (norm >= 0) oc_kernels.rmsnorm(x, vector(w, norm), x, w->engine->vectors[norm].n, op->eps);
    if (op->rope < 0) return;
    const oc_rope *rope = &w->engine->ropes[op->rope];
    int64_t at = c * rope->n_freq;
    const int neox = (op->flags & OC_FLAG_NEOX) != 0;
    oc_kernels.rope(x + op->rope_at, rope->cos + at, rope->sin + at, 2 * rope->n_freq, neox);
}

/* Whether values are the first elements of their keys. */
static int is_value_in_key(const oc_kv_place *place) { return place->value_dim < place->head_dim; }

/* What the cache has for a ROPE_KV or an ATTENTION. */
static const oc_kv_place *place_of_op(const walker *w) { return &w->engine->kv.layers[w->op->layer]; }

/* The Walsh-Hadamard transform of the runs of d elements, in place: orthogonal, so scores of transformed queries and
 * keys are the same, but no element of a key stands out and takes the precision of its block. Runs are as long as the
 * largest power of two in the length of keys, and of values in them: the transform, which undoes itself, of a sum of
 * those values is the sum of what they were. */
static void spread_head(const oc_kv_place *place, float *x, int64_t d) {
    const int64_t lengths = place->head_dim | place->value_dim, run = lengths & -lengths;
    const float unit = 1.0f / sqrtf((float)run);
    for (int64_t half = 1; half < run; half *= 2)
        for (int64_t i = 0; i < d; i += 2 * half)
            for (int64_t j = i; j < i + half; j++) {
                const float a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
    for (int64_t i = 0; i < d; i++) x[i] *= unit;
}

/* Key and value of one kv head of one token, into the cache. */
static void store_head(const walker *w, const oc_op *op, int64_t c, int32_t head) {
    const oc_step_state *step = &w->engine->step;
    const oc_kv_place *place = place_of_op(w);
    int32_t d = op->head_dim;
    float *k = column(w, op->src2, c) + (int64_t)head * d;
    const float *v = op->src3 < 0 ? NULL : column(w, op->src3, c) + (int64_t)head * d;
    if (op->flags & OC_FLAG_NORM_VALUE) { /* aside: keys and values may be made of the same */
        float *normed = w->engine->threads[w->thread].column;
        oc_kernels.rmsnorm(v, NULL, normed, d, op->eps);
        v = normed;
    }
    rope_head(w, op, k, op->vector2, c);
    if (w->engine->params.kv_type == OC_KV_Q8_0) spread_head(place, k, d);
    int64_t position = step->position[c];
    const oc_seq *seq = step->items[step->item[c]].seq;
    unsigned char *tile = oc_kv_tile(w->engine, seq->blocks[position / OC_TILE], op->layer, head);
    const oc_kv_store_fn store[] = {[OC_KV_F16] = oc_kernels.kv_store_f16, [OC_KV_F32] = oc_kernels.kv_store_f32,
                                    [OC_KV_Q8_0] = oc_kernels.kv_store_q8_0};
    unsigned char *v_tile = v ? tile + place->tile_bytes : tile;
    store[w->engine->params.kv_type](k, v, tile, v_tile, position % OC_TILE, d);
}

/* In a step of single tokens the thread that attends to the last key stores it; but slices share their keys. Of a
 * ROPE_KV, or of the ATTENTION behind it. */
static int is_stored_late(const walker *w) {
    return w->engine->step.decode_only && oc_slices_of(w->op).n == 1;
}

/* True when another thread gave up a prompt chunk, or every sequence of the step. */
static int should_stop(const oc_step_state *step) {
    int cancelled = 0;
    for (int32_t i = 0; i < step->all.n_items; i++) {
        const oc_batch_item *item = &step->items[i];
        if (!item->cancel || !__atomic_load_n(item->cancel, __ATOMIC_RELAXED)) continue;
        if (item->n_tokens > 1) return 1;
        cancelled++;
    }
    return cancelled == step->all.n_items;
}

void oc_check_cancel(const walker *w) {
    oc_step_state *step = &w->engine->step;
    if (w->thread == 0 && should_stop(step)) atomic_store(&step->stop, 1);
}

static void run_rope_kv(walker *w) {
    const oc_op *op = w->op;
    oc_check_cancel(w);
    long n = (long)w->n * op->n_kv_head;
    if (op->src2 < 0 || is_stored_late(w)) return;
    oc_share heads = share(w, n, op->n_kv_head);
    while (oc_share_next(&heads))
        for (long i = heads.begin; i < heads.end; i++) store_head(w, op, i / op->n_kv_head, (int32_t)(i % op->n_kv_head));
}

/* ---- ATTENTION ---- */

/* The ROPE_KV in front: how queries, keys and values are made. */
static const oc_op *heads_of(const walker *w) { return w->op - 1; }

/* Some query heads of a kv head, see oc_slices: an item of attention is these, of the tokens of a span. */
typedef struct slice {
    int32_t index, kv_head, first, n; /* of all slices; first query head, heads */
} slice;

static slice slice_at(const oc_op *op, int32_t index) {
    const oc_slices slices = oc_slices_of(op);
    const int32_t group = op->n_head / op->n_kv_head, begin = index % slices.n * slices.rows;
    const int32_t kv_head = index / slices.n, left = group - begin;
    return (slice){index, kv_head, kv_head * group + begin, left < slices.rows ? left : slices.rows};
}

/* Floats from a query head to the next: its gate may stand between. */
static int64_t query_stride(const oc_op *op) { return op->flags & OC_FLAG_GATED ? 2 * op->head_dim : op->head_dim; }

/* Keys [*first, *last) that token t of a span attends to. */
static void key_range(const walker *w, const oc_span *span, int32_t t, int64_t *first, int64_t *last) {
    const oc_op *op = w->op;
    const oc_batch_item *item = &w->engine->step.items[span->item];
    const int both_ways = op->flags & OC_FLAG_BOTH_WAYS;
    const int64_t position = span->position + t, end = item->seq->length + item->n_tokens;
    const int64_t behind = op->window <= 0 ? position : both_ways ? op->window / 2 : op->window - 1;
    const int64_t ahead = !both_ways ? 0 : op->window <= 0 ? end - 1 - position : op->window / 2;
    *first = position > behind ? position - behind : 0;
    *last = position + ahead < end ? position + ahead + 1 : end;
}

/* Copies the queries of some heads to the thread, with norm, rope and scale. */
static void take_queries(const walker *w, const oc_span *span, const slice *heads) {
    const oc_op *op = heads_of(w);
    int64_t n = heads->n, d = op->head_dim, stride = query_stride(op);
    float *q = w->engine->threads[w->thread].q;
    for (int32_t t = 0; t < span->n_tokens; t++, q += n * d) {
        const float *from = column(w, op->src, span->column + t) + heads->first * stride;
        for (int64_t i = 0; i < n; i++) {
            memcpy(q + i * d, from + i * stride, (size_t)d * sizeof(float));
            rope_head(w, op, q + i * d, op->vector, span->column + t);
            if (w->engine->params.kv_type == OC_KV_Q8_0) spread_head(place_of_op(w), q + i * d, d);
        }
        for (int64_t i = 0; i < n * d; i++) q[i] *= op->scale;
    }
}

/* Attention of the thread's queries over one part of the keys. */
static void attend_part(const walker *w, const oc_span *span, const slice *heads, int64_t part,
                        const oc_partial *to) {
    const oc_op *op = w->op;
    oc_engine *engine = w->engine;
    oc_thread *own = &engine->threads[w->thread];
    const oc_seq *seq = engine->step.items[span->item].seq;
    const int32_t n = heads->n;
    const oc_kv_place *place = place_of_op(w);
    const float *slopes = vector(w, op->vector2);
    int64_t begin = part * OC_PART, end = begin + OC_PART, lowest = end, highest = begin;
    for (int32_t t = 0; t < span->n_tokens; t++) {
        int64_t first, last;
        key_range(w, span, t, &first, &last);
        if (first < begin) first = begin;
        if (last > end) last = end;
        if (first < lowest) lowest = first;
        if (last > highest) highest = last;
        for (int32_t i = t * n; i < (t + 1) * n; i++) {
            own->first[i] = (int32_t)first, own->last[i] = (int32_t)last;
            own->position[i] = (int32_t)(span->position + t);
            if (slopes) own->slope[i] = slopes[heads->first + i - t * n];
        }
    }
    for (int64_t i = lowest / OC_TILE; i * OC_TILE < highest; i++) {
        own->k_tiles[i] = oc_kv_tile(engine, seq->blocks[i], op->layer, heads->kv_head);
        own->v_tiles[i] = (const char *)own->k_tiles[i] + place->tile_bytes;
    }
    const oc_attention_fn attention[] = {[OC_KV_F16] = oc_kernels.attention_f16, [OC_KV_F32] = oc_kernels.attention_f32,
                                         [OC_KV_Q8_0] = oc_kernels.attention_q8_0};
    attention[engine->params.kv_type](&(oc_attention_args){
        .q = own->q, .first = own->first, .last = own->last, .k_tiles = own->k_tiles,
        .v_tiles = is_value_in_key(place) ? NULL : own->v_tiles, .out = to->out, .max = to->max, .sum = to->sum,
        .scratch = own->attention, .n_rows = span->n_tokens * n, .head_dim = op->head_dim,
        .value_dim = place->value_dim, .q_stride = op->head_dim, .out_stride = place->value_dim,
        .softcap = op->softcap, .slope = slopes ? own->slope : NULL, .position = own->position});
}

/* Adds the next part of the keys. */
static void join_part(const oc_partial *whole, const oc_partial *part, int64_t rows, int64_t value_dim) {
    for (int64_t row = 0; row < rows; row++) {
        if (part->sum[row] == 0) continue; /* none of its keys are in the part */
        float *out = whole->out + row * value_dim;
        const float *more = part->out + row * value_dim;
        float max = part->max[row] > whole->max[row] ? part->max[row] : whole->max[row];
        float old = oc_expf(whole->max[row] - max), new = oc_expf(part->max[row] - max);
        for (int64_t d = 0; d < value_dim; d++) out[d] = out[d] * old + more[d] * new;
        whole->sum[row] = whole->sum[row] * old + part->sum[row] * new;
        whole->max[row] = max;
    }
}

/* The quotient of sums, into the columns. A sink is one more key, whose value is zero. */
static void finish_rows(const walker *w, const oc_span *span, const slice *heads, const oc_partial *whole) {
    const oc_op *op = w->op;
    const oc_kv_place *place = place_of_op(w);
    const int is_spread = w->engine->params.kv_type == OC_KV_Q8_0 && is_value_in_key(place);
    int64_t n = heads->n, d = place->value_dim, offset = heads->first * d;
    const float *sinks = vector(w, op->vector);
    for (int32_t t = 0; t < span->n_tokens; t++) {
        float *to = place_of_values(w, op->dst, span->column + t, offset, whole->out + t * n * d);
        const float *gates = column(w, op->src, span->column + t) + heads->first * query_stride(op) + op->head_dim;
        for (int64_t i = 0; i < n; i++) {
            int64_t row = t * n + i;
            float sum = whole->sum[row];
            if (sinks) sum += oc_expf(sinks[heads->first + i] - whole->max[row]);
            for (int64_t j = 0; j < d; j++) to[i * d + j] = whole->out[row * d + j] / sum;
            if (is_spread) spread_head(place, to + i * d, d);
            const float *gate = gates + i * query_stride(op);
            for (int64_t j = 0; op->flags & OC_FLAG_GATED && j < d; j++) to[i * d + j] /= 1.0f + oc_expf(-gate[j]);
        }
        if (op->flags & OC_FLAG_QUANTIZE) quantize_values(w, to, op->dst, span->column + t, offset, n * d);
    }
}

/* Where a part of a split span leaves its result. */
static oc_partial partial_of(const walker *w, const oc_span *span, const slice *heads, int64_t part) {
    const oc_slices slices = oc_slices_of(w->op);
    const int64_t d = place_of_op(w)->value_dim, all = (int64_t)slices.n * w->op->n_kv_head;
    int64_t rows = (int64_t)span->n_tokens * slices.rows;
    float *at = w->engine->step.partials + (span->partials + (part * all + heads->index) * rows) * (d + 2);
    return (oc_partial){.out = at, .max = at + rows * d, .sum = at + rows * d + rows};
}

/* All parts [begin, end) of the keys, one after the other. */
static void attend_whole(const walker *w, const oc_span *span, const slice *heads, int64_t begin,
                         int64_t end) {
    oc_thread *own = &w->engine->threads[w->thread];
    attend_part(w, span, heads, begin, &own->whole);
    for (int64_t part = begin + 1; part < end; part++) {
        attend_part(w, span, heads, part, &own->part);
        join_part(&own->whole, &own->part, (int64_t)span->n_tokens * heads->n, place_of_op(w)->value_dim);
    }
    finish_rows(w, span, heads, &own->whole);
}

/* One part of [begin, end); whoever is the last joins them all. */
static void attend_split(const walker *w, const oc_attention_work *work, const slice *heads, int64_t begin,
                         int64_t end) {
    const oc_op *op = w->op;
    oc_step_state *step = &w->engine->step;
    const oc_span *span = &step->spans[work->span];
    atomic_int *arrived = &step->arrived[(int64_t)work->span * op->n_kv_head * oc_slices_of(op).n + heads->index];
    oc_partial whole = partial_of(w, span, heads, work->part);
    attend_part(w, span, heads, work->part, &whole);
    if (atomic_fetch_add(arrived, 1) + 1 < end - begin) return;
    atomic_store(arrived, 0);
    whole = partial_of(w, span, heads, begin);
    for (int64_t part = begin + 1; part < end; part++) {
        oc_partial more = partial_of(w, span, heads, part);
        join_part(&whole, &more, (int64_t)span->n_tokens * heads->n, place_of_op(w)->value_dim);
    }
    finish_rows(w, span, heads, &whole);
}

static void attend(const walker *w, const oc_attention_work *work, const slice *heads) {
    const oc_step_state *step = &w->engine->step;
    const oc_span *span = &step->spans[work->span];
    int64_t first, last, unused;
    key_range(w, span, 0, &first, &unused);
    key_range(w, span, span->n_tokens - 1, &unused, &last);
    int64_t begin = first / OC_PART, end = (last + OC_PART - 1) / OC_PART;
    if (work->part >= 0 && (work->part < begin || work->part >= end)) return; /* outside the window */
    const int stores = is_stored_late(w) && heads_of(w)->src2 >= 0;
    if (stores && (work->part < 0 || work->part == end - 1))
        store_head(w, heads_of(w), span->column, heads->kv_head);
    take_queries(w, span, heads);
    if (work->part < 0)
        attend_whole(w, span, heads, begin, end);
    else
        attend_split(w, work, heads, begin, end);
}

static void run_attention(walker *w) {
    const oc_step_state *step = &w->engine->step;
    long slices = (long)w->op->n_kv_head * oc_slices_of(w->op).n, n = w->extent->n_work * slices;
    oc_share items = share(w, n, 1);
    items.n_ranges = 1; /* its items differ in length */
    /* Later spans of a prompt see more keys: the long ones go first. */
    while (oc_share_next(&items)) {
        const slice heads = slice_at(w->op, (int32_t)(items.begin % slices));
        attend(w, &step->work[w->extent->n_work - 1 - items.begin / slices], &heads);
    }
}

/* ---- QUANTIZE ---- */

static void run_quantize(walker *w) {
    oc_share columns = share_columns(w);
    while (oc_share_next(&columns)) quantize(w, w->op->src, columns.begin, 0, w->engine->buffers[w->op->src].n);
}

/* ---- the walk ---- */

static void (*const run_op[])(walker *) = {
    [OC_OP_EMBED] = run_embed,     [OC_OP_NORM] = run_norm,           [OC_OP_LINEAR] = run_linear,     [OC_OP_GLU] = run_glu,
    [OC_OP_ROPE_KV] = run_rope_kv, [OC_OP_ATTENTION] = run_attention, [OC_OP_QUANTIZE] = run_quantize,
    [OC_OP_CONV] = oc_run_conv,    [OC_OP_DELTA] = oc_run_delta,
    [OC_OP_ROUTE] = oc_run_route,  [OC_OP_EXPERT_GLU] = oc_run_expert_glu, [OC_OP_EXPERT_SUM] = oc_run_expert_sum,
    [OC_OP_GATHER] = run_gather,   [OC_OP_SPARSE_GLU] = run_sparse_glu,  [OC_OP_PREDICT] = oc_run_predict,
    [OC_OP_CORRECT] = oc_run_correct, [OC_OP_MATCH] = oc_run_match,
    [OC_OP_HEAD_LINEAR] = oc_run_head_linear,
};

/* A phase is shared by the threads. What is not, every thread does for itself, or somebody does on the way. */
static int is_phase(const walker *w) {
    switch (w->op->kind) {
    case OC_OP_NORM:
    case OC_OP_PREDICT:
    case OC_OP_CORRECT:
    case OC_OP_MATCH: return !is_own(w, w->op->dst);
    case OC_OP_ROPE_KV: return w->op->src2 >= 0 && !is_stored_late(w);
    default: return 1;
    }
}

/* ---- phases ----
 *
 * No thread waits for one that has lost its core: a phase is over when its chunks are done, and chunks of matrices are
 * done over (base/share.h). Whoever comes back late finds the others phases ahead, and in a step of one token may have
 * normed what was no longer there: it takes over the private buffers of the thread in front, and goes on from where that
 * one is. */

/* Epoch and number of a phase, in one ascending number: over 0, and with room for a thread below. */
static unsigned long long place_of(const walker *w) {
    return (unsigned long long)w->epoch << 24 | (unsigned long long)(w->op - w->engine->ops + 1);
}

/* Comes to a phase; 0 if others are further on. As in a sequence lock, a thread that has read what others wrote in a later
 * phase finds the front there: they move it before they write, and it looks after it has read. */
static int come_to_phase(const walker *w) {
    oc_engine *engine = w->engine;
    const unsigned long long here = place_of(w);
    atomic_store(&engine->threads[w->thread].settled, here);
    atomic_thread_fence(memory_order_acquire);
    unsigned long long front = atomic_load(&engine->step.front);
    while (front >> 8 < here && !atomic_compare_exchange_weak(&engine->step.front, &front, here << 8 | (unsigned)w->thread)) continue;
    atomic_thread_fence(memory_order_release);
    oc_pool_wake(); /* those who wait for the front to settle: catch_up */
    return front >> 8 <= here;
}

/* Goes on to what a thread does for itself. */
static void leave_phase(const walker *w) {
    atomic_store_explicit(&w->engine->threads[w->thread].settled, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void copy_columns(const oc_columns *from, const oc_columns *to, size_t width) {
    memcpy(to->f32, from->f32, width * sizeof(float));
    if (!from->codes) return;
    memcpy(to->codes, from->codes, width);
    memcpy(to->scale, from->scale, width / OC_ACT_BLOCK * sizeof(float));
    memcpy(to->sum, from->sum, width / OC_TILE * sizeof(float));
}

static void copy_private(oc_engine *engine, int from, int to) {
    for (int32_t i = 0; i < engine->n_buffers; i++) {
        const oc_buffer *buffer = &engine->buffers[i];
        if (buffer->is_private) copy_columns(&buffer->own[from], &buffer->own[to], (size_t)buffer->width);
    }
}

static int may_catch_up(const void *context) {
    const walker *w = context;
    const unsigned long long front = atomic_load(&w->engine->step.front);
    return atomic_load(&w->engine->threads[front & 255].settled) == front >> 8 || oc_pool_is_away(w->thread);
}

/* To the phase that the thread in front is at, with its private buffers. They are read while they may change, and the
 * copy counts if they were settled before and after. */
static void catch_up(walker *w) {
    oc_engine *engine = w->engine;
    while (!oc_pool_is_away(w->thread)) {
        oc_pool_wait(may_catch_up, w);
        const unsigned long long front = atomic_load(&engine->step.front);
        const atomic_ullong *settled = &engine->threads[front & 255].settled;
        if (atomic_load(settled) != front >> 8) continue;
        leave_phase(w); /* its own copies change: nobody may take them */
        if (w->is_solo) copy_private(engine, (int)(front & 255), w->thread);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(settled, memory_order_relaxed) != front >> 8) continue;
        w->op = engine->ops + ((front >> 8) & 0xFFFFFF) - 1;
        atomic_store(&engine->threads[w->thread].settled, front >> 8);
        return;
    }
}

/* ---- all steps ---- */

/* Nothing is left to do behind an op: no logits are wanted, or the step was given up. */
static int is_last(const walker *w) {
    return w->n == 0 || atomic_load(&w->engine->step.stop);
}

static int is_joined(const void *context) {
    const walker *w = context;
    return atomic_load(&w->engine->step.is_joined) || oc_pool_is_away(w->thread);
}

/* The caller may still look at the logits of the step before: nobody writes new ones until it has joined. 0: no need to. */
static int may_begin_head(const walker *w) {
    oc_pool_wait(is_joined, w);
    return !atomic_load(&w->engine->step.stop);
}

/* What part of the step the op works on: outside of its stages without the staged item, behind SELECT the outputs. */
static void find_columns(walker *w) {
    const oc_step_state *step = &w->engine->step;
    w->extent = w->op >= step->staged_begin && w->op < step->staged_end ? &step->all : &step->rest;
    w->n = w->op > w->engine->select ? step->n_outputs : w->extent->n_columns;
}

/* The step's ops: all, or those of its stages if it has nothing but a staged item. */
static void walk(void *context, int thread, int n_threads) {
    oc_engine *engine = context;
    const oc_step_state *step = &engine->step;
    const int is_staged_alone = step->rest.n_columns == 0;
    const oc_op *end = is_staged_alone ? step->staged_end : engine->ops + engine->n_ops;
    walker own = {.engine = engine, .op = is_staged_alone ? step->staged_begin : engine->ops, .thread = thread,
                  .n_threads = n_threads, .is_solo = step->is_solo, .epoch = step->epoch}, *w = &own;
    oc_pool_leave(thread);
    while (w->op < end) {
        if (is_head(w, w->op) && !may_begin_head(w)) break;
        if (!is_phase(w)) leave_phase(w);
        else if (!come_to_phase(w)) catch_up(w);
        if (w->op == end || oc_pool_is_away(thread)) return;
        find_columns(w);
        run_op[w->op->kind](w);
        w->op = is_last(w) ? end : w->op + 1;
    }
    w->op = end; /* a phase as well: a place to take those to who are late */
    come_to_phase(w);
}

oc_status oc_exec_begin(oc_engine *engine) {
    oc_step_state *step = &engine->step;
    if (++step->epoch == 0) step->epoch = 1;
    atomic_store(&step->front, (unsigned long long)step->epoch << 32);
    atomic_store(&step->stop, 0);
    atomic_store(&step->is_joined, 0);
    return oc_pool_begin(engine->n_threads, walk, engine) == 0 ? OC_OK : OC_ERR_THREAD;
}

oc_status oc_exec_finish(oc_engine *engine, int give_up) {
    oc_step_state *step = &engine->step;
    /* Others may be through with all layers by now, and thread 0 with none: nobody has looked at the flags. */
    if (give_up || should_stop(step)) atomic_store(&step->stop, 1);
    atomic_store(&step->is_joined, 1);
    oc_pool_wake();
    oc_pool_finish();
    return atomic_load(&step->stop) ? OC_ERR_CANCELLED : OC_OK;
}
