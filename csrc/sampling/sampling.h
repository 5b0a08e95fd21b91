/* sampling.h - what the parts of the sampler share; nothing outside csrc/sampling sees it. */
#ifndef OC_SAMPLING_H
#define OC_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

#include "oc.h"

/* ---- candidates.c: the tokens still in the race ---- */

typedef struct oc_candidate {
    float key; /* what heaps order by; equal keys by id, so that every result is a function of the logits alone */
    float logit;
    float weight; /* probability times a common factor */
    int32_t id;
} oc_candidate;

/* Index of the first maximum; NaN never wins. */
int32_t oc_best_logit(const oc_logits *logits);
/* The k best logits above `floor`, in no useful order; returns their number. */
int32_t oc_find_top(const oc_logits *logits, float floor, int32_t k, oc_candidate *found);
int32_t oc_find_all(const oc_logits *logits, float floor, oc_candidate *found);
/* Keep the best by key until their weights reach `enough` (or exceed it, if `beyond`), at least one; best first. */
int32_t oc_take_best(oc_candidate *c, int32_t n, double enough, int beyond);
/* Best first, all of them. */
void oc_sort_candidates(oc_candidate *c, int32_t n);
float oc_highest_logit(const oc_candidate *c, int32_t n);
/* Weights e^((logit - highest) / temperature); returns their sum, at least 1. */
double oc_weigh(oc_candidate *c, int32_t n, float temperature);
/* Sum of e^(logit - highest) over the vocabulary, in a fixed order. */
double oc_total_weight(const oc_logits *logits, float highest);
/* How far a logit is below the highest: 0 for the highest even if it is infinite. */
static inline float oc_below(float logit, float highest) { return logit == highest ? 0.0f : logit - highest; }

/* ---- filters.c: each keeps the candidates it names and returns their number ---- */

int32_t oc_keep_typical(oc_candidate *c, int32_t n, float typical_p);
int32_t oc_keep_top_p(oc_candidate *c, int32_t n, float top_p);
int32_t oc_keep_min_p(oc_candidate *c, int32_t n, float min_p);
int32_t oc_keep_xtc(oc_candidate *c, int32_t n, float threshold);
/* The logit that candidates of top-n-sigma must exceed. */
float oc_sigma_floor(const oc_logits *logits, float n_sigma);

/* ---- mirostat.c ---- */

/* Candidates of Mirostat 1 and 2 at the surprise limit `mu`; `c` has room for the vocabulary. */
int32_t oc_keep_mirostat1(const oc_logits *logits, float temperature, double mu, oc_candidate *c);
int32_t oc_keep_mirostat2(const oc_logits *logits, float temperature, double mu, oc_candidate *c);

/* ---- edits.c: logits that are changed for one token, and put back ---- */

typedef struct oc_edit {
    int32_t id;
    float before;
} oc_edit;

typedef struct oc_edits {
    oc_edit *made;     /* (capacity) in order */
    int32_t count, capacity;
} oc_edits;

/* Room for `more` edits on top of what there is room for. */
oc_status oc_edits_grow(oc_edits *edits, int32_t more);
void oc_edit_logit(oc_edits *edits, const oc_logits *logits, int32_t id, float value);
void oc_undo_edits(oc_edits *edits, const oc_logits *logits);

/* ---- penalties.c: the window of recent tokens and its penalties ---- */

typedef struct oc_penalties oc_penalties;

oc_status oc_penalties_create(const oc_sampler_params *params, int32_t n_ctx, oc_edits *edits, oc_penalties **out);
void oc_penalties_destroy(oc_penalties *p); /* NULL is fine, here and below: the option is off */
void oc_penalties_accept(oc_penalties *p, int32_t token);
void oc_penalties_apply(const oc_penalties *p, oc_edits *edits, const oc_logits *logits);

/* ---- dry.c: penalties on what would prolong a repetition ---- */

typedef struct oc_dry oc_dry;

oc_status oc_dry_create(const oc_sampler_params *params, int32_t n_ctx, oc_edits *edits, oc_dry **out);
void oc_dry_destroy(oc_dry *dry);
void oc_dry_accept(oc_dry *dry, int32_t token);
void oc_dry_apply(oc_dry *dry, oc_edits *edits, const oc_logits *logits);

#endif
