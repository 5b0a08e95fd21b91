/* lookup.c - prompt lookup: what followed the last tokens earlier in a sequence is proposed as what follows now.
 *
 * The engine computes the proposal and its predecessor in one step, and each position is sampled from its own logits: the
 * first token that differs ends the run. So the text is the same with and without; only the time differs. A proposal is
 * made when it is expected to win: by how often such proposals held in this generation, and by what a column more costs
 * this engine.
 *
 * All of it lies in two arrays, as a token finds nothing in the caches: the step before it has read all weights.
 */
#include <stdlib.h>
#include <string.h>

#include "oc.h"

#define NGRAM 3           /* tokens that must agree before anything is proposed */
#define MARGIN 1.05       /* a draft must promise so much more speed, or none is made */
#define USUAL_EXTRA 0.25  /* what one more column costs before any was measured */
#define RATE_WEIGHT 0.15  /* of a new observation */
#define FIRST_SLOTS 1024

/* Matches of at least so many tokens share a rate, whose start is a guess. */
enum { CLASSES = 3 };
static const int64_t least_match[CLASSES] = {3, 5, 9};
static const double first_rate[CLASSES] = {0.2, 0.5, 0.8};

struct oc_lookup {
    int32_t *tokens; /* (capacity) */
    int64_t n, capacity;
    int32_t *places; /* (slots) the latest place behind each n-gram, by the hash of it; 0: free */
    int64_t slots, used; /* slots is a power of two */
    int64_t source;  /* the place of the token that is expected next; -1: none */
    int64_t matched; /* tokens before it that agree with the last ones */
    double rates[CLASSES];
};

/* ---- costs ---- */

static double within(double x, double least, double most) { return x < least ? least : x > most ? most : x; }

void oc_costs_observe(oc_costs *costs, int32_t columns, double seconds) {
    if (columns == 1) {
        if (costs->single == 0) costs->single = costs->usual = seconds;
        else costs->usual *= seconds > costs->usual ? 1.01 : 1 / 1.01;
        costs->single += costs->weight * (within(seconds, 0, 1.1 * costs->single) - costs->single);
    } else if (costs->single > 0) {
        double extra = (seconds / costs->single - 1) / (columns - 1);
        costs->extra += costs->weight * (within(extra, 0, 1) - costs->extra);
    }
}

/* A draft was too dear: drift towards the usual cost, so that it is measured again some day. */
static void forget(oc_costs *costs) { costs->extra += 0.01 * (USUAL_EXTRA - costs->extra); }

/* ---- n-grams ---- */

/* The slot of the n-gram in front of `end`, or the free one where it belongs. */
static int32_t *slot_of(const oc_lookup *l, int64_t end) {
    const int32_t *gram = l->tokens + end - NGRAM;
    uint64_t hash = 0;
    for (int i = 0; i < NGRAM; i++) hash = (hash ^ (uint32_t)gram[i]) * 0x9E3779B97F4A7C15u;
    for (uint64_t at = hash >> 32;; at++) {
        int32_t *slot = &l->places[at & (uint64_t)(l->slots - 1)];
        if (*slot == 0 || memcmp(l->tokens + *slot - NGRAM, gram, NGRAM * sizeof *gram) == 0) return slot;
    }
}

static void record(oc_lookup *l, int64_t end) {
    int32_t *slot = slot_of(l, end);
    l->used += *slot == 0;
    *slot = (int32_t)end;
}

/* Slots for twice as many n-grams as there may be, filled again from the tokens. */
static oc_status spread(oc_lookup *l, int64_t n) {
    int64_t slots = FIRST_SLOTS;
    while (slots < 4 * n) slots *= 2;
    int32_t *places = calloc((size_t)slots, sizeof *places);
    if (!places) return OC_ERR_NOMEM;
    free(l->places);
    l->places = places;
    l->slots = slots;
    l->used = 0;
    for (int64_t end = NGRAM; end < l->n; end++) record(l, end);
    return OC_OK;
}

/* The longest earlier text that the last tokens repeat, as far as the classes tell lengths apart. */
static void look_up(oc_lookup *l) {
    int64_t end = l->n, source = end >= NGRAM ? *slot_of(l, end) : 0;
    if (source == 0) return;
    int64_t longest = source < least_match[CLASSES - 1] ? source : least_match[CLASSES - 1], matched = NGRAM;
    while (matched < longest && l->tokens[source - 1 - matched] == l->tokens[end - 1 - matched]) matched++;
    l->source = source;
    l->matched = matched;
}

static oc_status hold(oc_lookup *l, int64_t n) {
    if (n > INT32_MAX / 4) return OC_ERR_ARGUMENT;
    if (n <= l->capacity) return OC_OK;
    int64_t capacity = n + n / 2 + FIRST_SLOTS;
    int32_t *grown = realloc(l->tokens, (size_t)capacity * sizeof *grown);
    if (!grown) return OC_ERR_NOMEM;
    l->tokens = grown;
    l->capacity = capacity;
    return OC_OK;
}

oc_status oc_lookup_restart(oc_lookup *l, const int32_t *tokens, int64_t n) {
    oc_status status = hold(l, n);
    if (status != OC_OK) return status;
    if (n) memcpy(l->tokens, tokens, (size_t)n * sizeof *tokens);
    l->n = n;
    l->source = -1;
    l->matched = 0;
    status = spread(l, n);
    if (status == OC_OK) look_up(l);
    return status;
}

/* ---- tokens come ---- */

static int class_of(const oc_lookup *l) {
    int class = CLASSES - 1;
    while (class > 0 && l->matched < least_match[class]) class--;
    return class;
}

/* Whether the proposal would have held. */
static void judge(oc_lookup *l, int32_t token) {
    int is_hit = l->tokens[l->source] == token;
    double *rate = &l->rates[class_of(l)];
    *rate += RATE_WEIGHT * (is_hit - *rate);
    l->source = is_hit ? l->source + 1 : -1;
    l->matched = is_hit ? l->matched + 1 : 0;
}

oc_status oc_lookup_accept(oc_lookup *l, int32_t token) {
    oc_status status = hold(l, l->n + 1);
    if (status == OC_OK && 2 * l->used >= l->slots) status = spread(l, l->n);
    if (status != OC_OK) return status;
    l->tokens[l->n] = token;
    if (l->n >= NGRAM) record(l, l->n);
    l->n++;
    if (l->source >= 0) judge(l, token);
    if (l->source < 0) look_up(l);
    return OC_OK;
}

int32_t oc_lookup_propose(const oc_lookup *l, int64_t most, oc_costs *costs, int32_t *draft) {
    if (l->source < 0) return 0;
    if (most > OC_LONGEST_DRAFT) most = OC_LONGEST_DRAFT;
    if (most > l->n - l->source) most = l->n - l->source;
    double promise = 1, best = MARGIN, chance = 1, rate = l->rates[class_of(l)];
    int32_t length = 0;
    for (int32_t drafted = 1; drafted <= most; drafted++) {
        promise += chance *= rate;
        double gain = promise / (1 + costs->extra * drafted);
        if (gain <= best) continue;
        best = gain;
        length = drafted;
    }
    if (length == 0) forget(costs);
    memcpy(draft, l->tokens + l->source, (size_t)length * sizeof *draft);
    return length;
}

/* ---- life ---- */

void oc_lookup_destroy(oc_lookup *l) {
    if (!l) return;
    free(l->tokens);
    free(l->places);
    free(l);
}

oc_status oc_lookup_create(oc_lookup **lookup) {
    oc_lookup *l = *lookup = calloc(1, sizeof *l);
    if (!l) return OC_ERR_NOMEM;
    memcpy(l->rates, first_rate, sizeof first_rate);
    oc_status status = oc_lookup_restart(l, NULL, 0);
    if (status == OC_OK) return OC_OK;
    oc_lookup_destroy(l);
    *lookup = NULL;
    return status;
}
