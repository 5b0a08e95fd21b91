/* logprobs.c - log-probabilities over the whole vocabulary. */
#include <math.h>

#include "sampling/sampling.h"

static float floored(double logprob) { return logprob > -9999 ? (float)logprob : -9999.0f; }

int32_t oc_logprobs(const oc_logits *logits, int32_t token, int32_t n_top, float *logprob, int32_t *top_ids,
                    float *top_logprobs) {
    oc_candidate top[OC_MAX_TOP_LOGPROBS];
    float highest = logits->values[oc_best_logit(logits)];
    double log_total = log(oc_total_weight(logits, highest));
    *logprob = floored((double)oc_below(logits->values[token], highest) - log_total);

    n_top = n_top < OC_MAX_TOP_LOGPROBS ? n_top : OC_MAX_TOP_LOGPROBS;
    int32_t n = n_top > 0 ? oc_find_top(logits, -INFINITY, n_top, top) : 0;
    oc_sort_candidates(top, n);
    for (int32_t i = 0; i < n; i++) {
        top_ids[i] = top[i].id;
        top_logprobs[i] = floored((double)oc_below(top[i].logit, highest) - log_total);
    }
    return n;
}
