/* spellings.c - what the tokens of a vocabulary spell, as a tree: tokens that begin alike are looked at once. And the
 * masks that were made with it, by the state of the grammar that they are for.
 */
#include "decode/grammar.h"

#include <stdlib.h>
#include <string.h>

#define MASK_BYTES (8u << 20) /* of all stored masks of a vocabulary */
#define MASKS_LEAST 64u
#define MASKS_MOST 512u

/* ---- tokens in the order of their bytes ---- */

static int compare(const oc_vocab *vocab, int32_t a, int32_t b) {
    size_t n_a, n_b;
    const uint8_t *at_a = oc_vocab_bytes(vocab, a, &n_a), *at_b = oc_vocab_bytes(vocab, b, &n_b);
    int found = memcmp(at_a, at_b, n_a < n_b ? n_a : n_b);
    return found ? found : (n_a > n_b) - (n_a < n_b);
}

/* Merge sort from the bottom; `other` is as large as `ids`. Equal spellings stay in the order of their ids. */
static int32_t *sorted(const oc_vocab *vocab, int32_t *ids, int32_t *other, size_t n) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t middle = from + width < n ? from + width : n, to = from + 2 * width < n ? from + 2 * width : n;
            for (size_t i = from, left = from, right = middle; i < to; i++) {
                bool is_left = left < middle && (right == to || compare(vocab, ids[left], ids[right]) <= 0);
                other[i] = is_left ? ids[left++] : ids[right++];
            }
        }
        int32_t *swapped = ids;
        ids = other;
        other = swapped;
    }
    return ids;
}

static bool is_text(const oc_vocab *vocab, int32_t id, const uint32_t *end_mask) {
    size_t length;
    oc_token_type type = oc_vocab_type(vocab, id);
    oc_vocab_bytes(vocab, id, &length);
    if (type == OC_TOKEN_CONTROL || type == OC_TOKEN_UNKNOWN || type == OC_TOKEN_UNUSED) return false;
    return length > 0 && length <= OC_LONGEST_SPELLING && !(end_mask[id / 32] >> (id % 32) & 1);
}

static oc_status put_in_order(oc_spellings *s, const oc_vocab *vocab, int32_t n_vocab) {
    int32_t *ids = malloc((size_t)n_vocab * sizeof *ids), *other = malloc((size_t)n_vocab * sizeof *other);
    if (ids && other) {
        for (int32_t id = 0; id < n_vocab; id++) {
            if (is_text(vocab, id, s->end_mask)) ids[s->n_tokens++] = id;
        }
        s->order = sorted(vocab, ids, other, s->n_tokens);
    }
    if (s->order != ids) free(ids);
    if (s->order != other) free(other);
    return s->order ? OC_OK : OC_ERR_NOMEM;
}

/* ---- plain tokens ---- */

/* Characters of a token that is plain and whole, or 0. Stricter than UTF-8 nowhere: a lone surrogate is no character. */
static uint32_t plain_length(const uint8_t *data, size_t n) {
    uint32_t count = 0;
    for (size_t i = 0; i < n; count++) {
        uint8_t lead = data[i++];
        if (lead < 0x80) {
            if (!oc_is_plain(lead)) return 0;
            continue;
        }
        size_t tail = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || tail > n - i) return 0;
        uint8_t second = data[i], low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (second < low || second > high) return 0;
        for (size_t k = 1; k < tail; k++) {
            if (oc_is_lead(data[i + k])) return 0;
        }
        i += tail;
    }
    return count;
}

static uint32_t plain_of(const oc_vocab *vocab, int32_t id) {
    size_t n;
    const uint8_t *data = oc_vocab_bytes(vocab, id, &n);
    return plain_length(data, n);
}

/* Plain tokens by their number of characters. */
static oc_status list_plain(oc_spellings *s, const oc_vocab *vocab) {
    s->up_to = calloc(OC_LONGEST_SPELLING + 2, sizeof *s->up_to);
    s->plain = malloc(((size_t)s->n_tokens + 1) * sizeof *s->plain);
    if (!s->up_to || !s->plain) return OC_ERR_NOMEM;
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        uint32_t length = plain_of(vocab, s->order[i]);
        s->up_to[length + 1] += length > 0;
        if (length > s->longest) s->longest = length;
    }
    for (uint32_t length = 1; length <= s->longest + 1; length++) s->up_to[length] += s->up_to[length - 1];
    s->n_plain = s->up_to[s->longest + 1];
    for (uint32_t i = 0; i < s->n_tokens; i++) { // moves up_to[n] from where the n begin to where they end
        int32_t id = s->order[i];
        uint32_t length = plain_of(vocab, id);
        if (length == 0) continue;
        s->plain[s->up_to[length]++] = id;
        s->plain_mask[id / 32] |= UINT32_C(1) << id % 32;
    }
    return OC_OK;
}

/* ---- the tree ---- */

static size_t shared_bytes(const oc_vocab *vocab, int32_t a, int32_t b) {
    size_t n_a, n_b, n = 0;
    const uint8_t *at_a = oc_vocab_bytes(vocab, a, &n_a), *at_b = oc_vocab_bytes(vocab, b, &n_b);
    while (n < n_a && n < n_b && at_a[n] == at_b[n]) n++;
    return n;
}

static size_t count_nodes(const oc_spellings *s, const oc_vocab *vocab) {
    size_t count = 1, length;
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        oc_vocab_bytes(vocab, s->order[i], &length);
        count += length - (i ? shared_bytes(vocab, s->order[i - 1], s->order[i]) : 0);
    }
    return count;
}

/* One node for each byte that a token does not share with the one before it; `path` has those above. */
static void grow(oc_spellings *s, const oc_vocab *vocab, uint32_t *path) {
    size_t depth = 0, length;
    path[0] = 0;
    s->n_nodes = 1;
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        const uint8_t *data = oc_vocab_bytes(vocab, s->order[i], &length);
        size_t shared = i ? shared_bytes(vocab, s->order[i - 1], s->order[i]) : 0;
        for (; depth > shared; depth--) s->nodes[path[depth]].end = s->n_nodes;
        while (depth < length) {
            uint8_t byte = data[depth++];
            path[depth] = s->n_nodes;
            s->nodes[s->n_nodes++] = (oc_spelling){.first = i, .depth = (uint16_t)depth, .byte = byte};
        }
    }
    for (; depth > 0; depth--) s->nodes[path[depth]].end = s->n_nodes;
    s->nodes[0].end = s->n_nodes;
    s->nodes[s->n_nodes].first = s->n_tokens;
}

/* From the leaves up: what plain text there is behind a node. */
static void measure(oc_spellings *s, const oc_vocab *vocab) {
    for (uint32_t at = s->n_nodes; at-- > 0;) {
        oc_spelling *node = &s->nodes[at];
        for (uint32_t i = node->first; i < s->nodes[at + 1].first; i++) {
            if (plain_of(vocab, s->order[i]) == 0) node->reach = OC_NOT_PLAIN;
        }
        for (uint32_t child = at + 1; child < node->end && node->reach != OC_NOT_PLAIN; child = s->nodes[child].end) {
            uint16_t below = s->nodes[child].reach;
            if (below != OC_NOT_PLAIN) below = (uint16_t)(below + oc_is_lead(s->nodes[child].byte));
            if (below > node->reach) node->reach = below;
        }
    }
}

static oc_status build_tree(oc_spellings *s, const oc_vocab *vocab) {
    uint32_t path[OC_LONGEST_SPELLING + 1];
    size_t count = count_nodes(s, vocab);
    if (count >= UINT32_MAX) return OC_ERR_NOMEM;
    s->nodes = calloc(count + 1, sizeof *s->nodes);
    if (!s->nodes) return OC_ERR_NOMEM;
    grow(s, vocab, path);
    measure(s, vocab);
    return OC_OK;
}

/* ---- masks that were made ---- */

const uint32_t *oc_spellings_recall(oc_spellings *s, const uint32_t *key, size_t n, uint64_t hash) {
    for (uint32_t i = 0; i < s->n_used; i++) {
        oc_mask_entry *entry = &s->entries[i];
        if (entry->hash != hash || entry->n_key != n || memcmp(entry->key, key, n * sizeof *key) != 0) continue;
        entry->used = ++s->clock;
        return entry->mask;
    }
    return NULL;
}

void oc_spellings_remember(oc_spellings *s, const uint32_t *key, size_t n, uint64_t hash, const uint32_t *mask) {
    size_t words = (size_t)s->n_words;
    uint32_t *kept = malloc((n + words) * sizeof *kept);
    if (!kept) return;
    memcpy(kept, mask, words * sizeof *mask);
    memcpy(kept + words, key, n * sizeof *key);
    oc_mask_entry *place = &s->entries[0];
    if (s->n_used < s->n_entries) place = &s->entries[s->n_used++];
    else {
        for (uint32_t i = 1; i < s->n_used; i++) {
            if (s->entries[i].used < place->used) place = &s->entries[i];
        }
    }
    free(place->mask);
    *place = (oc_mask_entry){hash, ++s->clock, kept + words, n, kept};
}

/* ---- life ---- */

void oc_spellings_destroy(oc_spellings *s) {
    if (!s) return;
    for (uint32_t i = 0; i < s->n_used; i++) free(s->entries[i].mask);
    free(s->entries);
    free(s->nodes);
    free(s->order);
    free(s->plain);
    free(s->up_to);
    free(s->plain_mask);
    free(s->end_mask);
    free(s);
}

static oc_status fill(oc_spellings *s, const oc_vocab *vocab, int32_t n_tokens, const int32_t *ends, int32_t n_ends) {
    uint32_t entries = MASK_BYTES / (4 * (uint32_t)s->n_words + 1);
    s->n_entries = entries < MASKS_LEAST ? MASKS_LEAST : entries > MASKS_MOST ? MASKS_MOST : entries;
    s->entries = calloc(s->n_entries, sizeof *s->entries);
    s->plain_mask = calloc((size_t)s->n_words, sizeof *s->plain_mask);
    s->end_mask = calloc((size_t)s->n_words, sizeof *s->end_mask);
    if (!s->entries || !s->plain_mask || !s->end_mask) return OC_ERR_NOMEM;
    for (int32_t i = 0; i < n_ends; i++) {
        if (ends[i] >= 0 && ends[i] < n_tokens) s->end_mask[ends[i] / 32] |= UINT32_C(1) << ends[i] % 32;
    }
    oc_status status = put_in_order(s, vocab, n_tokens);
    if (status == OC_OK) status = list_plain(s, vocab);
    return status == OC_OK ? build_tree(s, vocab) : status;
}

oc_status oc_spellings_create(const oc_vocab *vocab, int32_t n_vocab, const int32_t *ends, int32_t n_ends,
                              oc_spellings **out) {
    *out = NULL;
    int32_t n_tokens = oc_vocab_count(vocab);
    if (n_vocab <= 0 || n_vocab > INT32_MAX - 32 || n_tokens <= 0) return OC_ERR_ARGUMENT;
    if (n_tokens > n_vocab) n_tokens = n_vocab;
    oc_spellings *s = calloc(1, sizeof *s);
    if (!s) return OC_ERR_NOMEM;
    s->n_words = (n_vocab + 31) / 32;
    oc_status status = fill(s, vocab, n_tokens, ends, n_ends);
    if (status == OC_OK) *out = s;
    else oc_spellings_destroy(s);
    return status;
}
