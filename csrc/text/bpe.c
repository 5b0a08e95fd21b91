/* bpe.c - byte-level BPE: the GPT-2 alphabet that spells bytes as printable characters, and merges by rank. */
#include "text/text.h"
#include "text/unicode.h"

#include <stdlib.h>

#define EMPTY UINT32_MAX

/* Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, are spelled U+0100 and up. */
static int alphabet_byte(uint32_t code) {
    if ((code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code <= 0xFF && code != 0xAD)) return (int)code;
    if (code < 0x100 || code > 0x143) return -1;
    uint32_t n = code - 0x100;
    return n < 0x21 ? (int)n : n < 0x43 ? (int)(n - 0x21 + 0x7F) : 0xAD;
}

/* Most pieces have nothing else. */
static inline bool is_plain(uint8_t c) { return c >= 0x21 && c <= 0x7E; }

size_t oc_bpe_decode(const uint8_t *text, size_t length, uint8_t *bytes) {
    size_t count = 0, width;
    for (size_t at = 0; at < length; at += width) {
        width = 1;
        if (is_plain(text[at])) {
            bytes[count++] = text[at];
            continue;
        }
        int byte = alphabet_byte(oc_utf8_get(text + at, length - at, &width));
        if (byte >= 0) {
            bytes[count++] = (uint8_t)byte;
        } else {
            memcpy(bytes + count, text + at, width);
            count += width;
        }
    }
    return count;
}

bool oc_bpe_is_spelled(const uint8_t *text, size_t length) {
    size_t width;
    for (size_t at = 0; at < length; at += width) {
        width = 1;
        if (!is_plain(text[at]) && alphabet_byte(oc_utf8_get(text + at, length - at, &width)) < 0) return false;
    }
    return true;
}

static inline uint32_t pair_hash(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)((h ^ h >> 32) * 0xD6E8FEB86659FD93u >> 32);
}

int32_t oc_bpe_pair(const oc_vocab *vocab, int32_t left, int32_t right, uint32_t *priority) {
    for (uint32_t at = pair_hash((uint32_t)left, (uint32_t)right) & vocab->merge_mask;;
         at = (at + 1) & vocab->merge_mask) {
        const oc_merge_slot *slot = &vocab->merges[at];
        if (slot->left == EMPTY) return OC_NO_TOKEN;
        if (slot->left == (uint32_t)left && slot->right == (uint32_t)right) {
            *priority = slot->rank;
            return slot->merged;
        }
    }
}

/* ---- Loading merges ---------------------------------------------------------------------------------------------- */

#define BATCH 16 /* merges in flight: each needs ten random reads, which prefetching lets overlap */

typedef struct pending_merge {
    const uint8_t *text; // as in the file
    size_t text_length;
    size_t left, right; // bytes of the two pieces
    uint32_t hashes[3]; // of left, right and both together
    int32_t likely[3];  // pieces, by their hashes
    uint8_t bytes[2 * OC_SPECIAL_MAX];
    oc_merge_slot merge;
} pending_merge;

static size_t spell(const oc_vocab *vocab, const uint8_t *text, size_t length, uint8_t *key) {
    if (vocab->model == OC_TOKENS_BPE) return oc_bpe_decode(text, length, key);
    memcpy(key, text, length);
    return length;
}

/* "left right". The separator is the first space after the first byte, as no piece of the alphabet has one. */
static oc_status parse_merge(const oc_vocab *vocab, const oc_strings *merges, uint32_t rank, pending_merge *pending,
                             char *err) {
    const uint8_t *text;
    size_t length;
    if (!oc_strings_get(merges, rank, &text, &length)) {
        return oc_text_fail(err, "merge ", rank, " lies outside the file", NULL, 0);
    }
    const uint8_t *space = length > 2 ? memchr(text + 1, ' ', length - 1) : NULL;
    if (!space || space == text + length - 1) return oc_text_fail(err, "merge ", rank, " is not a pair:", text, length);
    if (length > sizeof pending->bytes) {
        return oc_text_fail(err, "merge ", rank, " is longer than 2048 bytes", NULL, 0);
    }
    pending->text = text;
    pending->text_length = length;
    pending->left = spell(vocab, text, (size_t)(space - text), pending->bytes);
    pending->right = spell(vocab, space + 1, (size_t)(text + length - space - 1), pending->bytes + pending->left);
    pending->hashes[0] = oc_text_hash(pending->bytes, pending->left);
    pending->hashes[1] = oc_text_hash(pending->bytes + pending->left, pending->right);
    pending->hashes[2] = oc_text_hash(pending->bytes, pending->left + pending->right);
    for (int i = 0; i < 3; i++) __builtin_prefetch(&vocab->index[pending->hashes[i] & vocab->index_mask]);
    return OC_OK;
}

/* What the lookups of a merge will read, one step after the other: its three pieces, and their texts. */
static void fetch_pieces(const oc_vocab *vocab, pending_merge *pending) {
    for (int i = 0; i < 3; i++) {
        pending->likely[i] = oc_vocab_likely(vocab, pending->hashes[i]);
        if (pending->likely[i] != OC_NO_TOKEN) __builtin_prefetch(&vocab->pieces[pending->likely[i]]);
    }
}

static void fetch_texts(const oc_vocab *vocab, const pending_merge *pending) {
    size_t length;
    for (int i = 0; i < 3; i++)
        if (pending->likely[i] != OC_NO_TOKEN) __builtin_prefetch(oc_vocab_text(vocab, pending->likely[i], &length));
}

static oc_status resolve_merge(const oc_vocab *vocab, uint32_t rank, pending_merge *pending, char *err) {
    const uint8_t *bytes = pending->bytes;
    size_t both = pending->left + pending->right;
    int32_t left = oc_vocab_find_hashed(vocab, bytes, pending->left, pending->hashes[0]);
    int32_t right = oc_vocab_find_hashed(vocab, bytes + pending->left, pending->right, pending->hashes[1]);
    int32_t merged = oc_vocab_find_hashed(vocab, bytes, both, pending->hashes[2]);
    if (left == OC_NO_TOKEN || right == OC_NO_TOKEN || merged == OC_NO_TOKEN) {
        return oc_text_fail(err, "merge ", rank, " names a piece that is not in the vocabulary:", pending->text,
                            pending->text_length);
    }
    pending->merge = (oc_merge_slot){(uint32_t)left, (uint32_t)right, rank, merged};
    __builtin_prefetch(&vocab->merges[pair_hash((uint32_t)left, (uint32_t)right) & vocab->merge_mask], 1);
    return OC_OK;
}

/* The first of equal merges keeps its rank. */
static oc_status add_merge(oc_vocab *vocab, const oc_merge_slot *merge, char *err) {
    uint32_t at = pair_hash(merge->left, merge->right) & vocab->merge_mask;
    for (uint32_t probes = 0; probes <= OC_PROBE_MAX; probes++, at = (at + 1) & vocab->merge_mask) {
        oc_merge_slot *slot = &vocab->merges[at];
        if (slot->left == EMPTY) {
            *slot = *merge;
            return OC_OK;
        }
        if (slot->left == merge->left && slot->right == merge->right) return OC_OK;
    }
    return oc_text_fail(err, "merge ", merge->rank, " collides with too many others", NULL, 0);
}

static oc_status load_batch(oc_vocab *vocab, const oc_strings *merges, uint32_t first, uint32_t count, char *err) {
    pending_merge pending[BATCH];
    oc_status status = OC_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        status = parse_merge(vocab, merges, first + i, &pending[i], err);
    }
    for (uint32_t i = 0; i < count && !status; i++) fetch_pieces(vocab, &pending[i]);
    for (uint32_t i = 0; i < count && !status; i++) fetch_texts(vocab, &pending[i]);
    for (uint32_t i = 0; i < count && !status; i++) status = resolve_merge(vocab, first + i, &pending[i], err);
    for (uint32_t i = 0; i < count && !status; i++) status = add_merge(vocab, &pending[i].merge, err);
    return status;
}

oc_status oc_bpe_load_merges(oc_vocab *vocab, const oc_strings *merges, char *err) {
    if (merges->count > OC_COUNT_MAX) return oc_text_fail(err, "the vocabulary has ", merges->count, " merges", NULL, 0);
    uint32_t count = (uint32_t)merges->count, slots = oc_table_slots(count);
    vocab->merges = malloc((size_t)slots * sizeof *vocab->merges);
    if (!vocab->merges) return OC_ERR_NOMEM;
    vocab->merge_mask = slots - 1;
    for (uint32_t i = 0; i < slots; i++) vocab->merges[i].left = EMPTY;
    for (uint32_t first = 0; first < count; first += BATCH) {
        oc_status status = load_batch(vocab, merges, first, count - first < BATCH ? count - first : BATCH, err);
        if (status) return status;
    }
    for (int byte = 0; byte < 256 && vocab->model == OC_TOKENS_BPE; byte++) {
        uint8_t key = (uint8_t)byte;
        vocab->byte_ids[byte] = oc_vocab_find(vocab, &key, 1);
    }
    return OC_OK;
}

/* ---- Encoding ---------------------------------------------------------------------------------------------------- */

/* A byte without a token is dropped, as the models' own tokenizers do. */
static oc_status push(oc_tokens *out, int32_t id) { return id == OC_NO_TOKEN ? OC_OK : oc_tokens_push(out, id); }

oc_status oc_bpe_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                        oc_tokens *out) {
    if (length == 1) return push(out, vocab->byte_ids[text[0]]);
    if (vocab->ignore_merges) {
        int32_t whole = oc_vocab_find(vocab, text, length);
        if (whole != OC_NO_TOKEN && vocab->types[whole] != OC_TOKEN_CONTROL) return oc_tokens_push(out, whole);
    }
    oc_status status = oc_text_reserve((void **)&encoder->symbols, &encoder->symbol_capacity, length,
                                       sizeof *encoder->symbols);
    if (status) return status;
    for (uint32_t i = 0; i < length; i++) { // i - 1 of the first is UINT32_MAX, no symbol
        encoder->symbols[i] = (oc_symbol){.prev = i - 1, .next = i + 1, .id = vocab->byte_ids[text[i]]};
    }
    status = oc_merge(vocab, encoder, text, length);
    for (uint32_t at = 0; at < length && !status; at = encoder->symbols[at].next) {
        status = push(out, encoder->symbols[at].id);
    }
    return status;
}
