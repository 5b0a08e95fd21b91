/* plan.c - collects weights, buffers and ops, and checks every shape once, so that exec.c need not check anything. */
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "engine/engine.h"

#define MAX_WIDTH (1 << 22) /* floats per column: above any vocabulary */
#define MAX_STATE (1 << 28) /* floats of a state */

/* ---- error text without stdio: at most two numbers, written for %a and %b ---- */

static char *put_number(char *at, char *end, int64_t value) {
    char digits[24];
    int n = 0;
    uint64_t rest = value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value;
    do digits[n++] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (value < 0) digits[n++] = '-';
    while (n > 0 && at < end) *at++ = digits[--n];
    return at;
}

oc_status oc_fail(oc_status status, char *err, const char *format, int64_t a, int64_t b) {
    if (!err) return status;
    char *at = err, *end = err + OC_ERR_LEN - 1;
    for (; *format && at < end; format++) {
        if (format[0] == '%' && (format[1] == 'a' || format[1] == 'b'))
            at = put_number(at, end, *++format == 'a' ? a : b);
        else
            *at++ = *format;
    }
    *at = 0;
    return status;
}

/* ---- growing lists ---- */

/* Room for one more element behind *list; capacity doubles at powers of two. */
static void *grow(void *list, int32_t n, size_t size) {
    if (n & (n - 1)) return list;
    return realloc(list, (size_t)(n ? 2 * n : 1) * size);
}

#define APPEND(list, n, value)                                                                       \
    do {                                                                                             \
        void *grown = grow(list, n, sizeof *(list));                                                 \
        if (!grown) return oc_fail(OC_ERR_NOMEM, err, "out of memory while building a plan", 0, 0); \
        (list) = grown;                                                                              \
        (list)[(n)++] = (value);                                                                     \
    } while (0)

oc_status oc_engine_create(const oc_engine_params *params, oc_engine **engine, char *err) {
    const oc_engine_params *p = params;
    if (p->n_threads < 1 || p->n_threads > 64) return oc_fail(OC_ERR_ARGUMENT, err, "threads must be 1 to 64, not %a", p->n_threads, 0);
    if (p->max_tokens < 1 || p->max_outputs < 1 || p->max_seqs < 1 || p->max_tokens < p->max_seqs)
        return oc_fail(OC_ERR_ARGUMENT, err, "batch limits must be positive", 0, 0);
    if (p->n_layer < 1 || p->n_layer > 1024)
        return oc_fail(OC_ERR_FORMAT, err, "KV cache of %a layers is out of range", p->n_layer, 0);
    for (int32_t i = 0; i < p->n_layer; i++) {
        const oc_kv_layer *l = &p->kv_layers[i];
        if (l->n_kv_head < 1 || l->n_kv_head > 1024 || l->head_dim < 1 || l->head_dim > 1024)
            return oc_fail(OC_ERR_FORMAT, err, "KV cache of %a heads of %b values is out of range", l->n_kv_head, l->head_dim);
        if (l->value_dim < 1 || l->value_dim > l->head_dim)
            return oc_fail(OC_ERR_FORMAT, err, "values of %a elements for keys of %b are out of range", l->value_dim,
                           l->head_dim);
    }
    if (p->kv_type < OC_KV_F16 || p->kv_type > OC_KV_Q8_0) return oc_fail(OC_ERR_ARGUMENT, err, "KV type %a is unknown", p->kv_type, 0);
    if (p->kv_blocks < 1 || p->kv_blocks > INT32_MAX) return oc_fail(OC_ERR_ARGUMENT, err, "KV pool of %a blocks is out of range", p->kv_blocks, 0);
    if (p->state_size < 0 || p->state_size > MAX_STATE || p->n_sequences < 0 || p->n_saved < 0)
        return oc_fail(OC_ERR_ARGUMENT, err, "states of %a values for %b sequences", p->state_size, p->n_sequences);
    oc_engine *made = calloc(1, sizeof *made);
    if (!made) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    made->params = *p;
    made->params.kv_layers = NULL; /* the caller's */
    made->n_threads = p->n_threads;
    for (int32_t i = 0; i < p->n_layer; i++) {
        if (p->kv_layers[i].n_kv_head > made->n_kv_head) made->n_kv_head = p->kv_layers[i].n_kv_head;
        if (p->kv_layers[i].head_dim > made->head_dim) made->head_dim = p->kv_layers[i].head_dim;
        if (p->kv_layers[i].value_dim > made->value_dim) made->value_dim = p->kv_layers[i].value_dim;
    }
    oc_status status = oc_kv_init(&made->kv, p);
    if (status != OC_OK) {
        oc_engine_destroy(made);
        return oc_fail(status, err, "cannot reserve the KV pool of %a bytes", p->kv_blocks * oc_engine_kv_block_bytes(p), 0);
    }
    status = oc_states_init(&made->states, p);
    if (status != OC_OK) {
        oc_engine_destroy(made);
        return oc_fail(status, err, "cannot reserve states of %a values for %b sequences", p->state_size, p->n_sequences);
    }
    *engine = made;
    return OC_OK;
}

void oc_engine_set_threads(oc_engine *engine, int32_t n_threads) {
    int32_t most = engine->params.n_threads;
    engine->n_threads = n_threads < 1 ? 1 : n_threads > most ? most : n_threads;
}

int32_t oc_engine_threads(const oc_engine *engine) { return engine->n_threads; }

void oc_engine_destroy(oc_engine *engine) {
    if (!engine) return;
    oc_pool_settle(engine); /* nobody reads it any more */
    for (int32_t i = 0; i < engine->n_matrices; i++) free(engine->matrices[i].runs);
    for (int32_t i = 0; i < engine->n_vectors; i++) free(engine->vectors[i].data);
    for (int32_t i = 0; i < engine->n_ropes; i++) free(engine->ropes[i].freq);
    for (int32_t i = 0; i < engine->n_buffers; i++) free(engine->buffers[i].own);
    free(engine->matrices), free(engine->tables), free(engine->vectors), free(engine->buffers);
    free(engine->ropes), free(engine->ops), free(engine->threads);
    oc_arena_unmap(&engine->weights);
    oc_arena_unmap(&engine->scratch);
    oc_kv_free(&engine->kv);
    oc_states_free(&engine->states);
    free(engine);
}

/* A matrix of these bytes, if its kernels exist and the numbers agree. */
static oc_status make_matrix(int32_t gguf_type, int64_t n_rows, int64_t k, const void *const *runs, int32_t n_runs,
                             size_t n_bytes, oc_matrix *matrix, char *err) {
    const oc_format *format = oc_format_get(gguf_type);
    if (!format || !oc_kernels.matmul[gguf_type]) return oc_fail(OC_ERR_FORMAT, err, "tensor type %a is not supported", gguf_type, 0);
    if (n_rows < 1 || n_rows > MAX_WIDTH || k < 1 || k > MAX_WIDTH)
        return oc_fail(OC_ERR_FORMAT, err, "matrix of %a rows and %b columns is out of range", n_rows, k);
    size_t row = oc_format_row_bytes(format, k);
    if (row == 0) return oc_fail(OC_ERR_FORMAT, err, "row of %a values is no whole number of blocks", k, 0);
    if (n_runs < 1 || n_rows % n_runs) return oc_fail(OC_ERR_FORMAT, err, "%a rows are no %b runs", n_rows, n_runs);
    const int64_t run_rows = n_rows / n_runs;
    if (row * (size_t)run_rows != n_bytes)
        return oc_fail(OC_ERR_FORMAT, err, "matrix has %a bytes instead of %b", (int64_t)n_bytes, (int64_t)row * run_rows);
    if (n_runs > 1) n_rows = n_runs * oc_whole_groups(run_rows);
    *matrix = (oc_matrix){
        .format = format, .n_rows = n_rows, .k = k, .run_rows = run_rows, .source = runs[0], .n_runs = n_runs};
    return OC_OK;
}

oc_status oc_engine_add_matrix(oc_engine *engine, int32_t gguf_type, int64_t n_rows, int64_t k, const void *const *runs,
                               int32_t n_runs, size_t n_bytes, int32_t *index, char *err) {
    oc_matrix matrix;
    oc_status status = make_matrix(gguf_type, n_rows, k, runs, n_runs, n_bytes, &matrix, err);
    if (status != OC_OK) return status;
    *index = engine->n_matrices;
    APPEND(engine->matrices, engine->n_matrices, matrix);
    if (n_runs == 1) return OC_OK;
    const void **copy = malloc((size_t)n_runs * sizeof *copy);
    if (!copy) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    memcpy(copy, runs, (size_t)n_runs * sizeof *copy);
    engine->matrices[*index].runs = copy;
    return OC_OK;
}

oc_status oc_engine_add_table(oc_engine *engine, int32_t gguf_type, int64_t n_rows, int64_t k, const void *data,
                              size_t n_bytes, int32_t *index, char *err) {
    oc_matrix table;
    oc_status status = make_matrix(gguf_type, n_rows, k, &data, 1, n_bytes, &table, err);
    if (status != OC_OK) return status;
    oc_pages_random(data, n_bytes);
    *index = engine->n_tables;
    APPEND(engine->tables, engine->n_tables, table);
    return OC_OK;
}

oc_status oc_engine_add_vector(oc_engine *engine, const float *data, int64_t n, int32_t *index, char *err) {
    if (n < 1 || n > MAX_WIDTH) return oc_fail(OC_ERR_FORMAT, err, "vector of %a values is out of range", n, 0);
    const oc_vector vector = {.n = n};
    *index = engine->n_vectors;
    APPEND(engine->vectors, engine->n_vectors, vector);
    float *copy = engine->vectors[*index].data = malloc((size_t)n * sizeof *copy);
    if (!copy) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    memcpy(copy, data, (size_t)n * sizeof *copy);
    return OC_OK;
}

oc_status oc_engine_add_buffer(oc_engine *engine, int32_t width, int32_t *index, char *err) {
    if (width < 1 || width > MAX_WIDTH) return oc_fail(OC_ERR_FORMAT, err, "buffer of %a values is out of range", width, 0);
    oc_buffer buffer = {.n = width, .width = (width + OC_GROUP - 1) / OC_GROUP * OC_GROUP, .is_private = 1};
    *index = engine->n_buffers;
    APPEND(engine->buffers, engine->n_buffers, buffer);
    return OC_OK;
}

oc_status oc_engine_add_rope(oc_engine *engine, const double *freq, int32_t n_freq, double mscale, int32_t *index, char *err) {
    if (n_freq < 1 || n_freq > 512) return oc_fail(OC_ERR_FORMAT, err, "rope of %a frequencies is out of range", n_freq, 0);
    const oc_rope rope = {.n_freq = n_freq, .mscale = mscale};
    *index = engine->n_ropes;
    APPEND(engine->ropes, engine->n_ropes, rope);
    double *copy = engine->ropes[*index].freq = malloc((size_t)n_freq * sizeof *copy);
    if (!copy) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    memcpy(copy, freq, (size_t)n_freq * sizeof *copy);
    return OC_OK;
}

oc_status oc_engine_add_op(oc_engine *engine, const oc_op *op, char *err) {
    APPEND(engine->ops, engine->n_ops, *op);
    return OC_OK;
}

/* ---- checks ---- */

typedef struct check {
    oc_engine *engine;
    const oc_op *op;
    int32_t n_selected; /* 1 once a NORM with SELECT has been seen */
    const oc_op *route; /* the last ROUTE, NULL before it */
} check;

static oc_buffer *buffer_at(const check *c, int32_t index) {
    return index >= 0 && index < c->engine->n_buffers ? &c->engine->buffers[index] : NULL;
}

static const oc_matrix *matrix_at(const check *c, int32_t index) {
    return index >= 0 && index < c->engine->n_matrices ? &c->engine->matrices[index] : NULL;
}

/* index < 0 is allowed: the vector is optional everywhere but in NORM's own weight, where NULL means ones. */
static int vector_fits(const check *c, int32_t index, int64_t n) {
    return index < 0 || (index < c->engine->n_vectors && c->engine->vectors[index].n == n);
}

static int aligned32(const oc_buffer *buffer) { return buffer->n % OC_TILE == 0; }

/* Runs of rows are read each by itself, as those of an expert or a head. */
static int has_runs(const oc_matrix *matrix, int32_t n) { return matrix->n_runs == 1 || matrix->n_runs == n; }

/* A matmul reads src as codes or as floats, by its format; codes must have been asked for. */
static int columns_read(const oc_matrix *matrix, const oc_buffer *src) {
    if (!matrix->format->needs_f32 && !(src->is_quantized && matrix->k % OC_TILE == 0)) return 0;
    return matrix->k == src->n;
}

static int matrix_reads(const oc_matrix *matrix, const oc_buffer *src, const oc_buffer *dst) {
    return matrix->n_rows <= dst->n && matrix->n_runs == 1 && columns_read(matrix, src);
}

static int check_embed(check *c) {
    const oc_matrix *m = matrix_at(c, c->op->matrix);
    oc_buffer *dst = buffer_at(c, c->op->dst);
    if (c->op != c->engine->ops || !m || !dst || m->k != dst->n || m->n_runs > 1 || !vector_fits(c, c->op->vector, m->k))
        return 0;
    const oc_matrix *positions = matrix_at(c, c->op->matrix2);
    if (c->op->matrix2 >= 0 && (!positions || positions->k != m->k || positions->n_runs > 1)) return 0;
    c->engine->embedding = c->op->matrix;
    c->engine->positions = c->op->matrix2;
    return 1;
}

static int check_norm(check *c) {
    const oc_op *op = c->op;
    oc_buffer *x = buffer_at(c, op->dst2), *dst = buffer_at(c, op->dst), *src = buffer_at(c, op->src);
    oc_buffer *src2 = buffer_at(c, op->src2);
    if (!x || !dst || x->n != dst->n || op->n_head < 0) return 0;
    const int32_t parts = op->n_head > 0 ? op->n_head : 1;
    if (x->n % parts != 0) return 0;
    if (!vector_fits(c, op->vector, x->n / parts) && !vector_fits(c, op->vector, x->n)) return 0;
    if (op->n_head > 0 && op->flags & (OC_FLAG_CENTER | OC_FLAG_PLAIN)) return 0;
    if (op->src >= 0 && (!src || src == x || src->n != x->n)) return 0;
    if (op->src2 >= 0 && (!src || !src2 || src2 == x || src2->n != x->n)) return 0;
    if (!vector_fits(c, op->vector2, x->n)) return 0;
    if ((op->flags & OC_FLAG_CENTER) && op->vector < 0) return 0;
    if ((op->flags & OC_FLAG_PLAIN) && ((x == dst) != (op->vector < 0) || op->flags & OC_FLAG_SELECT)) return 0;
    if (op->flags & OC_FLAG_SELECT) { /* moves columns, so not in place */
        if (x == dst || c->n_selected) return 0;
        c->n_selected = dst->is_output = 1;
        c->engine->hidden = op->dst;
    }
    if (op->flags & OC_FLAG_QUANTIZE) dst->is_quantized = 1;
    return !dst->is_quantized || aligned32(dst);
}

static int check_linear(check *c) {
    const oc_op *op = c->op;
    const oc_matrix *m = matrix_at(c, op->matrix);
    oc_buffer *src = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    if (!m || !src || !dst || src == dst || !matrix_reads(m, src, dst) || !vector_fits(c, op->vector, m->n_rows)) return 0;
    if (op->src2 >= 0) { /* a factor for each row */
        const oc_buffer *factors = buffer_at(c, op->src2);
        if (!factors || factors == dst || c->n_selected || op->offset < 0) return 0;
        if (op->offset > factors->n || m->n_rows > factors->n - op->offset) return 0;
    }
    dst->is_private = 0;
    if (c->n_selected) dst->is_output = 1;
    if (op->flags & OC_FLAG_QUANTIZE) {
        if (m->n_rows % OC_TILE != 0) return 0;
        dst->is_quantized = 1;
    }
    return src->is_output == c->n_selected && (!dst->is_quantized || aligned32(dst));
}

static int check_glu(check *c) {
    const oc_op *op = c->op;
    const oc_matrix *gate = matrix_at(c, op->matrix), *up = matrix_at(c, op->matrix2);
    oc_buffer *src = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    if (!gate || !up || !src || !dst || src == dst || c->n_selected) return 0;
    if (gate->n_rows != up->n_rows || gate->n_rows > dst->n) return 0;
    if (!matrix_reads(gate, src, dst) || !matrix_reads(up, src, dst)) return 0;
    dst->is_private = 0;
    if (op->flags & OC_FLAG_QUANTIZE) dst->is_quantized = 1;
    return !dst->is_quantized || aligned32(dst);
}

static int check_heads(const check *c) {
    const oc_op *op = c->op;
    if (op->layer < 0 || op->layer >= c->engine->params.n_layer) return 0;
    const oc_kv_place *place = &c->engine->kv.layers[op->layer];
    return op->n_kv_head == place->n_kv_head && op->head_dim == place->head_dim && op->n_head >= op->n_kv_head &&
           op->n_head % op->n_kv_head == 0 && !c->n_selected;
}

/* The key and value of a ROPE_KV that fills its layer. */
static int check_kv(const check *c, const oc_buffer *q, const oc_buffer *k, const oc_buffer *v) {
    const oc_op *op = c->op;
    const int64_t kv_width = (int64_t)op->n_kv_head * op->head_dim;
    const int norms_value = (op->flags & OC_FLAG_NORM_VALUE) != 0;
    if (!k || k == q || k->n < kv_width) return 0;
    if (c->engine->kv.layers[op->layer].value_dim < op->head_dim) return op->src3 < 0 && !norms_value;
    if (!v || v == q || v->n < kv_width) return 0;
    return k != v || norms_value; /* which is made aside, before rope turns the key */
}

/* Each head has its gate behind it, or none. */
static int64_t query_width(const oc_op *op) {
    return (int64_t)op->n_head * op->head_dim * (op->flags & OC_FLAG_GATED ? 2 : 1);
}

static int check_rope_kv(check *c) {
    const oc_op *op = c->op;
    oc_buffer *q = buffer_at(c, op->src), *k = buffer_at(c, op->src2), *v = buffer_at(c, op->src3);
    if (!check_heads(c) || !q || q->n < query_width(op)) return 0;
    if ((op->src2 >= 0 || op->src3 >= 0) && !check_kv(c, q, k, v)) return 0;
    if (op->rope_at < 0 || op->rope_at >= op->head_dim) return 0;
    const int32_t n_norm = op->rope_at > 0 ? op->rope_at : op->head_dim;
    if (!vector_fits(c, op->vector, n_norm) || !vector_fits(c, op->vector2, n_norm)) return 0;
    if (op->rope < 0) return 1;
    return op->rope < c->engine->n_ropes && op->rope_at + 2 * c->engine->ropes[op->rope].n_freq <= op->head_dim;
}

static int check_attention(check *c) {
    const oc_op *op = c->op;
    oc_buffer *q = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    if (!check_heads(c) || !q || !dst || q == dst || op->window < 0) return 0;
    const int32_t value_dim = c->engine->kv.layers[op->layer].value_dim;
    if (q->n < query_width(op) || dst->n < (int64_t)op->n_head * value_dim) return 0;
    /* exec.c finds what q, k and v need in the op before */
    const oc_op *made = op - 1;
    if (op == c->engine->ops || made->kind != OC_OP_ROPE_KV || made->src != op->src || made->layer != op->layer ||
        made->n_head != op->n_head || (made->flags ^ op->flags) & OC_FLAG_GATED)
        return 0;
    if (!vector_fits(c, op->vector, op->n_head) || !vector_fits(c, op->vector2, op->n_head)) return 0;
    if (op->flags & OC_FLAG_BOTH_WAYS) c->engine->looks_ahead = 1;
    dst->is_private = 0;
    /* One head's output must be whole blocks, or an item would quantise half a block of its neighbour. */
    if (op->flags & OC_FLAG_QUANTIZE) {
        if (value_dim % OC_TILE != 0) return 0;
        dst->is_quantized = 1;
    }
    return !dst->is_quantized || aligned32(dst);
}

static int check_head_linear(check *c) {
    const oc_op *op = c->op;
    const oc_matrix *m = matrix_at(c, op->matrix);
    oc_buffer *src = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    if (!m || !src || !dst || src == dst || src->is_private || c->n_selected || op->n_head < 1) return 0;
    if (src->n % op->n_head || dst->n % op->n_head || m->n_rows % ((int64_t)op->n_head * OC_GROUP) || !has_runs(m, op->n_head))
        return 0;
    const int64_t from = src->n / op->n_head, to = dst->n / op->n_head, rows = m->n_rows / op->n_head;
    if (m->n_rows != m->n_runs * m->run_rows || m->k > from || rows + from - m->k != to) return 0;
    if (!m->format->needs_f32 && !(src->is_quantized && m->k % OC_TILE == 0 && from % OC_TILE == 0)) return 0;
    dst->is_private = 0;
    if (op->flags & OC_FLAG_QUANTIZE) {
        if (to % OC_TILE != 0) return 0;
        dst->is_quantized = 1;
    }
    return 1;
}

/* The op's part of a state, `n` floats. */
static int has_state(const check *c, int64_t n) {
    return c->op->state >= 0 && c->op->state + n <= c->engine->params.state_size;
}

static int check_conv(check *c) {
    const oc_op *op = c->op;
    oc_buffer *src = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    if (!src || !dst || src == dst || src->is_private || c->n_selected) return 0;
    if (op->window < 2 || op->window > OC_CONV_WIDTH || op->vector < 0) return 0;
    if (src->width < dst->width * (op->flags & OC_FLAG_GATED ? 3 : 1)) return 0;
    dst->is_private = 0;
    if (op->flags & OC_FLAG_QUANTIZE) dst->is_quantized = 1;
    if (dst->is_quantized && !aligned32(dst)) return 0;
    const int64_t n = dst->width;
    if (op->vector2 >= 0 && (op->flags & OC_FLAG_GATED || !vector_fits(c, op->vector2, n))) return 0;
    return vector_fits(c, op->vector, n * op->window) && has_state(c, n * (op->window - 1));
}

/* Of a DELTA: what it reads of each head. */
static int check_delta_sources(const check *c, int64_t values) {
    const oc_op *op = c->op;
    const oc_buffer *src = buffer_at(c, op->src), *beta = buffer_at(c, op->src2), *gate = buffer_at(c, op->src4);
    const oc_buffer *alpha = op->flags & OC_FLAG_GROUPED ? beta : buffer_at(c, op->src3), *dst = buffer_at(c, op->dst);
    if (!src || !beta || !alpha || !gate || dst == src || dst == beta || dst == alpha || dst == gate) return 0;
    if (src->is_private || beta->is_private || alpha->is_private || gate->is_private) return 0;
    if (beta->width < op->n_head * (op->flags & OC_FLAG_GROUPED ? 2 : 1) || alpha->width < op->n_head) return 0;
    return gate->width >= values && src->width >= 2 * op->n_kv_head * op->head_dim + values;
}

static int check_delta(check *c) {
    const oc_op *op = c->op;
    oc_buffer *dst = buffer_at(c, op->dst);
    if (!dst || c->n_selected || op->vector < 0 || op->vector >= c->engine->n_vectors) return 0;
    if (op->n_kv_head < 1 || op->n_head < 1 || op->n_head > 1024) return 0;
    if (op->flags & OC_FLAG_SCAN && !vector_fits(c, op->vector, op->n_head)) return 0;
    const int64_t n_k = op->head_dim, n_v = oc_value_length(c->engine, op), values = op->n_head * n_v;
    if (n_k < 1 || n_k > 1024 || n_v < 1 || n_v > 1024) return 0;
    if (op->n_head % op->n_kv_head || dst->width < values || !check_delta_sources(c, values)) return 0;
    if (op->vector2 < 0 || !vector_fits(c, op->vector2, op->n_head)) return 0;
    if (op->vector3 < 0 || !vector_fits(c, op->vector3, op->n_head)) return 0;
    dst->is_private = 0;
    if (op->flags & OC_FLAG_QUANTIZE) {
        if (n_v % OC_TILE != 0) return 0;
        dst->is_quantized = 1;
    }
    return (!dst->is_quantized || aligned32(dst)) && has_state(c, values * n_k);
}

static int check_quantize(check *c) {
    oc_buffer *src = buffer_at(c, c->op->src);
    if (!src || !aligned32(src) || c->n_selected) return 0;
    src->is_quantized = 1;
    src->is_private = 0;
    return 1;
}

static int check_route(check *c) {
    const oc_op *op = c->op;
    oc_buffer *src = buffer_at(c, op->src);
    if (!src || src->is_private || c->n_selected || op->n_expert < 1 || op->n_expert > src->n) return 0;
    if (op->n_used < 1 || op->n_used > op->n_expert || op->n_used > OC_MAX_USED) return 0;
    if (!vector_fits(c, op->vector, op->n_expert) || !vector_fits(c, op->vector2, op->n_expert)) return 0;
    if (op->n_group < 0 || op->n_group > OC_MAX_GROUPS) return 0;
    if (op->n_group > 1 && (op->n_expert % op->n_group || op->n_group_used < 1 || op->n_group_used > op->n_group)) return 0;
    c->route = op;
    return 1;
}

/* Rows that each expert has of a matrix, 0 if they do not begin with a group. */
static int64_t expert_rows(const oc_op *op, const oc_matrix *m) {
    if (!m || !has_runs(m, op->n_expert)) return 0;
    if (m->n_runs == op->n_expert) return m->run_rows;
    return m->n_rows % ((int64_t)op->n_expert * OC_GROUP) == 0 ? m->n_rows / op->n_expert : 0;
}

/* What all experts' ops share: they follow a ROUTE over as many experts. */
static int is_routed(const check *c) {
    const oc_op *route = c->route;
    return route && !c->n_selected && c->op->n_expert == route->n_expert && c->op->n_used == route->n_used;
}

static int check_expert_glu(check *c) {
    const oc_op *op = c->op;
    const int is_gated = !(op->flags & OC_FLAG_ERF);
    const oc_matrix *gate = matrix_at(c, op->matrix), *up = is_gated ? matrix_at(c, op->matrix2) : gate;
    oc_buffer *src = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    if (!is_routed(c) || !gate || !up || !src || !dst || src == dst) return 0;
    const int64_t n_ff = expert_rows(op, gate);
    if (n_ff == 0 || n_ff != expert_rows(op, up) || dst->n != op->n_used * oc_whole_groups(n_ff)) return 0;
    if (!columns_read(gate, src) || !columns_read(up, src)) return 0;
    if (!vector_fits(c, op->vector, op->n_expert * n_ff) || !vector_fits(c, op->vector2, op->n_expert * n_ff)) return 0;
    dst->is_private = 0;
    if (op->flags & OC_FLAG_QUANTIZE) {
        if (n_ff % OC_TILE != 0) return 0;
        dst->is_quantized = 1;
    }
    return 1;
}

static int check_expert_sum(check *c) {
    const oc_op *op = c->op;
    const oc_matrix *down = matrix_at(c, op->matrix);
    oc_buffer *src = buffer_at(c, op->src), *dst = buffer_at(c, op->dst);
    oc_buffer *shared = buffer_at(c, op->src2), *gate = buffer_at(c, op->src3);
    if (!is_routed(c) || !down || !src || !dst || src == dst || src->is_private) return 0;
    const int64_t n_rows = expert_rows(op, down);
    if (n_rows == 0 || n_rows > dst->n || src->n != op->n_used * oc_whole_groups(down->k)) return 0;
    if (!down->format->needs_f32 && !(src->is_quantized && down->k % OC_TILE == 0)) return 0;
    if (op->src2 >= 0 && (!shared || shared == dst || shared->n < n_rows)) return 0;
    if (op->src3 >= 0 && (!gate || gate == dst || op->src2 < 0)) return 0;
    dst->is_private = 0;
    return vector_fits(c, op->vector, op->n_expert * n_rows);
}

static int check_gather(check *c) {
    const oc_op *op = c->op;
    oc_buffer *dst = buffer_at(c, op->dst);
    if (op->matrix < 0 || op->matrix >= c->engine->n_tables || !dst || c->n_selected) return 0;
    dst->is_private = 0;
    return c->engine->tables[op->matrix].k == dst->n;
}

static int check_sparse_glu(check *c) {
    const oc_op *op = c->op;
    oc_buffer *gate = buffer_at(c, op->src), *up = buffer_at(c, op->src2), *dst = buffer_at(c, op->dst);
    if (!gate || !up || !dst || dst == gate || dst == up || c->n_selected) return 0;
    if (gate->n != dst->n || up->n != dst->n) return 0;
    dst->is_private = 0;
    if (op->flags & OC_FLAG_QUANTIZE) dst->is_quantized = 1;
    return !dst->is_quantized || aligned32(dst);
}

/* PREDICT and CORRECT: the streams, dst2 and the vector that makes `n_values` of src. */
static int check_streams(check *c, int64_t n_values) {
    const oc_op *op = c->op;
    const oc_buffer *src = buffer_at(c, op->src), *block = buffer_at(c, op->dst2);
    if (op->n_stream < 2 || op->n_stream > OC_MAX_STREAMS || c->n_selected) return 0;
    if (!src || !block || src->n < op->n_stream || op->vector < 0) return 0;
    if (!vector_fits(c, op->vector, n_values * op->n_stream)) return 0;
    for (int32_t i = 0; i < op->n_stream; i++) {
        const oc_buffer *stream = buffer_at(c, op->dst < 0 ? -1 : op->dst + i);
        if (!stream || stream == src || stream == block || stream->n != block->n) return 0;
    }
    return 1;
}

static int check_match(check *c) {
    const oc_op *op = c->op;
    const oc_buffer *src = buffer_at(c, op->src), *src2 = buffer_at(c, op->src2), *dst = buffer_at(c, op->dst);
    return src && src2 && dst && src2 != dst && src->n == dst->n && src2->n == dst->n && !c->n_selected;
}

static int check_op(check *c) {
    switch (c->op->kind) {
    case OC_OP_EMBED: return check_embed(c);
    case OC_OP_NORM: return check_norm(c);
    case OC_OP_LINEAR: return check_linear(c);
    case OC_OP_GLU: return check_glu(c);
    case OC_OP_ROPE_KV: return check_rope_kv(c);
    case OC_OP_ATTENTION: return check_attention(c);
    case OC_OP_QUANTIZE: return check_quantize(c);
    case OC_OP_CONV: return check_conv(c);
    case OC_OP_DELTA: return check_delta(c);
    case OC_OP_ROUTE: return check_route(c);
    case OC_OP_EXPERT_GLU: return check_expert_glu(c);
    case OC_OP_EXPERT_SUM: return check_expert_sum(c);
    case OC_OP_HEAD_LINEAR: return check_head_linear(c);
    case OC_OP_GATHER: return check_gather(c);
    case OC_OP_SPARSE_GLU: return check_sparse_glu(c);
    case OC_OP_PREDICT: return check_streams(c, (int64_t)c->op->n_stream * c->op->n_stream);
    case OC_OP_CORRECT: return check_streams(c, c->op->n_stream);
    case OC_OP_MATCH: return check_match(c);
    default: return 0;
    }
}

/* All streams of a PREDICT or CORRECT, and its dst2, are private. */
static int has_private_streams(const oc_engine *engine, const oc_op *op) {
    int is_private = engine->buffers[op->dst2].is_private;
    for (int32_t i = 0; i < op->n_stream; i++) is_private &= engine->buffers[op->dst + i].is_private;
    return is_private;
}

/* Once all writers are known: the residual stream and its norms stay private while their first addends are not; a norm
 * in place of what a LINEAR wrote is not either; and columns before SELECT never share a buffer with columns after it. */
static int check_roles(const oc_engine *engine) {
    int selected = 0;
    for (int32_t i = 0; i < engine->n_ops; i++) {
        const oc_op *op = &engine->ops[i];
        const oc_buffer *b = engine->buffers;
        if (op->kind == OC_OP_EMBED && !b[op->dst].is_private) return 0;
        if (op->kind == OC_OP_NORM && b[op->dst].is_private != b[op->dst2].is_private) return 0;
        if (op->kind == OC_OP_NORM && op->src >= 0 && b[op->src].is_private && b[op->dst].is_private) return 0;
        if ((op->kind == OC_OP_PREDICT || op->kind == OC_OP_CORRECT) && !has_private_streams(engine, op)) return 0;
        if (op->kind == OC_OP_NORM && (op->flags & OC_FLAG_SELECT)) selected = 1;
        else if (!selected && op->dst >= 0 && b[op->dst].is_output) return 0;
    }
    return 1;
}

/* Whether every thread does an op for itself in a step of one token. */
static int is_own(const oc_engine *engine, const oc_op *op) {
    const int makes_streams = op->kind == OC_OP_PREDICT || op->kind == OC_OP_CORRECT;
    return (op->kind == OC_OP_NORM || op->kind == OC_OP_MATCH || makes_streams) && engine->buffers[op->dst].is_private;
}

static int writes(const oc_op *op, int32_t buffer) {
    const int is_in_place = op->kind == OC_OP_QUANTIZE || op->kind == OC_OP_ROUTE;
    return op->dst == buffer || op->dst2 == buffer || (is_in_place && op->src == buffer) ||
           (op->kind == OC_OP_ROPE_KV && op->src2 == buffer);
}

/* What a thread reads for itself, others must not write in the phase behind: nobody waits for that thread in between.
 * (A phase further on they may come to: then the thread sees that it is late, see exec.c.) */
static int check_readers(const oc_engine *engine) {
    const oc_op *end = engine->ops + engine->n_ops;
    for (const oc_op *op = engine->ops; op < end; op++) {
        if (!is_own(engine, op)) continue;
        const oc_op *phase = op + 1;
        while (phase < end && is_own(engine, phase)) phase++;
        for (int goes_on = phase < end; goes_on; phase++) {
            const int32_t read[] = {op->src, op->src2};
            for (int i = 0; i < 2; i++)
                if (read[i] >= 0 && !engine->buffers[read[i]].is_private && writes(phase, read[i])) return 0;
            goes_on = phase + 1 < end && (phase->flags & OC_FLAG_JOIN || phase->kind == OC_OP_ROPE_KV);
        }
    }
    return 1;
}

/* ---- scratch ---- */

/* Both passes of a layout: counts bytes while the arena is unmapped, hands out memory once it is mapped. */
typedef struct layout {
    oc_arena *arena;
    size_t total;
} layout;

static void *take(layout *l, int64_t n, size_t size) {
    size_t bytes = (size_t)n * size;
    l->total += oc_arena_round(bytes);
    return l->arena->base ? oc_arena_take(l->arena, bytes) : NULL;
}

static void lay_columns(layout *l, oc_columns *columns, const oc_buffer *buffer, int64_t n) {
    columns->f32 = take(l, n * buffer->width, sizeof(float));
    if (!buffer->is_quantized) return;
    columns->codes = take(l, n * buffer->n, 1);
    columns->scale = take(l, n * (buffer->n / OC_ACT_BLOCK), sizeof(float));
    columns->sum = take(l, n * (buffer->n / OC_TILE), sizeof(float));
}

static oc_partial lay_partial(layout *l, int64_t value_dim) {
    return (oc_partial){.out = take(l, OC_ROWS * value_dim, sizeof(float)),
                        .max = take(l, OC_ROWS, sizeof(float)),
                        .sum = take(l, OC_ROWS, sizeof(float))};
}

/* Room to split every sequence that the KV pool can hold, were it not for shared blocks. */
static void lay_attention(layout *l, oc_engine *engine) {
    const oc_engine_params *p = &engine->params;
    oc_step_state *step = &engine->step;
    const oc_slices most = oc_most_slices(engine);
    int64_t parts = p->kv_blocks * OC_TILE / OC_PART + p->max_seqs;
    step->n_partials = parts * most.n * most.rows * engine->n_kv_head;
    step->partials = take(l, step->n_partials * (engine->value_dim + 2), sizeof *step->partials);
    step->work = take(l, p->max_tokens + parts, sizeof *step->work);
    step->arrived = take(l, (int64_t)p->max_tokens * engine->n_kv_head * most.n, sizeof *step->arrived);
}

/* Each thread's room to gather columns for an expert or a head. */
static void lay_gathered(layout *l, oc_engine *engine) {
    int64_t width = 0;
    for (int32_t i = 0; i < engine->n_ops; i++) {
        const oc_op *op = &engine->ops[i];
        if (op->kind != OC_OP_EXPERT_GLU && op->kind != OC_OP_HEAD_LINEAR) continue;
        if (engine->matrices[op->matrix].k > width) width = engine->matrices[op->matrix].k;
    }
    const oc_buffer gathered = {.n = (int32_t)width, .width = (int32_t)width, .is_quantized = 1};
    for (int32_t t = 0; width > 0 && t < engine->params.n_threads; t++)
        lay_columns(l, &engine->threads[t].gathered, &gathered, OC_SLICE);
}

/* What the experts' ops of a plan need at most: of each thread products, of the step the routes. */
static void lay_experts(layout *l, oc_engine *engine) {
    int64_t n_expert = 0, pairs = 0;
    for (int32_t i = 0; i < engine->n_ops; i++) {
        const oc_op *op = &engine->ops[i];
        if (op->kind == OC_OP_ROUTE && op->n_expert > n_expert) n_expert = op->n_expert;
        if (op->kind == OC_OP_ROUTE && op->n_used > pairs) pairs = op->n_used;
    }
    if (n_expert == 0) return;
    pairs *= engine->params.max_tokens;
    oc_routes *routes = &engine->step.routes;
    routes->chosen = take(l, pairs, sizeof *routes->chosen);
    routes->column = take(l, pairs, sizeof *routes->column);
    routes->weight = take(l, pairs, sizeof *routes->weight);
    routes->first = take(l, n_expert + 1, sizeof *routes->first);
    routes->active = take(l, n_expert, sizeof *routes->active);
    for (int32_t t = 0; t < engine->params.n_threads; t++)
        engine->threads[t].rows = take(l, OC_SLICE * OC_EXPERT_ROWS, sizeof(float));
}

/* Products of the largest chunk, of GLU those of both matrices. */
static int64_t chunk_products(const oc_engine *engine) {
    const int64_t n = engine->params.max_tokens;
    int64_t most = 0;
    for (int32_t i = 0; i < engine->n_ops; i++) {
        const oc_op *op = &engine->ops[i];
        if (op->kind != OC_OP_LINEAR && op->kind != OC_OP_GLU) continue;
        const oc_matrix *m = &engine->matrices[op->matrix];
        const int is_glu = op->kind == OC_OP_GLU, least = is_glu ? OC_PANEL_GROUPS : OC_ROW_CHUNK;
        const int64_t solo = oc_gemv_chunk(m, least), groups = (1 + is_glu) * (solo > least * n ? solo : least * n);
        if (groups * OC_GROUP > most) most = groups * OC_GROUP;
    }
    return most;
}

static void lay_thread(layout *l, const oc_engine *engine, oc_thread *thread, int32_t widest) {
    int64_t head_dim = engine->head_dim, value_dim = engine->value_dim;
    thread->q = take(l, OC_ROWS * head_dim, sizeof(float));
    thread->attention = take(l, (int64_t)oc_attention_scratch(head_dim), sizeof(float));
    thread->whole = lay_partial(l, value_dim);
    thread->part = lay_partial(l, value_dim);
    thread->column = take(l, widest, sizeof(float));
    thread->first = take(l, OC_ROWS, sizeof(int32_t));
    thread->last = take(l, OC_ROWS, sizeof(int32_t));
    thread->position = take(l, OC_ROWS, sizeof(int32_t));
    thread->slope = take(l, OC_ROWS, sizeof(float));
    thread->k_tiles = take(l, engine->kv.n_blocks, sizeof(void *));
    thread->v_tiles = take(l, engine->kv.n_blocks, sizeof(void *));
    thread->product = take(l, chunk_products(engine), sizeof(float));
}

static size_t lay_scratch(oc_engine *engine) {
    layout l = {.arena = &engine->scratch};
    const oc_engine_params *p = &engine->params;
    int32_t widest = 0;
    for (int32_t i = 0; i < engine->n_buffers; i++) {
        oc_buffer *buffer = &engine->buffers[i];
        if (buffer->width > widest) widest = buffer->width;
        lay_columns(&l, &buffer->shared, buffer, buffer->is_output ? p->max_outputs : p->max_tokens);
        for (int32_t t = 0; buffer->is_private && t < p->n_threads; t++) lay_columns(&l, &buffer->own[t], buffer, 1);
    }
    for (int32_t i = 0; i < engine->n_ropes; i++) {
        oc_rope *rope = &engine->ropes[i];
        rope->cos = take(&l, (int64_t)p->max_tokens * rope->n_freq, sizeof(float));
        rope->sin = take(&l, (int64_t)p->max_tokens * rope->n_freq, sizeof(float));
    }
    for (int32_t t = 0; t < p->n_threads; t++) lay_thread(&l, engine, &engine->threads[t], widest);
    const oc_op *head = &engine->ops[engine->n_ops - 1];
    int64_t n_vocab = head->kind == OC_OP_LINEAR ? engine->matrices[head->matrix].n_rows : 0; /* 0: an encoder */
    engine->maxima = take(&l, p->max_outputs * ((n_vocab + OC_RUN - 1) / OC_RUN), sizeof(float));
    oc_step_state *step = &engine->step;
    step->token = take(&l, p->max_tokens, sizeof *step->token);
    step->item = take(&l, p->max_tokens, sizeof *step->item);
    step->position = take(&l, p->max_tokens, sizeof *step->position);
    step->output = take(&l, p->max_outputs, sizeof *step->output);
    step->first = take(&l, p->max_seqs, sizeof *step->first);
    step->spans = take(&l, p->max_tokens, sizeof *step->spans);
    step->lanes = take(&l, (int64_t)engine->n_ops * p->n_threads, sizeof *step->lanes);
    lay_attention(&l, engine);
    lay_gathered(&l, engine);
    lay_experts(&l, engine);
    return l.total;
}

/* Codes that no matrix reads, because all that read the buffer are float matrices, are not made. */
static void drop_unread_codes(oc_engine *engine) {
    for (int32_t b = 0; b < engine->n_buffers; b++) {
        int is_read = 0;
        for (int32_t i = 0; i < engine->n_ops; i++) {
            const oc_op *op = &engine->ops[i];
            const int is_glu = op->kind == OC_OP_GLU || op->kind == OC_OP_EXPERT_GLU;
            const int has_one = op->kind == OC_OP_LINEAR || op->kind == OC_OP_EXPERT_SUM || op->kind == OC_OP_HEAD_LINEAR;
            if ((!has_one && !is_glu) || op->src != b) continue;
            is_read |= !engine->matrices[op->matrix].format->needs_f32;
            is_read |= is_glu && op->matrix2 >= 0 && !engine->matrices[op->matrix2].format->needs_f32;
        }
        engine->buffers[b].is_quantized &= is_read;
    }
}

static int is_codes_reader(const oc_engine *engine, const oc_op *op) {
    if (op->kind != OC_OP_LINEAR && op->kind != OC_OP_GLU) return 0;
    if (op->kind == OC_OP_GLU && engine->matrices[op->matrix2].format->needs_f32) return 0;
    return !engine->matrices[op->matrix].format->needs_f32;
}

static int makes_codes(const oc_op *op) {
    const int is_maker = op->kind == OC_OP_NORM || op->kind == OC_OP_GLU || op->kind == OC_OP_ATTENTION;
    return is_maker && op->flags & OC_FLAG_QUANTIZE && !(op->flags & OC_FLAG_SELECT);
}

/* Floats that only quantised matrices would read, and nothing else has to do with. */
static void find_unread_floats(oc_engine *engine) {
    for (int32_t b = 0; b < engine->n_buffers; b++) {
        int is_codes = engine->buffers[b].is_quantized;
        for (int32_t i = 0; i < engine->n_ops; i++) {
            const oc_op *op = &engine->ops[i];
            if (op->dst == b && !makes_codes(op)) is_codes = 0;
            if (op->src == b && !is_codes_reader(engine, op)) is_codes = 0;
            if (op->src2 == b || op->src3 == b || op->src4 == b || op->dst2 == b) is_codes = 0;
        }
        engine->buffers[b].is_codes = is_codes;
    }
}

static int is_last(const oc_op *op) {
    return op->kind == OC_OP_LINEAR || (op->kind == OC_OP_NORM && (op->flags & OC_FLAG_SELECT));
}

oc_status oc_engine_finish(oc_engine *engine, char *err) {
    check c = {.engine = engine};
    if (engine->is_finished) return oc_fail(OC_ERR_ARGUMENT, err, "the plan is already finished", 0, 0);
    engine->embedding = -1;
    engine->n_stages = 0;
    for (int32_t i = 0; i < engine->n_ops; i++) {
        c.op = &engine->ops[i];
        if (!engine->select && c.op->flags & OC_FLAG_SELECT) engine->select = c.op;
        if (!check_op(&c)) return oc_fail(OC_ERR_ARGUMENT, err, "op %a of kind %b does not fit its operands", i, c.op->kind);
        engine->n_stages += c.op->kind == OC_OP_ATTENTION;
    }
    if (engine->n_stages == 0) engine->n_stages = 1;
    if (engine->embedding < 0 || !c.n_selected || !is_last(c.op) || !check_roles(engine))
        return oc_fail(OC_ERR_ARGUMENT, err, "a plan starts with EMBED and ends with NORM + SELECT and perhaps LINEAR", 0, 0);
    if (!check_readers(engine)) return oc_fail(OC_ERR_ARGUMENT, err, "an op writes what the norm before it reads", 0, 0);
    drop_unread_codes(engine);
    find_unread_floats(engine);
    engine->threads = calloc((size_t)engine->params.n_threads, sizeof *engine->threads);
    if (!engine->threads) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    for (int32_t i = 0; i < engine->n_buffers; i++) {
        oc_buffer *buffer = &engine->buffers[i];
        buffer->own = buffer->is_private ? calloc((size_t)engine->params.n_threads, sizeof *buffer->own) : NULL;
        if (buffer->is_private && !buffer->own) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    }
    size_t total = lay_scratch(engine);
    if (oc_arena_map(&engine->scratch, total) != 0) return oc_fail(OC_ERR_NOMEM, err, "cannot reserve %a bytes of scratch", (int64_t)total, 0);
    lay_scratch(engine);
    engine->is_finished = 1;
    return OC_OK;
}

size_t oc_engine_weight_bytes(const oc_engine *engine) { return engine->weights.size; }
size_t oc_engine_kv_bytes(const oc_engine *engine) { return engine->kv.arena.size; }
size_t oc_engine_scratch_bytes(const oc_engine *engine) { return engine->scratch.size; }
size_t oc_engine_state_bytes(const oc_engine *engine) { return engine->states.arena.size; }
int64_t oc_engine_states_saved(const oc_engine *engine) { return engine->states.n_saved; }
int64_t oc_engine_kv_blocks_free(const oc_engine *engine) { return engine->kv.n_free; }
