/* state.c - the pool of recurrent states: what the plan of a sequence carries from position to position beside
 * keys and values, a fixed number of floats.
 *
 * A sequence has two. A step reads one and writes the other, so that a step that is cancelled has changed
 * nothing. Further ones are copies for a prefix cache: of a state, unlike of keys and values, no shorter prefix
 * can be had.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

oc_status oc_states_init(oc_states *states, const oc_engine_params *params) {
    if (params->state_size == 0) return OC_OK;
    states->n = states->n_free = 2 * (int64_t)params->n_sequences + params->n_saved;
    states->bytes = oc_arena_round((size_t)params->state_size * sizeof(float));
    size_t total;
    if (__builtin_mul_overflow(states->bytes, (size_t)states->n, &total)) return OC_ERR_NOMEM;
    states->free = malloc((size_t)states->n * sizeof *states->free);
    if (!states->free || oc_arena_map(&states->arena, total) != 0) return OC_ERR_NOMEM;
    for (int64_t i = 0; i < states->n; i++) states->free[i] = (int32_t)(states->n - 1 - i);
    return OC_OK;
}

void oc_states_free(oc_states *states) {
    free(states->free);
    oc_arena_unmap(&states->arena);
}

oc_status oc_seq_take_states(oc_seq *seq) {
    oc_states *states = &seq->engine->states;
    seq->state = seq->next = -1;
    if (!states->free) return OC_OK;
    if (states->n_free - (seq->engine->params.n_saved - states->n_saved) < 2) return OC_ERR_FULL;
    seq->state = states->free[--states->n_free];
    seq->next = states->free[--states->n_free];
    return OC_OK;
}

void oc_seq_give_states(oc_seq *seq) {
    if (seq->state < 0) return;
    oc_states *states = &seq->engine->states;
    states->free[states->n_free++] = seq->next;
    states->free[states->n_free++] = seq->state;
}

void oc_seq_begin_state(oc_seq *seq) {
    if (seq->state < 0 || seq->length > 0) return;
    memset(oc_state_at(seq->engine, seq->state), 0, seq->engine->states.bytes);
}

void oc_seq_commit_state(oc_seq *seq) {
    int32_t read = seq->state;
    seq->state = seq->next;
    seq->next = read;
}

oc_status oc_seq_save(const oc_seq *seq, int32_t *state) {
    oc_states *states = &seq->engine->states;
    if (seq->state < 0 || seq->length == 0) return OC_ERR_ARGUMENT;
    if (states->n_saved == seq->engine->params.n_saved) return OC_ERR_FULL;
    states->n_saved++;
    *state = states->free[--states->n_free];
    memcpy(oc_state_at(seq->engine, *state), oc_state_at(seq->engine, seq->state), states->bytes);
    return OC_OK;
}

void oc_state_release(oc_engine *engine, int32_t state) {
    engine->states.n_saved--;
    engine->states.free[engine->states.n_free++] = state;
}
