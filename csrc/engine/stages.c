/* stages.c - a prompt chunk that is computed over several steps, some stages of the plan in each.
 *
 * Streams take a token in every step, so a step beside them has room for few prompt tokens; but as few as these read
 * all keys in front of them. A chunk of many that passes through some layers only takes as long and reads the keys of
 * those.
 * Between two steps it stands in its columns of the buffers, behind those of the streams.
 */
#include <string.h>

#include "engine/engine.h"

/* The op behind stage `stage`. */
static const oc_op *stage_end(const oc_engine *engine, int32_t stage) {
    const oc_op *op = engine->ops, *end = op + engine->n_ops;
    if (stage == engine->n_stages - 1) return end;
    for (; op < end; op++)
        if (op->kind == OC_OP_ATTENTION && stage-- == 0) return op + 1;
    return end;
}

int32_t oc_engine_stages(const oc_engine *engine) { return engine->n_stages; }

int32_t oc_seq_staged(const oc_seq *seq, int32_t *end_stage) {
    const oc_staged *staged = &seq->engine->step.staged;
    if (staged->seq != seq) return 0;
    *end_stage = staged->stage;
    return staged->n_tokens;
}

oc_status oc_stages_check(const oc_engine *engine, const oc_batch_item *items, int32_t n_items, char *err) {
    const oc_batch_item *last = &items[n_items - 1];
    for (int32_t i = 0; i < n_items - 1; i++)
        if (items[i].end_stage != 0) return oc_fail(OC_ERR_ARGUMENT, err, "only the last item may have an end stage", 0, 0);
    if (last->end_stage < 0 || last->end_stage > engine->n_stages)
        return oc_fail(OC_ERR_ARGUMENT, err, "end stage %a of %b stages", last->end_stage, engine->n_stages);
    if (last->end_stage > 0 && last->end_stage < engine->n_stages && last->n_outputs > 0)
        return oc_fail(OC_ERR_ARGUMENT, err, "outputs before the last stage", 0, 0);
    return OC_OK;
}

/* Whether a step goes on with an item: the columns still have its tokens and positions. */
static int is_staged(const oc_step_state *step, const oc_batch_item *item) {
    const oc_staged *staged = &step->staged;
    return staged->seq == item->seq && staged->n_tokens == item->n_tokens &&
           (item->end_stage == 0 || item->end_stage >= staged->stage) &&
           step->position[staged->column] == item->seq->length &&
           memcmp(step->token + staged->column, item->tokens, (size_t)item->n_tokens * sizeof *item->tokens) == 0;
}

static void move(void *base, int64_t from, int64_t to, int64_t n, size_t bytes) {
    if (base) memmove((char *)base + (size_t)to * bytes, (char *)base + (size_t)from * bytes, (size_t)n * bytes);
}

static void move_columns(oc_engine *engine, int64_t from, int64_t to, int64_t n) {
    for (int32_t i = 0; i < engine->n_buffers; i++) {
        const oc_buffer *b = &engine->buffers[i];
        const size_t width = (size_t)b->width;
        if (b->is_output) continue;
        move(b->shared.f32, from, to, n, width * sizeof(float));
        move(b->shared.codes, from, to, n, width);
        move(b->shared.scale, from, to, n, width / OC_ACT_BLOCK * sizeof(float));
        move(b->shared.sum, from, to, n, width / OC_TILE * sizeof(float));
    }
    for (int32_t i = 0; i < engine->n_ropes; i++) {
        const size_t bytes = (size_t)engine->ropes[i].n_freq * sizeof(float);
        move(engine->ropes[i].cos, from, to, n, bytes);
        move(engine->ropes[i].sin, from, to, n, bytes);
    }
}

void oc_stages_begin(oc_engine *engine, const oc_batch_item *items, int32_t n_items) {
    oc_step_state *step = &engine->step;
    const oc_batch_item *last = &items[n_items - 1];
    const int32_t end_stage = last->end_stage > 0 ? last->end_stage : engine->n_stages;
    const oc_staged was = step->staged;
    const int goes_on = is_staged(step, last);
    int32_t column = 0;
    for (int32_t i = 0; i < n_items - 1; i++) column += items[i].n_tokens;
    if (goes_on && was.column != column) move_columns(engine, was.column, column, was.n_tokens);
    if (was.seq && !goes_on) oc_seq_truncate(was.seq, was.seq->length);
    step->staged_begin = goes_on ? stage_end(engine, was.stage - 1) : engine->ops;
    step->staged_end = stage_end(engine, end_stage - 1);
    step->staged = (oc_staged){.seq = end_stage < engine->n_stages ? last->seq : NULL,
                               .n_tokens = last->n_tokens, .column = column, .stage = end_stage};
}

void oc_stages_forget(const oc_seq *seq) {
    oc_staged *staged = &seq->engine->step.staged;
    if (staged->seq == seq) staged->seq = NULL;
}
