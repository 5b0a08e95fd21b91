/* chain.c - from logits to a token, in the order of llama.cpp's default chain: mask -> logit bias -> penalties -> DRY
 * -> top-n-sigma -> top_k -> typical_p -> top_p -> min_p -> XTC -> temperature -> draw. Mirostat takes the place of
 * everything between DRY and the draw but the temperature, which comes before it. A temperature of 0 or less takes the
 * best logit after DRY.
 *
 * Only the logits of tokens that bias, penalties or DRY name are touched, and they are put back.
 *
 * Random numbers: xoshiro256++ (Blackman and Vigna), its four words the first outputs of splitmix64 started at the
 * seed. A draw takes one output and uses its upper 53 bits as a uniform number u = bits * 2^-53 in [0, 1); the token is
 * the first candidate whose running sum of weights exceeds u times their total. Where XTC is on and two candidates or
 * more have come so far, it draws first: it acts if its u is below its probability.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "sampling/sampling.h"

struct oc_sampler {
    oc_sampler_params params; /* without what it borrowed */
    uint64_t random[4];
    double mu; /* Mirostat's limit of surprise */
    oc_bias *bias; /* (params.n_bias) */
    oc_penalties *penalties;
    oc_dry *dry;
    oc_edits edits;
    oc_candidate *candidates; /* (capacity) */
    int32_t capacity;
    float *masked; /* (masked_size) logits with those that are not allowed at -infinity, then their maxima */
    int32_t masked_size;
};

/* ---- random numbers ---- */

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static double uniform(uint64_t *s) {
    uint64_t result = rotate(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* ---- the chain ---- */

static int is_greedy(const oc_sampler *s) { return !(s->params.temperature > 0); }

/* What the chain leaves to draw from. */
typedef struct choice {
    int32_t n;
    double total; /* of the weights */
} choice;

/* Room for the candidates of the first scan. */
static oc_status reserve(oc_sampler *s, int32_t n_vocab) {
    int32_t top_k = s->params.top_k, need = top_k > 0 && top_k < n_vocab && !s->params.mirostat ? top_k : n_vocab;
    need = is_greedy(s) ? 1 : need;
    if (need <= s->capacity) return OC_OK;
    oc_candidate *grown = realloc(s->candidates, (size_t)need * sizeof *grown);
    if (!grown) return OC_ERR_NOMEM;
    s->candidates = grown;
    s->capacity = need;
    return OC_OK;
}

static int is_allowed(const uint32_t *allowed, int32_t id) { return allowed[id / 32] >> (id % 32) & 1; }

/* 32 logits, those whose bits are not set at -infinity; by their bits, which compilers turn into vectors. */
static void mask_word(const float *values, uint32_t allowed, float *out) {
    static const uint32_t bit[32] = {
        1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,  1u << 8,  1u << 9,  1u << 10,
        1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15, 1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21,
        1u << 22, 1u << 23, 1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};
    const float lowest = -INFINITY;
    uint32_t words[32], none;
    memcpy(&none, &lowest, sizeof none);
    memcpy(words, values, sizeof words);
    for (int i = 0; i < 32; i++) {
        uint32_t keep = (allowed & bit[i]) == bit[i] ? UINT32_MAX : 0;
        words[i] = (words[i] & keep) | (none & ~keep);
    }
    memcpy(out, words, sizeof words);
}

/* A copy of the logits in which nothing but what is allowed is above -infinity. */
static oc_status mask(oc_sampler *s, oc_logits *logits, const uint32_t *allowed) {
    int32_t n = logits->n;
    if (n > s->masked_size) {
        float *grown = realloc(s->masked, ((size_t)n + (size_t)(n + OC_RUN - 1) / OC_RUN) * sizeof *grown);
        if (!grown) return OC_ERR_NOMEM;
        s->masked = grown;
        s->masked_size = n;
    }
    int32_t whole = n / 32;
    for (int32_t word = 0; word < whole; word++)
        mask_word(logits->values + 32 * (size_t)word, allowed[word], s->masked + 32 * (size_t)word);
    for (int32_t i = 32 * whole; i < n; i++) s->masked[i] = is_allowed(allowed, i) ? logits->values[i] : -INFINITY;
    oc_kernels.maxima(s->masked, n, s->masked + n);
    *logits = (oc_logits){s->masked, s->masked + n, n};
    return OC_OK;
}

static void edit(oc_sampler *s, const oc_logits *logits) {
    for (int32_t i = 0; i < s->params.n_bias; i++) {
        const oc_bias *bias = &s->bias[i];
        if (bias->token >= 0 && bias->token < logits->n)
            oc_edit_logit(&s->edits, logits, bias->token, logits->values[bias->token] + bias->bias);
    }
    oc_penalties_apply(s->penalties, &s->edits, logits);
    oc_dry_apply(s->dry, &s->edits, logits);
}

static int32_t truncate(oc_sampler *s, const oc_logits *logits, uint64_t *random) {
    const oc_sampler_params *p = &s->params;
    oc_candidate *c = s->candidates;
    if (p->mirostat == 1) return oc_keep_mirostat1(logits, p->temperature, s->mu, c);
    if (p->mirostat == 2) return oc_keep_mirostat2(logits, p->temperature, s->mu, c);
    float floor = p->top_n_sigma > 0 ? oc_sigma_floor(logits, p->top_n_sigma) : -INFINITY;
    int32_t n = p->top_k > 0 && p->top_k < logits->n ? oc_find_top(logits, floor, p->top_k, c)
                                                     : oc_find_all(logits, floor, c);
    if (n > 0 && p->typical_p < 1) n = oc_keep_typical(c, n, p->typical_p);
    if (n > 0 && p->top_p < 1) n = oc_keep_top_p(c, n, p->top_p);
    if (n > 0 && p->min_p > 0) n = oc_keep_min_p(c, n, p->min_p);
    int has_xtc = p->xtc_probability > 0 && p->xtc_threshold <= 0.5f;
    if (n > 1 && has_xtc && uniform(random) < p->xtc_probability) n = oc_keep_xtc(c, n, p->xtc_threshold);
    return n;
}

/* The best logit; where all are at -infinity or NaN, one that is allowed. */
static int32_t best(const oc_logits *logits, const uint32_t *allowed) {
    int32_t id = oc_best_logit(logits);
    if (!allowed || is_allowed(allowed, id)) return id;
    for (id = 0; id < logits->n; id++)
        if (is_allowed(allowed, id)) return id;
    return -1;
}

/* Everything before the draw; fills s->candidates. */
static oc_status prepare(oc_sampler *s, oc_logits logits, const uint32_t *allowed, uint64_t *random, choice *out) {
    if (logits.n < 1) return OC_ERR_ARGUMENT;
    oc_status status = reserve(s, logits.n);
    if (status == OC_OK && allowed) status = mask(s, &logits, allowed);
    if (status != OC_OK) return status;
    edit(s, &logits);
    int32_t n = is_greedy(s) ? 0 : truncate(s, &logits, random), id = n == 0 ? best(&logits, allowed) : 0;
    if (n == 0) s->candidates[0] = (oc_candidate){0, 0, 1.0f, id};
    *out = n == 0 ? (choice){1, 1.0} : (choice){n, oc_weigh(s->candidates, n, s->params.temperature)};
    oc_undo_edits(&s->edits, &logits);
    return id < 0 ? OC_ERR_ARGUMENT : OC_OK;
}

oc_status oc_sampler_candidates(oc_sampler *s, const oc_logits *logits, const uint32_t *allowed, int32_t capacity,
                                int32_t *ids, float *probs, int32_t *n) {
    choice left = {0};
    uint64_t random[4] = {s->random[0], s->random[1], s->random[2], s->random[3]};
    oc_status status = prepare(s, *logits, allowed, random, &left);
    *n = left.n;
    for (int32_t i = 0; status == OC_OK && i < left.n && i < capacity; i++) {
        ids[i] = s->candidates[i].id;
        probs[i] = (float)(s->candidates[i].weight / left.total);
    }
    return status;
}

oc_status oc_sampler_sample(oc_sampler *s, const oc_logits *logits, const uint32_t *allowed, int32_t *token) {
    double sum = 0;
    int32_t chosen = 0;
    choice left;
    oc_status status = prepare(s, *logits, allowed, s->random, &left);
    if (status != OC_OK) return status;
    double target = is_greedy(s) ? 0 : uniform(s->random) * left.total;
    for (int32_t i = 0; i < left.n && sum <= target; i++) {
        sum += s->candidates[i].weight;
        if (s->candidates[i].weight > 0) chosen = i;
    }
    const oc_candidate *taken = &s->candidates[chosen];
    s->mu -= s->params.mirostat_eta * (-log2(taken->weight / left.total) - s->params.mirostat_tau);
    *token = taken->id;
    return OC_OK;
}

void oc_sampler_accept(oc_sampler *s, int32_t token) {
    oc_penalties_accept(s->penalties, token);
    oc_dry_accept(s->dry, token);
}

/* ---- life ---- */

static oc_status copy_bias(oc_sampler *s, const oc_sampler_params *params) {
    if (params->n_bias == 0) return OC_OK;
    s->bias = malloc((size_t)params->n_bias * sizeof *s->bias);
    if (!s->bias) return OC_ERR_NOMEM;
    for (int32_t i = 0; i < params->n_bias; i++) s->bias[i] = params->bias[i];
    return oc_edits_grow(&s->edits, params->n_bias);
}

static oc_status fill(oc_sampler *s, const oc_sampler_params *params, int32_t n_ctx) {
    oc_status status = copy_bias(s, params);
    if (status == OC_OK) status = oc_penalties_create(params, n_ctx, &s->edits, &s->penalties);
    if (status == OC_OK) status = oc_dry_create(params, n_ctx, &s->edits, &s->dry);
    return status;
}

oc_status oc_sampler_create(const oc_sampler_params *params, int32_t n_ctx, oc_sampler **sampler) {
    *sampler = NULL;
    if (n_ctx < 1 || n_ctx > 1 << 28 || params->n_bias < 0 || params->n_breakers < 0) return OC_ERR_ARGUMENT;
    oc_sampler *s = calloc(1, sizeof *s);
    if (!s) return OC_ERR_NOMEM;
    s->params = *params;
    s->params.bias = NULL;
    s->params.breakers = NULL;
    s->mu = 2.0 * params->mirostat_tau;
    uint64_t state = params->seed;
    for (int i = 0; i < 4; i++) s->random[i] = splitmix(&state);
    oc_status status = fill(s, params, n_ctx);
    if (status == OC_OK)
        *sampler = s;
    else
        oc_sampler_destroy(s);
    return status;
}

void oc_sampler_destroy(oc_sampler *s) {
    if (!s) return;
    oc_penalties_destroy(s->penalties);
    oc_dry_destroy(s->dry);
    free(s->bias);
    free(s->edits.made);
    free(s->candidates);
    free(s->masked);
    free(s);
}
