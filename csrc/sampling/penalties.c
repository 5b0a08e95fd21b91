/* penalties.c - repeat, presence and frequency penalties on the tokens of a window, and on no others. */
#include <stdlib.h>

#include "sampling/sampling.h"

/* A token of the window and how often it stands there; a slot of a hash table with linear probing. */
typedef struct token_count {
    int32_t id;
    int32_t count; /* 0: free slot */
} token_count;

struct oc_penalties {
    float repeat, presence, frequency;
    int32_t *window; /* (size), a ring */
    int32_t size, used, at;
    token_count *counts; /* (mask + 1), a power of two at least twice size */
    uint32_t mask;
};

static uint32_t home(const oc_penalties *p, int32_t id) { return (uint32_t)id * 0x9E3779B1u >> 7 & p->mask; }

/* The slot of `id`, or the free slot where it would go. */
static token_count *slot_of(const oc_penalties *p, int32_t id) {
    uint32_t at = home(p, id);
    while (p->counts[at].count && p->counts[at].id != id) at = (at + 1) & p->mask;
    return &p->counts[at];
}

static void forget(oc_penalties *p, int32_t id) {
    token_count *slot = slot_of(p, id);
    if (--slot->count > 0) return;
    /* Close the gap: move back every later entry of the run whose home is not between the gap and itself. */
    uint32_t gap = (uint32_t)(slot - p->counts);
    for (uint32_t at = (gap + 1) & p->mask; p->counts[at].count; at = (at + 1) & p->mask) {
        uint32_t distance = (at - home(p, p->counts[at].id)) & p->mask;
        if (distance < ((at - gap) & p->mask)) continue;
        p->counts[gap] = p->counts[at];
        p->counts[at].count = 0;
        gap = at;
    }
}

void oc_penalties_accept(oc_penalties *p, int32_t token) {
    if (!p || token < 0) return;
    if (p->used == p->size)
        forget(p, p->window[p->at]);
    else
        p->used++;
    p->window[p->at] = token;
    p->at = (p->at + 1) % p->size;
    token_count *slot = slot_of(p, token);
    slot->id = token;
    slot->count++;
}

void oc_penalties_apply(const oc_penalties *p, oc_edits *edits, const oc_logits *logits) {
    if (!p || p->used == 0) return;
    for (uint32_t at = 0; at <= p->mask; at++) {
        const token_count *entry = &p->counts[at];
        if (entry->count == 0 || entry->id >= logits->n) continue;
        float logit = logits->values[entry->id];
        logit = logit > 0 ? logit / p->repeat : logit * p->repeat;
        logit -= (float)entry->count * p->frequency + p->presence;
        oc_edit_logit(edits, logits, entry->id, logit);
    }
}

oc_status oc_penalties_create(const oc_sampler_params *params, int32_t n_ctx, oc_edits *edits, oc_penalties **out) {
    *out = NULL;
    int is_off = params->repeat_penalty == 1 && params->presence_penalty == 0 && params->frequency_penalty == 0;
    int32_t size = params->repeat_last_n < 0 || params->repeat_last_n > n_ctx ? n_ctx : params->repeat_last_n;
    if (is_off || size == 0) return OC_OK;
    oc_penalties *p = calloc(1, sizeof *p);
    if (!p) return OC_ERR_NOMEM;
    p->repeat = params->repeat_penalty;
    p->presence = params->presence_penalty;
    p->frequency = params->frequency_penalty;
    p->size = size;
    while (p->mask + 1 < 2 * (uint32_t)size) p->mask = 2 * p->mask + 1;
    p->window = malloc((size_t)size * sizeof *p->window);
    p->counts = calloc((size_t)p->mask + 1, sizeof *p->counts);
    *out = p;
    return p->window && p->counts ? oc_edits_grow(edits, size) : OC_ERR_NOMEM;
}

void oc_penalties_destroy(oc_penalties *p) {
    if (!p) return;
    free(p->window);
    free(p->counts);
    free(p);
}
