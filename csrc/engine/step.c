/* step.c - one pass of a mixed batch: room in the KV pool, columns, spans, the plan, then the commit. */
#include <string.h>

#include "engine/engine.h"

static oc_status check_item(const oc_engine *engine, const oc_batch_item *item, char *err) {
    if (!item->seq || item->seq->engine != engine || item->n_tokens < 1 || item->n_outputs < 0 || item->n_outputs > item->n_tokens)
        return oc_fail(OC_ERR_ARGUMENT, err, "batch item with %a tokens and %b outputs", item->n_tokens, item->n_outputs);
    int64_t length = item->seq->length + item->n_tokens;
    if (engine->positions >= 0 && length > engine->matrices[engine->positions].n_rows)
        return oc_fail(OC_ERR_ARGUMENT, err, "position %a is not one of the %b that the model knows", length - 1,
                       engine->matrices[engine->positions].n_rows);
    int64_t n_vocab = engine->matrices[engine->embedding].n_rows;
    for (int32_t i = 0; i < item->n_tokens; i++)
        if (item->tokens[i] < 0 || item->tokens[i] >= n_vocab)
            return oc_fail(OC_ERR_ARGUMENT, err, "token id %a is outside the vocabulary of %b", item->tokens[i], n_vocab);
    return OC_OK;
}

static oc_status check_batch(const oc_engine *engine, const oc_batch_item *items, int32_t n_items, char *err) {
    const oc_engine_params *p = &engine->params;
    if (!engine->is_loaded) return oc_fail(OC_ERR_ARGUMENT, err, "the engine has no weights yet", 0, 0);
    if (n_items < 1 || n_items > p->max_seqs) return oc_fail(OC_ERR_ARGUMENT, err, "batch of %a sequences, the limit is %b", n_items, p->max_seqs);
    int64_t tokens = 0, outputs = 0;
    for (int32_t i = 0; i < n_items; i++) {
        oc_status status = check_item(engine, &items[i], err);
        if (status != OC_OK) return status;
        for (int32_t j = 0; j < i; j++)
            if (items[j].seq == items[i].seq) return oc_fail(OC_ERR_ARGUMENT, err, "sequence twice in a batch", 0, 0);
        tokens += items[i].n_tokens;
        outputs += items[i].n_outputs;
    }
    if (tokens > p->max_tokens) return oc_fail(OC_ERR_ARGUMENT, err, "batch of %a tokens, the limit is %b", tokens, p->max_tokens);
    if (outputs > p->max_outputs) return oc_fail(OC_ERR_ARGUMENT, err, "batch of %a outputs, the limit is %b", outputs, p->max_outputs);
    return oc_stages_check(engine, items, n_items, err);
}

/* Gives back the blocks that hold no committed position. */
static void roll_back(const oc_batch_item *items, int32_t n_items) {
    for (int32_t i = 0; i < n_items; i++) oc_seq_truncate(items[i].seq, items[i].seq->length);
}

/* Spans are cut so that their rows fit OC_ROWS. One plan has one head geometry for all layers as far as spans go, the
 * largest. */
oc_slices oc_most_slices(const oc_engine *engine) {
    oc_slices most = {1, 1};
    for (int32_t i = 0; i < engine->n_ops; i++)
        if (engine->ops[i].kind == OC_OP_ATTENTION) {
            const oc_slices slices = oc_slices_of(&engine->ops[i]);
            if (slices.n > most.n) most.n = slices.n;
            if (slices.rows > most.rows) most.rows = slices.rows;
        }
    return most;
}

/* Shares the parts of a span's keys among the threads while there is room for their results. Parts outside of a sliding
 * window count as well: they are skipped when their turn comes. */
static void lay_attention(oc_engine *engine) {
    oc_step_state *step = &engine->step;
    const oc_engine_params *p = &engine->params;
    const oc_slices most = oc_most_slices(engine);
    int64_t used = 0, rows_per_token = (int64_t)most.n * most.rows * engine->n_kv_head;
    step->all.n_work = step->rest.n_work = 0;
    for (int32_t i = 0; i < step->n_spans; i++) {
        oc_span *span = &step->spans[i];
        const oc_batch_item *item = &step->items[span->item];
        int64_t end = engine->looks_ahead ? item->seq->length + item->n_tokens : span->position + span->n_tokens;
        int32_t parts = (int32_t)((end + OC_PART - 1) / OC_PART);
        int64_t rows = parts * span->n_tokens * rows_per_token;
        int is_split = p->n_threads > 1 && parts > 1 && used + rows <= step->n_partials;
        span->partials = is_split ? used : -1;
        if (is_split) used += rows;
        for (int32_t part = 0; is_split && part < parts; part++)
            step->work[step->all.n_work++] = (oc_attention_work){.span = i, .part = part};
        if (!is_split) step->work[step->all.n_work++] = (oc_attention_work){.span = i, .part = -1};
        if (span->item < step->rest.n_items) step->rest.n_work = step->all.n_work;
    }
}

static void lay_columns(oc_engine *engine, const oc_batch_item *items, int32_t n_items) {
    oc_step_state *step = &engine->step;
    int32_t column = 0, per_span = OC_ROWS / oc_most_slices(engine).rows;
    step->items = items;
    step->n_outputs = step->n_spans = 0;
    step->decode_only = 1;
    for (int32_t i = 0; i < n_items; i++) {
        const oc_batch_item *item = &items[i];
        if (item->n_tokens > 1) step->decode_only = 0;
        step->first[i] = column;
        for (int32_t t = 0; t < item->n_tokens; t += per_span) {
            int32_t left = item->n_tokens - t;
            step->spans[step->n_spans++] = (oc_span){.item = i, .column = column + t, .n_tokens = left < per_span ? left : per_span, .position = item->seq->length + t};
        }
        for (int32_t t = 0; t < item->n_tokens; t++, column++) {
            step->token[column] = item->tokens[t];
            step->item[column] = i;
            step->position[column] = item->seq->length + t;
            if (t >= item->n_tokens - item->n_outputs) step->output[step->n_outputs++] = column;
        }
    }
    step->all.n_items = n_items;
    step->all.n_columns = column;
    step->rest.n_items = n_items - 1;
    step->rest.n_columns = step->first[n_items - 1];
    step->is_solo = column == 1 && !step->staged.seq && step->staged_begin == engine->ops;
}

static oc_status lay_out(oc_engine *engine, const oc_batch_item *items, int32_t n_items, char *err) {
    oc_stages_begin(engine, items, n_items);
    for (int32_t i = 0; i < n_items; i++) {
        oc_status status = oc_seq_reserve(items[i].seq, items[i].seq->length + items[i].n_tokens);
        if (status != OC_OK) return oc_fail(status, err, "the KV pool is full: %a blocks free", engine->kv.n_free, 0);
        oc_seq_begin_state(items[i].seq);
    }
    lay_columns(engine, items, n_items);
    lay_attention(engine);
    return OC_OK;
}

oc_status oc_step_begin(oc_engine *engine, const oc_batch_item *items, int32_t n_items, char *err) {
    if (engine->step.is_begun) return oc_fail(OC_ERR_ARGUMENT, err, "a step is under way", 0, 0);
    oc_status status = check_batch(engine, items, n_items, err);
    if (status != OC_OK) return status;
    status = lay_out(engine, items, n_items, err);
    if (status == OC_OK) {
        status = oc_exec_begin(engine);
        if (status != OC_OK) oc_fail(status, err, oc_status_text(status), 0, 0);
    }
    if (status != OC_OK) roll_back(items, n_items);
    engine->step.is_begun = status == OC_OK;
    return status;
}

oc_status oc_step_finish(oc_engine *engine, int give_up, const float **logits, int64_t *stride, char *err) {
    const oc_step_state *step = &engine->step;
    if (!step->is_begun) return oc_fail(OC_ERR_ARGUMENT, err, "no step is under way", 0, 0);
    oc_status status = oc_exec_finish(engine, give_up);
    engine->step.is_begun = 0;
    if (status != OC_OK) {
        roll_back(step->items, step->all.n_items);
        return oc_fail(status, err, oc_status_text(status), 0, 0);
    }
    for (int32_t i = 0; i < step->all.n_items; i++) {
        oc_seq *seq = step->items[i].seq;
        if (seq == step->staged.seq) continue;
        seq->length += step->items[i].n_tokens;
        oc_seq_commit_state(seq);
    }
    const oc_op *last = &engine->ops[engine->n_ops - 1];
    const oc_buffer *out = &engine->buffers[last->dst];
    *logits = last->kind == OC_OP_LINEAR ? out->shared.f32 : NULL;
    *stride = out->width;
    return OC_OK;
}

oc_status oc_step(oc_engine *engine, const oc_batch_item *items, int32_t n_items, int64_t ahead, const float **logits,
                  int64_t *stride, char *err) {
    oc_status status = oc_step_begin(engine, items, n_items, err);
    if (status != OC_OK) return status;
    oc_engine_commit(engine, ahead);
    return oc_step_finish(engine, 0, logits, stride, err);
}

const float *oc_engine_hidden(const oc_engine *engine, int64_t *width, int64_t *stride) {
    const oc_buffer *hidden = &engine->buffers[engine->hidden];
    *width = hidden->n;
    *stride = hidden->width;
    return engine->step.is_solo ? hidden->own[0].f32 : hidden->shared.f32;
}

void oc_mean_rows(const float *x, int64_t n, int64_t width, int64_t stride, float *mean) {
    enum { STRIP = 64 };
    for (int64_t at = 0; at < width; at += STRIP) {
        int64_t size = width - at < STRIP ? width - at : STRIP;
        double sum[STRIP] = {0};
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < size; i++) sum[i] += x[r * stride + at + i];
        for (int64_t i = 0; i < size; i++) mean[at + i] = (float)(sum[i] / (double)n);
    }
}

oc_logits oc_step_logits(const oc_engine *engine, int32_t row) {
    const oc_op *head = &engine->ops[engine->n_ops - 1];
    const oc_buffer *out = &engine->buffers[head->dst];
    int64_t n = engine->matrices[head->matrix].n_rows, runs = (n + OC_RUN - 1) / OC_RUN;
    return (oc_logits){out->shared.f32 + (int64_t)row * out->width, engine->maxima + row * runs, (int32_t)n};
}
