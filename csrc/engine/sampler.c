/* sampler.c - from logits to a token: penalties -> top_k -> typical_p -> top_p -> min_p -> temperature ->
 * draw, the order of llama.cpp's default chain; and log-probabilities.
 *
 * No step sorts the vocabulary. top_k is one scan against the worst of the best k so far; typical_p and top_p
 * take candidates off a heap until they have enough; an exponential over the vocabulary is computed only if
 * top_k is off. Candidates are ordered by key, equal keys by id, so every result is a function of the logits
 * alone.
 *
 * Random numbers: xoshiro256++ (Blackman and Vigna), its four words the first outputs of splitmix64 started
 * at the seed. A draw takes one output and uses its upper 53 bits as a uniform number u = bits * 2^-53 in [0,
 * 1); the token is the first candidate whose running sum of weights exceeds u times their total.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/vecmath.h"
#include "oc.h"

typedef struct candidate {
    float key; /* what the heap orders by */
    float logit;
    float weight; /* probability times a common factor */
    int32_t id;
} candidate;

/* A token of the penalty window and how often it stands there; a slot of a hash table with linear probing. */
typedef struct token_count {
    int32_t id;
    int32_t count; /* 0: free slot */
} token_count;

struct oc_sampler {
    oc_sampler_params params;
    uint64_t random[4];
    candidate *candidates; /* (capacity) */
    int32_t capacity;
    int32_t *window; /* (window_size), a ring */
    int32_t window_size, window_used, window_at;
    token_count *counts; /* (mask + 1), a power of two at least twice window_size */
    uint32_t mask;
    float *saved; /* (mask + 1): logits before the penalties, by slot of counts */
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

/* ---- penalty window ---- */

static uint32_t home(const oc_sampler *s, int32_t id) { return (uint32_t)id * 0x9E3779B1u >> 7 & s->mask; }

/* The slot of `id`, or the free slot where it would go. */
static token_count *slot_of(const oc_sampler *s, int32_t id) {
    uint32_t at = home(s, id);
    while (s->counts[at].count && s->counts[at].id != id) at = (at + 1) & s->mask;
    return &s->counts[at];
}

static void forget(oc_sampler *s, int32_t id) {
    token_count *slot = slot_of(s, id);
    if (--slot->count > 0) return;
    /* Close the gap: move back every later entry of the run whose home is not between the gap and itself. */
    uint32_t gap = (uint32_t)(slot - s->counts);
    for (uint32_t at = (gap + 1) & s->mask; s->counts[at].count; at = (at + 1) & s->mask) {
        uint32_t distance = (at - home(s, s->counts[at].id)) & s->mask;
        if (distance < ((at - gap) & s->mask)) continue;
        s->counts[gap] = s->counts[at];
        s->counts[at].count = 0;
        gap = at;
    }
}

void oc_sampler_accept(oc_sampler *s, int32_t token) {
    if (s->window_size == 0 || token < 0) return;
    if (s->window_used == s->window_size)
        forget(s, s->window[s->window_at]);
    else
        s->window_used++;
    s->window[s->window_at] = token;
    s->window_at = (s->window_at + 1) % s->window_size;
    token_count *slot = slot_of(s, token);
    slot->id = token;
    slot->count++;
}

/* Whether slot `at` holds a token that has a logit. */
static int is_penalised(const oc_sampler *s, uint32_t at, int32_t n_vocab) {
    return s->counts[at].count && s->counts[at].id < n_vocab;
}

static void penalise(oc_sampler *s, float *logits, int32_t n_vocab) {
    const oc_sampler_params *p = &s->params;
    for (uint32_t at = 0; s->window_used && at <= s->mask; at++) {
        if (!is_penalised(s, at, n_vocab)) continue;
        float *logit = &logits[s->counts[at].id];
        s->saved[at] = *logit;
        *logit = *logit > 0 ? *logit / p->repeat_penalty : *logit * p->repeat_penalty;
        *logit -= (float)s->counts[at].count * p->frequency_penalty + p->presence_penalty;
    }
}

static void restore(const oc_sampler *s, float *logits, int32_t n_vocab) {
    for (uint32_t at = 0; s->window_used && at <= s->mask; at++)
        if (is_penalised(s, at, n_vocab)) logits[s->counts[at].id] = s->saved[at];
}

/* ---- candidates ---- */

static int better(candidate a, candidate b) { return a.key > b.key || (a.key == b.key && a.id < b.id); }

/* Sink the element at `at` of a heap of n whose root is the worst (sign < 0) or the best (sign > 0). */
static void sink(candidate *heap, int32_t n, int32_t at, int sign) {
    candidate moving = heap[at];
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && better(heap[child + 1], heap[child]) == (sign > 0)) child++;
        if (better(moving, heap[child]) == (sign > 0)) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void heapify(candidate *heap, int32_t n, int sign) {
    for (int32_t at = n / 2 - 1; at >= 0; at--) sink(heap, n, at, sign);
}

enum { LANES = 8, STEP = 32 };
typedef float float4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));

/* Whether one of STEP values is above `floor`; vectors by the compiler's extension, as no loop shape makes it
 * use them. */
static int any_above(const float *x, float floor) {
    float4 limit = {floor, floor, floor, floor};
    int4 above = {0};
    for (int32_t i = 0; i < STEP; i += 4) {
        float4 values;
        memcpy(&values, x + i, sizeof values);
        above |= values > limit;
    }
    uint64_t halves[2];
    memcpy(halves, &above, sizeof halves);
    return (halves[0] | halves[1]) != 0;
}

/* The k best logits above -infinity, in no useful order; returns their number. */
static int32_t find_top(const float *logits, int32_t n, int32_t k, candidate *found) {
    float floor = -INFINITY;
    int32_t count = 0;
    for (int32_t start = 0; start < n; start += STEP) {
        int32_t end = start + STEP < n ? start + STEP : n;
        if (end - start == STEP && !any_above(logits + start, floor)) continue;
        for (int32_t i = start; i < end; i++) {
            if (!(logits[i] > floor)) continue;
            candidate new = {logits[i], logits[i], 0, i};
            if (count < k) {
                found[count++] = new;
                if (count < k) continue;
                heapify(found, k, -1);
            } else {
                found[0] = new;
                sink(found, k, 0, -1);
            }
            floor = found[0].key;
        }
    }
    return count;
}

static int32_t find_all(const float *logits, int32_t n, candidate *found) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY) found[count++] = (candidate){logits[i], logits[i], 0, i};
    return count;
}

static float highest_logit(const candidate *c, int32_t n) {
    float max = -INFINITY;
    for (int32_t i = 0; i < n; i++) max = c[i].logit > max ? c[i].logit : max;
    return max;
}

/* How far a logit is below the highest: 0 for the highest even if it is infinite. */
static float below(float logit, float max) { return logit == max ? 0.0f : logit - max; }

/* Replace n values, at most BLOCK, by e^value; NaN by 0. A function of its own, so that the loop is
 * vectorised. */
enum { BLOCK = 64 };
static void exponentials(float *x, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        float y = oc_expf(x[i]);
        x[i] = y > 0 ? y : 0.0f;
    }
}

/* Weights e^((logit - max) / temperature); returns their sum, at least 1. */
static double weigh(candidate *c, int32_t n, float temperature) {
    float max = highest_logit(c, n), weight[BLOCK];
    double total = 0;
    for (int32_t start = 0; start < n; start += BLOCK) {
        int32_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int32_t i = 0; i < count; i++) {
            float drop = below(c[start + i].logit, max);
            weight[i] = drop == 0 ? 0.0f : drop / temperature; /* infinity / infinity is NaN */
        }
        exponentials(weight, count);
        for (int32_t i = 0; i < count; i++) total += c[start + i].weight = weight[i];
    }
    return total;
}

/* Keep the best by key until their weights reach `enough` (or exceed it, if `beyond`), at least one; best
 * first. */
static int32_t take(candidate *c, int32_t n, double enough, int beyond) {
    double sum = 0;
    int32_t kept = 0;
    heapify(c, n, 1);
    while (kept < n && (kept == 0 || (beyond ? sum <= enough : sum < enough))) {
        candidate best = c[0];
        sum += best.weight;
        kept++;
        c[0] = c[n - kept];
        sink(c, n - kept, 0, 1);
        c[n - kept] = best; /* taken ones collect at the end, backwards */
    }
    memmove(c, c + n - kept, (size_t)kept * sizeof *c);
    for (int32_t i = 0, j = kept - 1; i < j; i++, j--) {
        candidate swap = c[i];
        c[i] = c[j];
        c[j] = swap;
    }
    return kept;
}

/* Locally typical sampling: those whose surprise -ln p is closest to the entropy. With d = logit - max both
 * share ln(sum of weights), so the distance is |d - mean of d|. */
static int32_t keep_typical(candidate *c, int32_t n, float typical_p) {
    double total = weigh(c, n, 1.0f), mean = 0;
    float max = highest_logit(c, n);
    for (int32_t i = 0; i < n; i++)
        if (c[i].weight > 0) mean += c[i].weight * (double)below(c[i].logit, max);
    mean /= total;
    for (int32_t i = 0; i < n; i++) c[i].key = -fabsf(below(c[i].logit, max) - (float)mean);
    n = take(c, n, (double)typical_p * total, 1);
    for (int32_t i = 0; i < n; i++) c[i].key = c[i].logit;
    return n;
}

/* Nucleus sampling. Those that weigh less than an equal share of what top_p leaves out cannot be in the
 * nucleus, even all together: dropping them first keeps the heap small. */
static int32_t keep_top_p(candidate *c, int32_t n, float top_p) {
    double total = weigh(c, n, 1.0f), share = 0.5 * (1.0 - (double)top_p) * total / n;
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (c[i].weight >= share || c[i].weight == 1) c[kept++] = c[i];
    return take(c, kept, (double)top_p * total, 0);
}

static int32_t keep_min_p(candidate *c, int32_t n, float min_p) {
    float lowest = highest_logit(c, n) + logf(min_p);
    int32_t kept = 0, best = 0;
    for (int32_t i = 1; i < n; i++)
        if (better(c[i], c[best])) best = i;
    for (int32_t i = 0; i < n; i++)
        if (c[i].logit >= lowest || i == best) c[kept++] = c[i];
    return kept;
}

static int is_greedy(const oc_sampler *s) { return !(s->params.temperature > 0); }

/* Room for the candidates of the first scan. */
static oc_status reserve(oc_sampler *s, int32_t n_vocab) {
    int32_t top_k = s->params.top_k, need = top_k > 0 && top_k < n_vocab ? top_k : n_vocab;
    need = is_greedy(s) ? 1 : need;
    if (need <= s->capacity) return OC_OK;
    candidate *grown = realloc(s->candidates, (size_t)need * sizeof *grown);
    if (!grown) return OC_ERR_NOMEM;
    s->candidates = grown;
    s->capacity = need;
    return OC_OK;
}

/* Fill s->candidates with what the chain leaves; *total is the sum of their weights. */
static int32_t filter(oc_sampler *s, const float *logits, int32_t n_vocab, double *total) {
    const oc_sampler_params *p = &s->params;
    candidate *c = s->candidates;
    int32_t n = 0;
    if (!is_greedy(s))
        n = p->top_k > 0 && p->top_k < n_vocab ? find_top(logits, n_vocab, p->top_k, c)
                                               : find_all(logits, n_vocab, c);
    if (n == 0) {
        c[0] = (candidate){0, 0, 1.0f, (int32_t)oc_kernels.argmax(logits, n_vocab)};
        *total = 1;
        return 1;
    }
    if (p->typical_p < 1) n = keep_typical(c, n, p->typical_p);
    if (p->top_p < 1) n = keep_top_p(c, n, p->top_p);
    if (p->min_p > 0) n = keep_min_p(c, n, p->min_p);
    *total = weigh(c, n, p->temperature);
    return n;
}

/* The whole chain before the draw. */
static oc_status prepare(oc_sampler *s, float *logits, int32_t n_vocab, int32_t *n, double *total) {
    if (n_vocab < 1) return OC_ERR_ARGUMENT;
    oc_status status = reserve(s, n_vocab);
    if (status != OC_OK) return status;
    penalise(s, logits, n_vocab);
    *n = filter(s, logits, n_vocab, total);
    restore(s, logits, n_vocab);
    return OC_OK;
}

oc_status oc_sampler_candidates(oc_sampler *s, float *logits, int32_t n_vocab, int32_t capacity, int32_t *ids,
                                float *probs, int32_t *n) {
    double total;
    oc_status status = prepare(s, logits, n_vocab, n, &total);
    for (int32_t i = 0; status == OC_OK && i < *n && i < capacity; i++) {
        ids[i] = s->candidates[i].id;
        probs[i] = (float)(s->candidates[i].weight / total);
    }
    return status;
}

oc_status oc_sampler_sample(oc_sampler *s, float *logits, int32_t n_vocab, int32_t *token) {
    double total, sum = 0;
    int32_t n, chosen = 0;
    oc_status status = prepare(s, logits, n_vocab, &n, &total);
    if (status != OC_OK) return status;
    double target = is_greedy(s) ? 0 : uniform(s->random) * total;
    for (int32_t i = 0; i < n && sum <= target; i++) {
        sum += s->candidates[i].weight;
        if (s->candidates[i].weight > 0) chosen = i;
    }
    *token = s->candidates[chosen].id;
    return OC_OK;
}

/* ---- life ---- */

static int32_t window_size(const oc_sampler_params *p, int32_t n_ctx) {
    if (p->repeat_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0) return 0;
    return p->repeat_last_n < 0 || p->repeat_last_n > n_ctx ? n_ctx : p->repeat_last_n;
}

oc_status oc_sampler_create(const oc_sampler_params *params, int32_t n_ctx, oc_sampler **sampler) {
    *sampler = NULL;
    if (n_ctx < 1 || n_ctx > 1 << 28) return OC_ERR_ARGUMENT;
    oc_sampler *s = calloc(1, sizeof *s);
    if (!s) return OC_ERR_NOMEM;
    s->params = *params;
    s->window_size = window_size(params, n_ctx);
    while (s->mask + 1 < 2 * (uint32_t)s->window_size) s->mask = 2 * s->mask + 1;
    uint64_t state = params->seed;
    for (int i = 0; i < 4; i++) s->random[i] = splitmix(&state);

    s->window = malloc(((size_t)s->window_size + 1) * sizeof *s->window);
    s->counts = calloc((size_t)s->mask + 1, sizeof *s->counts);
    s->saved = malloc(((size_t)s->mask + 1) * sizeof *s->saved);
    if (!s->window || !s->counts || !s->saved) {
        oc_sampler_destroy(s);
        return OC_ERR_NOMEM;
    }
    *sampler = s;
    return OC_OK;
}

void oc_sampler_destroy(oc_sampler *s) {
    if (!s) return;
    free(s->candidates);
    free(s->window);
    free(s->counts);
    free(s->saved);
    free(s);
}

/* ---- log-probabilities ---- */

/* Sum of e^(logit - max) over the vocabulary; terms in float, eight sums in double. */
static double total_weight(const float *logits, int32_t n, float max) {
    double sums[LANES] = {0}, total = 0;
    for (int32_t start = 0; start < n; start += BLOCK) {
        float term[BLOCK] = {0};
        int32_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int32_t i = 0; i < count; i++) term[i] = below(logits[start + i], max);
        exponentials(term, count);
        for (int32_t i = 0; i < BLOCK; i += LANES) /* beyond count the terms are 0 */
            for (int32_t lane = 0; lane < LANES; lane++) sums[lane] += term[i + lane];
    }
    for (int32_t i = 0; i < LANES; i++) total += sums[i];
    return total;
}

static float floored(double logprob) { return logprob > -9999 ? (float)logprob : -9999.0f; }

int32_t oc_logprobs(const float *logits, int32_t n_vocab, int32_t token, int32_t n_top, float *logprob,
                    int32_t *top_ids, float *top_logprobs) {
    candidate top[OC_MAX_TOP_LOGPROBS];
    float max = logits[oc_kernels.argmax(logits, n_vocab)];
    double log_total = log(total_weight(logits, n_vocab, max));
    *logprob = floored((double)below(logits[token], max) - log_total);

    n_top = n_top < OC_MAX_TOP_LOGPROBS ? n_top : OC_MAX_TOP_LOGPROBS;
    int32_t n = n_top > 0 ? find_top(logits, n_vocab, n_top, top) : 0;
    if (n > 0) n = take(top, n, 1, 0); /* all weights are 0: nothing is ever enough */
    for (int32_t i = 0; i < n; i++) {
        top_ids[i] = top[i].id;
        top_logprobs[i] = floored((double)below(top[i].logit, max) - log_total);
    }
    return n;
}
