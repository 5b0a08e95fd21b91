/* mirostat.c - Mirostat (Basu et al., arXiv:2007.14966): candidates whose expected surprise stays at a target. The
 * limit mu starts at 2 tau and follows each token's surprise: mu -= eta * (surprise - tau); chain.c does that. */
#include <math.h>

#include "sampling/sampling.h"

enum { ESTIMATED = 100 }; /* best tokens from which version 1 estimates the exponent of Zipf's law */

/* The estimate s of the exponent: least squares over neighbours of the ranks, t = ln((i + 2) / (i + 1)) and
 * b = ln(p_i / p_(i+1)); s = sum(t b) / sum(t t). */
static double zipf_exponent(const oc_candidate *best, int32_t n, float temperature) {
    double products = 0, squares = 0;
    for (int32_t i = 0; i + 1 < n; i++) {
        double t = log((i + 2.0) / (i + 1.0));
        products += t * ((double)best[i].logit - best[i + 1].logit) / temperature;
        squares += t * t;
    }
    return products / squares;
}

/* Version 1: with e = s - 1 and N tokens, the k = ((e 2^mu) / (1 - N^-e))^(1/s) best ones. */
int32_t oc_keep_mirostat1(const oc_logits *logits, float temperature, double mu, oc_candidate *c) {
    int32_t n = oc_find_top(logits, -INFINITY, logits->n < ESTIMATED ? logits->n : ESTIMATED, c);
    oc_sort_candidates(c, n);
    double s = zipf_exponent(c, n, temperature), e = s - 1;
    double k = pow(e * exp2(mu) / (1 - pow(logits->n, -e)), 1 / s);
    if (k >= logits->n) return oc_find_all(logits, -INFINITY, c);
    if (n == 0) return 0;
    return oc_find_top(logits, -INFINITY, k >= 1 ? (int32_t)k : 1, c); /* not a number: one candidate, too */
}

/* Version 2: those whose surprise -log2 p is at most mu, and the best. */
int32_t oc_keep_mirostat2(const oc_logits *logits, float temperature, double mu, oc_candidate *c) {
    int32_t n = oc_find_all(logits, -INFINITY, c), kept = 0;
    double limit = oc_weigh(c, n, temperature) * exp2(-mu);
    for (int32_t i = 0; i < n; i++)
        if (c[i].weight >= limit) c[kept++] = c[i];
    return kept > 0 || n == 0 ? kept : oc_find_top(logits, -INFINITY, 1, c);
}
