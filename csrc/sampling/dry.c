/* dry.c - DRY, "don't repeat yourself" (text-generation-webui pull request 5677): a token that would prolong a
 * repetition of n >= allowed_length tokens loses multiplier * base^(n - allowed_length). The repetition must end at the
 * newest token and holds no sequence breaker.
 *
 * A token is a breaker if a breaker string ends in its bytes, wherever that string began; so breakers do not depend
 * on how a text was cut into tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampling/sampling.h"

typedef struct hit {
    int32_t id, length; /* the token that would prolong a repetition of `length` tokens */
} hit;

struct oc_dry {
    float multiplier, base;
    int32_t allowed_length;
    int32_t *ring; /* (size) the newest tokens */
    int32_t size, used, at;
    int32_t unbroken; /* tokens after the last breaker */
    int32_t *newest;  /* (size) the tokens backwards, of one call */
    int32_t *common;  /* (size) common[i]: how many tokens newest[0..] and newest[i..] share */
    hit *hits;        /* (size) */
    const oc_vocab *vocab;
    char *breakers; /* the strings, one after another */
    size_t *ends;   /* (n_breakers) where each one ends */
    int32_t n_breakers;
    uint8_t *tail; /* (tail_size) the last bytes of the text, one less than the longest breaker has */
    size_t tail_size, tail_used;
};

/* ---- breakers ---- */

/* Byte i of the tail and the new token's bytes after it. */
static uint8_t byte_at(const oc_dry *dry, const uint8_t *bytes, size_t i) {
    return i < dry->tail_used ? dry->tail[i] : bytes[i - dry->tail_used];
}

/* Whether `text` occurs in the tail and the new bytes, ending in the latter. */
static int completes(const oc_dry *dry, const char *text, size_t length, const uint8_t *bytes, size_t n) {
    size_t total = dry->tail_used + n;
    for (size_t end = dry->tail_used + 1; end <= total; end++) {
        size_t same = 0;
        if (end < length) continue;
        while (same < length && byte_at(dry, bytes, end - length + same) == (uint8_t)text[same]) same++;
        if (same == length) return 1;
    }
    return 0;
}

static void keep_tail(oc_dry *dry, const uint8_t *bytes, size_t n) {
    size_t total = dry->tail_used + n, kept = total < dry->tail_size ? total : dry->tail_size;
    for (size_t i = 0; i < kept; i++) dry->tail[i] = byte_at(dry, bytes, total - kept + i); /* never behind its source */
    dry->tail_used = kept;
}

static int is_breaker(oc_dry *dry, int32_t token) {
    if (dry->n_breakers == 0 || token >= oc_vocab_count(dry->vocab)) return 0;
    size_t n, start = 0;
    const uint8_t *bytes = oc_vocab_bytes(dry->vocab, token, &n);
    int found = 0;
    for (int32_t i = 0; i < dry->n_breakers && !found; start = dry->ends[i++])
        found = completes(dry, dry->breakers + start, dry->ends[i] - start, bytes, n);
    keep_tail(dry, bytes, n);
    return found;
}

void oc_dry_accept(oc_dry *dry, int32_t token) {
    if (!dry || token < 0) return;
    dry->unbroken = is_breaker(dry, token) ? 0 : dry->unbroken < dry->size ? dry->unbroken + 1 : dry->size;
    if (dry->used < dry->size) dry->used++;
    dry->ring[dry->at] = token;
    dry->at = (dry->at + 1) % dry->size;
}

/* ---- repetitions ---- */

/* Fill `common` (the Z-function of the tokens backwards) in linear time: [left, right) is the match that reaches
 * farthest so far, and what lies in it was compared already. */
static void compare(oc_dry *dry) {
    const int32_t *t = dry->newest;
    int32_t n = dry->used, left = 0, right = 0;
    for (int32_t i = 0; i < n; i++) dry->newest[i] = dry->ring[(dry->at + dry->size - 1 - i) % dry->size];
    for (int32_t i = 1; i < n; i++) {
        int32_t same = i < right ? dry->common[i - left] : 0;
        if (i < right && same > right - i) same = right - i;
        while (i + same < n && t[same] == t[i + same]) same++;
        dry->common[i] = same;
        if (i + same > right) left = i, right = i + same;
    }
}

/* By token, longest first. */
static int order(const void *a, const void *b) {
    const hit *one = a, *two = b;
    if (one->id != two->id) return one->id < two->id ? -1 : 1;
    return one->length > two->length ? -1 : one->length < two->length;
}

void oc_dry_apply(oc_dry *dry, oc_edits *edits, const oc_logits *logits) {
    if (!dry || dry->unbroken < dry->allowed_length || dry->unbroken == 0) return;
    compare(dry);
    int32_t n = 0;
    for (int32_t i = 1; i < dry->used; i++) {
        int32_t length = dry->common[i] < dry->unbroken ? dry->common[i] : dry->unbroken, next = dry->newest[i - 1];
        if (length >= 1 && length >= dry->allowed_length && next < logits->n) dry->hits[n++] = (hit){next, length};
    }
    qsort(dry->hits, (size_t)n, sizeof *dry->hits, order);
    for (int32_t i = 0; i < n; i++) {
        const hit *h = &dry->hits[i];
        if (i > 0 && h->id == h[-1].id) continue;
        float penalty = dry->multiplier * powf(dry->base, (float)(h->length - dry->allowed_length));
        oc_edit_logit(edits, logits, h->id, logits->values[h->id] - penalty);
    }
}

/* ---- life ---- */

static oc_status copy_breakers(oc_dry *dry, const oc_sampler_params *params) {
    size_t total = 0, longest = 1;
    for (int32_t i = 0; i < params->n_breakers; i++) {
        total += params->breakers[i].length;
        longest = params->breakers[i].length > longest ? params->breakers[i].length : longest;
    }
    dry->vocab = params->vocab;
    dry->tail_size = longest - 1;
    dry->breakers = malloc(total + 1);
    dry->ends = malloc(((size_t)params->n_breakers + 1) * sizeof *dry->ends);
    dry->tail = malloc(longest);
    if (!dry->breakers || !dry->ends || !dry->tail) return OC_ERR_NOMEM;
    total = 0;
    for (int32_t i = 0; i < params->n_breakers; i++) {
        const oc_breaker *breaker = &params->breakers[i];
        if (breaker->length == 0) continue; /* would break everywhere */
        memcpy(dry->breakers + total, breaker->text, breaker->length);
        dry->ends[dry->n_breakers++] = total += breaker->length;
    }
    return OC_OK;
}

oc_status oc_dry_create(const oc_sampler_params *params, int32_t n_ctx, oc_edits *edits, oc_dry **out) {
    *out = NULL;
    int32_t size = params->dry_penalty_last_n;
    if (size < 0 || size > n_ctx) size = n_ctx;
    if (params->dry_multiplier == 0 || params->dry_base < 1 || size == 0) return OC_OK;
    if (params->n_breakers > 0 && !params->vocab) return OC_ERR_ARGUMENT;
    oc_dry *dry = calloc(1, sizeof *dry);
    if (!dry) return OC_ERR_NOMEM;
    *out = dry;
    dry->multiplier = params->dry_multiplier;
    dry->base = params->dry_base;
    dry->allowed_length = params->dry_allowed_length;
    dry->size = size;
    dry->ring = malloc((size_t)size * sizeof *dry->ring);
    dry->newest = malloc((size_t)size * sizeof *dry->newest);
    dry->common = malloc((size_t)size * sizeof *dry->common);
    dry->hits = malloc((size_t)size * sizeof *dry->hits);
    if (!dry->ring || !dry->newest || !dry->common || !dry->hits) return OC_ERR_NOMEM;
    oc_status status = copy_breakers(dry, params);
    return status == OC_OK ? oc_edits_grow(edits, size) : status;
}

void oc_dry_destroy(oc_dry *dry) {
    if (!dry) return;
    free(dry->ring);
    free(dry->newest);
    free(dry->common);
    free(dry->hits);
    free(dry->breakers);
    free(dry->ends);
    free(dry->tail);
    free(dry);
}
