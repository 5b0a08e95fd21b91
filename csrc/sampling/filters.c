/* filters.c - the truncating samplers. Candidates come in any order; ties go to the lower id. */
#include <math.h>

#include "sampling/sampling.h"

/* Locally typical sampling (Meister et al., arXiv:2202.00666): those whose surprise -ln p is closest to the entropy.
 * With d = logit - highest both share ln(sum of weights), so the distance is |d - mean of d|. */
int32_t oc_keep_typical(oc_candidate *c, int32_t n, float typical_p) {
    double total = oc_weigh(c, n, 1.0f), mean = 0;
    float highest = oc_highest_logit(c, n);
    for (int32_t i = 0; i < n; i++)
        if (c[i].weight > 0) mean += c[i].weight * (double)oc_below(c[i].logit, highest);
    mean /= total;
    for (int32_t i = 0; i < n; i++) c[i].key = -fabsf(oc_below(c[i].logit, highest) - (float)mean);
    n = oc_take_best(c, n, (double)typical_p * total, 1);
    for (int32_t i = 0; i < n; i++) c[i].key = c[i].logit;
    return n;
}

/* Nucleus sampling (Holtzman et al., arXiv:1904.09751). Those that weigh less than an equal share of what top_p leaves
 * out cannot be in the nucleus, even all together: dropping them first keeps the heap small. */
int32_t oc_keep_top_p(oc_candidate *c, int32_t n, float top_p) {
    double total = oc_weigh(c, n, 1.0f), share = 0.5 * (1.0 - (double)top_p) * total / n;
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (c[i].weight >= share || c[i].weight == 1) c[kept++] = c[i];
    return oc_take_best(c, kept, (double)top_p * total, 0);
}

/* min-p (arXiv:2407.01082): those at least min_p times as probable as the best, and the best. */
int32_t oc_keep_min_p(oc_candidate *c, int32_t n, float min_p) {
    float lowest = oc_highest_logit(c, n) + logf(min_p);
    int32_t kept = 0, best = 0;
    for (int32_t i = 1; i < n; i++)
        if (c[i].key > c[best].key || (c[i].key == c[best].key && c[i].id < c[best].id)) best = i;
    for (int32_t i = 0; i < n; i++)
        if (c[i].logit >= lowest || i == best) c[kept++] = c[i];
    return kept;
}

/* Exclude top choices (llama.cpp pull request 9742): of those with p >= threshold all go but the least probable, of
 * equal ones that with the highest id; fewer than two of them, and nothing goes. */
int32_t oc_keep_xtc(oc_candidate *c, int32_t n, float threshold) {
    double limit = (double)threshold * oc_weigh(c, n, 1.0f);
    int32_t last = -1, above = 0, kept = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!(c[i].weight >= limit)) continue;
        above++;
        if (last < 0 || c[i].logit < c[last].logit || (c[i].logit == c[last].logit && c[i].id > c[last].id)) last = i;
    }
    if (above < 2) return n;
    for (int32_t i = 0; i < n; i++)
        if (!(c[i].weight >= limit) || i == last) c[kept++] = c[i];
    return kept;
}

/* Top-n-sigma (arXiv:2411.07641): logits within n standard deviations of the highest, those at -infinity not counted.
 * One at +infinity leaves no deviation; then only the highest stay. */
float oc_sigma_floor(const oc_logits *logits, float n_sigma) {
    double sum = 0, squares = 0;
    int32_t count = 0;
    float highest = -INFINITY;
    for (int32_t i = 0; i < logits->n; i++) {
        if (!(logits->values[i] > -INFINITY)) continue;
        sum += logits->values[i];
        count++;
        highest = logits->values[i] > highest ? logits->values[i] : highest;
    }
    double mean = sum / count;
    for (int32_t i = 0; i < logits->n; i++) {
        double distance = logits->values[i] - mean;
        if (logits->values[i] > -INFINITY) squares += distance * distance;
    }
    float lowest = highest - n_sigma * (float)sqrt(squares / count);
    return nextafterf(lowest <= highest ? lowest : highest, -INFINITY);
}
