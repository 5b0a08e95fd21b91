/* edits.c - changes of single logits, with the maxima of their runs kept right, and their undoing. */
#include <stdlib.h>

#include "kernels/kernels.h"
#include "sampling/sampling.h"

void oc_fill_maxima(const oc_logits *logits) { oc_kernels.maxima(logits->values, logits->n, logits->maxima); }

oc_status oc_edits_grow(oc_edits *edits, int32_t more) {
    int32_t capacity;
    if (__builtin_add_overflow(edits->capacity, more, &capacity)) return OC_ERR_ARGUMENT;
    if (capacity == 0) return OC_OK;
    oc_edit *grown = realloc(edits->made, (size_t)capacity * sizeof *grown);
    if (!grown) return OC_ERR_NOMEM;
    edits->made = grown;
    edits->capacity = capacity;
    return OC_OK;
}

static void set(const oc_logits *logits, int32_t id, float value) {
    float before = logits->values[id], *maximum = &logits->maxima[id / OC_RUN];
    logits->values[id] = value;
    if (before < *maximum && value <= *maximum) return;
    int32_t first = id / OC_RUN * OC_RUN, n = logits->n - first;
    oc_kernels.maxima(logits->values + first, n < OC_RUN ? n : OC_RUN, maximum);
}

void oc_edit_logit(oc_edits *edits, const oc_logits *logits, int32_t id, float value) {
    edits->made[edits->count++] = (oc_edit){id, logits->values[id]};
    set(logits, id, value);
}

void oc_undo_edits(oc_edits *edits, const oc_logits *logits) {
    while (edits->count > 0) {
        const oc_edit *last = &edits->made[--edits->count];
        set(logits, last->id, last->before);
    }
}
