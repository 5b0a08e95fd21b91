/* vocab.c - the vocabulary: pieces in one arena, the index from bytes to ids, and the checks on what a file says. */
#include "text/text.h"

#include <stdlib.h>

/* ---- Errors, growth, strings of a file --------------------------------------------------------------------------- */

static size_t append(char *err, size_t at, const char *text, size_t length) {
    for (size_t i = 0; i < length && at + 1 < OC_ERR_LEN; i++) err[at++] = text[i];
    return at;
}

oc_status oc_text_fail(char *err, const char *before, uint64_t number, const char *after, const uint8_t *quoted,
                       size_t quoted_length) {
    char digits[20];
    size_t first = sizeof digits, at = append(err, 0, before, strlen(before));
    do digits[--first] = (char)('0' + number % 10);
    while (number /= 10);
    at = append(err, at, digits + first, sizeof digits - first);
    at = append(err, at, after, strlen(after));
    if (quoted) {
        at = append(err, at, " '", 2);
        at = append(err, at, (const char *)quoted, quoted_length < 80 ? quoted_length : 80);
        at = append(err, at, "'", 1);
    }
    err[at] = 0;
    return OC_ERR_FORMAT;
}

oc_status oc_text_reserve(void **array, size_t *capacity, size_t need, size_t element) {
    if (need <= *capacity) return OC_OK;
    size_t wanted = *capacity ? *capacity : 64, bytes;
    while (wanted < need) {
        if (__builtin_mul_overflow(wanted, 2, &wanted)) return OC_ERR_NOMEM;
    }
    if (__builtin_mul_overflow(wanted, element, &bytes)) return OC_ERR_NOMEM;
    void *grown = realloc(*array, bytes);
    if (!grown) return OC_ERR_NOMEM;
    *array = grown;
    *capacity = wanted;
    return OC_OK;
}

bool oc_strings_get(const oc_strings *strings, size_t i, const uint8_t **data, size_t *length) {
    uint64_t offset = strings->offsets[i], n = 0;
    if (strings->size < 8 || offset > strings->size - 8) return false;
    for (int k = 0; k < 8; k++) n |= (uint64_t)strings->data[offset + k] << (8 * k);
    if (n > strings->size - 8 - offset) return false;
    *data = strings->data + offset + 8;
    *length = (size_t)n;
    return true;
}

/* ---- Index ------------------------------------------------------------------------------------------------------- */

#define INDEX_BATCH 16

static const uint8_t *piece_key(const oc_vocab *vocab, int32_t id, size_t *length) {
    return vocab->model == OC_TOKENS_BPE ? oc_vocab_bytes(vocab, id, length) : oc_vocab_text(vocab, id, length);
}

uint32_t oc_table_slots(size_t count) {
    uint32_t slots = 16;
    while (slots < count * 2) slots *= 2;
    return slots;
}

/* The first of several equal pieces keeps the place. */
static oc_status index_add(oc_vocab *vocab, int32_t id, uint32_t hash, char *err) {
    size_t length, other_length;
    const uint8_t *key = piece_key(vocab, id, &length);
    for (uint32_t at = hash & vocab->index_mask, probes = 0;; at = (at + 1) & vocab->index_mask) {
        oc_index_slot *slot = &vocab->index[at];
        if (slot->id == OC_NO_TOKEN) {
            *slot = (oc_index_slot){hash, id};
            if (length > vocab->longest) vocab->longest = (uint32_t)length;
            return OC_OK;
        }
        if (slot->hash == hash) {
            const uint8_t *other = piece_key(vocab, slot->id, &other_length);
            if (other_length == length && memcmp(other, key, length) == 0) return OC_OK;
        }
        if (++probes > OC_PROBE_MAX) {
            return oc_text_fail(err, "token ", (uint64_t)id, " collides with too many others", NULL, 0);
        }
    }
}

/* Several at a time, so that their slots, which lie anywhere, are fetched side by side. */
static oc_status index_batch(oc_vocab *vocab, const int32_t *ids, size_t count, char *err) {
    uint32_t hashes[INDEX_BATCH];
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const uint8_t *key = piece_key(vocab, ids[i], &length);
        hashes[i] = oc_text_hash(key, length);
        __builtin_prefetch(&vocab->index[hashes[i] & vocab->index_mask], 1);
    }
    oc_status status = OC_OK;
    for (size_t i = 0; i < count && !status; i++) status = index_add(vocab, ids[i], hashes[i], err);
    return status;
}

int32_t oc_vocab_find_hashed(const oc_vocab *vocab, const uint8_t *key, size_t length, uint32_t hash) {
    if (length == 0 || length > vocab->longest) return OC_NO_TOKEN;
    for (uint32_t at = hash & vocab->index_mask;; at = (at + 1) & vocab->index_mask) {
        const oc_index_slot *slot = &vocab->index[at];
        if (slot->id == OC_NO_TOKEN) return OC_NO_TOKEN;
        if (slot->hash != hash) continue;
        size_t other_length;
        const uint8_t *other = piece_key(vocab, slot->id, &other_length);
        if (other_length == length && memcmp(other, key, length) == 0) return slot->id;
    }
}

int32_t oc_vocab_likely(const oc_vocab *vocab, uint32_t hash) {
    uint32_t at = hash & vocab->index_mask;
    while (vocab->index[at].id != OC_NO_TOKEN && vocab->index[at].hash != hash) at = (at + 1) & vocab->index_mask;
    return vocab->index[at].id;
}

int32_t oc_vocab_find(const oc_vocab *vocab, const uint8_t *key, size_t length) {
    if (length > vocab->longest) return OC_NO_TOKEN; // before the hash: candidates of a long run are long
    return oc_vocab_find_hashed(vocab, key, length, oc_text_hash(key, length));
}

static bool is_ordinary(oc_token_type type) {
    return type == OC_TOKEN_UNDEFINED || type == OC_TOKEN_NORMAL || type == OC_TOKEN_UNUSED;
}

/* Is this piece what text means when another token has the same bytes? Special tokens are not, and neither are the
 * characters that some byte-level vocabularies list once more outside their alphabet. */
static bool is_first_choice(const oc_vocab *vocab, int32_t id) {
    size_t length;
    const uint8_t *text = oc_vocab_text(vocab, id, &length);
    return is_ordinary(vocab->types[id]) && (vocab->model != OC_TOKENS_BPE || oc_bpe_is_spelled(text, length));
}

/* Ids that wait to be put into the index together. */
typedef struct index_queue {
    int32_t ids[INDEX_BATCH];
    size_t count;
} index_queue;

static oc_status index_push(oc_vocab *vocab, index_queue *queue, int32_t id, char *err) {
    queue->ids[queue->count++] = id;
    if (queue->count < INDEX_BATCH) return OC_OK;
    queue->count = 0;
    return index_batch(vocab, queue->ids, INDEX_BATCH, err);
}

/* A control or byte token of SentencePiece and WordPiece is never the result of a merge or match, so it is not in the
 * index at all. In byte-level BPE the merges are explicit and may name any token, even a byte that some fine-tune
 * marked as its padding token. */
static bool is_indexed(const oc_vocab *vocab, uint32_t id) {
    return vocab->model == OC_TOKENS_BPE || vocab->types[id] == OC_TOKEN_USER_DEFINED;
}

static oc_status index_all(oc_vocab *vocab, int32_t *later, char *err) {
    index_queue queue = {.count = 0};
    size_t n_later = 0;
    oc_status status = OC_OK;
    for (uint32_t id = 0; id < vocab->count && !status; id++) {
        if (vocab->pieces[id].text_length == 0) continue;
        if (is_first_choice(vocab, (int32_t)id)) status = index_push(vocab, &queue, (int32_t)id, err);
        else if (is_indexed(vocab, id)) later[n_later++] = (int32_t)id;
    }
    for (size_t i = 0; i < n_later && !status; i++) status = index_push(vocab, &queue, later[i], err);
    return status ? status : index_batch(vocab, queue.ids, queue.count, err);
}

static oc_status build_index(oc_vocab *vocab, char *err) {
    uint32_t slots = oc_table_slots(vocab->count);
    int32_t *later = malloc((size_t)vocab->count * sizeof *later);
    vocab->index = malloc((size_t)slots * sizeof *vocab->index);
    vocab->index_mask = slots - 1;
    for (uint32_t i = 0; i < slots && vocab->index; i++) vocab->index[i].id = OC_NO_TOKEN;
    oc_status status = vocab->index && later ? index_all(vocab, later, err) : OC_ERR_NOMEM;
    free(later);
    return status;
}

/* ---- Pieces ------------------------------------------------------------------------------------------------------ */

static bool is_listed(const oc_strings *strings, const uint8_t *text, size_t length) {
    const uint8_t *listed;
    size_t n;
    for (size_t i = 0; i < strings->count; i++) {
        if (oc_strings_get(strings, i, &listed, &n) && n == length && memcmp(listed, text, n) == 0) return true;
    }
    return false;
}

static oc_status load_type(oc_vocab *vocab, uint32_t id, const oc_vocab_spec *spec, const uint8_t *text, size_t length,
                           char *err) {
    int byte = oc_spm_byte(text, length);
    int32_t type = OC_TOKEN_NORMAL;
    if (spec->types) type = spec->types[id];
    else if (byte >= 0 && (vocab->model == OC_TOKENS_SPM || vocab->model == OC_TOKENS_UGM)) type = OC_TOKEN_BYTE;
    if (type < OC_TOKEN_UNDEFINED || type > OC_TOKEN_BYTE) {
        return oc_text_fail(err, "token ", id, " has an unknown type", text, length);
    }
    if (type == OC_TOKEN_BYTE) {
        if (byte < 0) return oc_text_fail(err, "token ", id, " is a byte token, but not spelled <0xXX>:", text, length);
        if (vocab->byte_ids[byte] == OC_NO_TOKEN) vocab->byte_ids[byte] = (int32_t)id;
    }
    if (type == OC_TOKEN_USER_DEFINED && is_listed(&spec->control, text, length)) type = OC_TOKEN_CONTROL;
    vocab->types[id] = (uint8_t)type;
    return OC_OK;
}

/* Write what the token adds to a text; never longer than its own spelling. */
static size_t decode(const oc_vocab *vocab, oc_token_type type, const uint8_t *text, size_t length, uint8_t *bytes) {
    if (type == OC_TOKEN_BYTE) {
        bytes[0] = (uint8_t)oc_spm_byte(text, length);
        return 1;
    }
    if (vocab->model == OC_TOKENS_BPE && is_ordinary(type)) return oc_bpe_decode(text, length, bytes);
    if (vocab->model != OC_TOKENS_BPE && (is_ordinary(type) || type == OC_TOKEN_USER_DEFINED)) {
        return oc_spm_decode(text, length, bytes);
    }
    memcpy(bytes, text, length);
    return length;
}

static oc_status load_piece(oc_vocab *vocab, uint32_t id, const oc_vocab_spec *spec, char *err) {
    const uint8_t *text;
    size_t length;
    if (!oc_strings_get(&spec->tokens, id, &text, &length)) {
        return oc_text_fail(err, "token ", id, " lies outside the file", NULL, 0);
    }
    if (length > OC_PIECE_MAX) return oc_text_fail(err, "token ", id, " is longer than 65535 bytes", NULL, 0);
    oc_status status = load_type(vocab, id, spec, text, length, err);
    if (status) return status;
    size_t used = vocab->arena_used;
    if (used + 2 * length > UINT32_MAX) return oc_text_fail(err, "token ", id, " exceeds 4 GiB of text", NULL, 0);
    status = oc_text_reserve((void **)&vocab->arena, &vocab->arena_capacity, used + 2 * length + 1, 1);
    if (status) return status;
    uint8_t *own = vocab->arena + used, *bytes = own + length;
    if (length) memcpy(own, text, length);
    size_t decoded = length ? decode(vocab, vocab->types[id], own, length, bytes) : 0;
    bool same = decoded == length && (length == 0 || memcmp(own, bytes, length) == 0);
    vocab->pieces[id] = (oc_piece){
        .text = (uint32_t)used,
        .bytes = (uint32_t)(same ? used : used + length),
        .text_length = (uint16_t)length,
        .bytes_length = (uint16_t)decoded,
    };
    vocab->arena_used = used + length + (same ? 0 : decoded);
    return OC_OK;
}

static oc_status load_specials(oc_vocab *vocab, char *err) {
    vocab->trie_count = 1; // node 0 means none
    for (uint32_t id = 0; id < vocab->count; id++) {
        oc_token_type type = vocab->types[id];
        if (type != OC_TOKEN_CONTROL && type != OC_TOKEN_USER_DEFINED && type != OC_TOKEN_UNKNOWN) continue;
        if (vocab->pieces[id].bytes_length > OC_SPECIAL_MAX) {
            return oc_text_fail(err, "special token ", id, " is longer than 1024 bytes", NULL, 0);
        }
        oc_status status = oc_special_add(vocab, (int32_t)id);
        if (status) return status;
    }
    return OC_OK;
}

static oc_status load(oc_vocab *vocab, const oc_vocab_spec *spec, char *err) {
    vocab->pieces = calloc(vocab->count, sizeof *vocab->pieces);
    vocab->types = calloc(vocab->count, sizeof *vocab->types);
    vocab->encoder.cache = calloc(OC_CACHE_SLOTS, sizeof *vocab->encoder.cache);
    if (!vocab->pieces || !vocab->types || !vocab->encoder.cache) return OC_ERR_NOMEM;
    oc_status status = OC_OK;
    for (uint32_t id = 0; id < vocab->count && !status; id++) status = load_piece(vocab, id, spec, err);
    if (!status) status = build_index(vocab, err);
    if (!status) status = load_specials(vocab, err);
    if (status) return status;
    switch (vocab->model) {
    case OC_TOKENS_WPM: return OC_OK;
    case OC_TOKENS_UGM: oc_spm_load_neighbours(vocab); return oc_ugm_load(vocab, spec, err);
    case OC_TOKENS_SPM:
        oc_spm_load_neighbours(vocab);
        if (spec->scores) return oc_spm_load_scores(vocab, spec->scores);
        break;
    case OC_TOKENS_BPE: break;
    }
    return oc_bpe_load_merges(vocab, &spec->merges, err);
}

/* ---- Public ------------------------------------------------------------------------------------------------------ */

oc_status oc_vocab_create(const oc_vocab_spec *spec, oc_vocab **out, char *err) {
    *out = NULL;
    err[0] = 0;
    if (spec->tokens.count == 0) return oc_text_fail(err, "the vocabulary has ", 0, " tokens", NULL, 0);
    if (spec->tokens.count > OC_COUNT_MAX) {
        return oc_text_fail(err, "the vocabulary has ", spec->tokens.count, " tokens", NULL, 0);
    }
    if (spec->unknown < OC_NO_TOKEN || spec->unknown >= (int64_t)spec->tokens.count) return OC_ERR_ARGUMENT;
    if (spec->model == OC_TOKENS_UGM && !spec->scores) return OC_ERR_ARGUMENT;
    oc_vocab *vocab = calloc(1, sizeof *vocab);
    if (!vocab) return OC_ERR_NOMEM;
    vocab->model = spec->model;
    vocab->ignore_merges = spec->ignore_merges != 0;
    vocab->lowercase = spec->lowercase != 0;
    vocab->add_space_prefix = spec->add_space_prefix != 0;
    vocab->trim_spaces = spec->trim_spaces != 0;
    vocab->unknown = spec->unknown;
    vocab->count = (uint32_t)spec->tokens.count;
    for (int i = 0; i < 256; i++) vocab->byte_ids[i] = OC_NO_TOKEN;
    atomic_flag_clear(&vocab->busy);
    oc_status status = spec->model == OC_TOKENS_BPE ? oc_pretokenizer_create(spec->pre, &vocab->pre) : OC_OK;
    if (!status) status = load(vocab, spec, err);
    if (status) {
        oc_vocab_free(vocab);
        return status;
    }
    *out = vocab;
    return OC_OK;
}

int32_t oc_vocab_count(const oc_vocab *vocab) { return (int32_t)vocab->count; }

void oc_vocab_free(oc_vocab *vocab) {
    if (!vocab) return;
    free(vocab->pre);
    free(vocab->pieces);
    free(vocab->types);
    free(vocab->strips);
    free(vocab->arena);
    free(vocab->index);
    free(vocab->merges);
    free(vocab->priorities);
    free(vocab->scores);
    free(vocab->prefixes);
    free(vocab->charsmap);
    free(vocab->trie);
    free(vocab->encoder.cache);
    free(vocab->encoder.symbols);
    free(vocab->encoder.heap);
    free(vocab->encoder.steps);
    free(vocab->encoder.escaped);
    free(vocab);
}

const uint8_t *oc_vocab_text(const oc_vocab *vocab, int32_t id, size_t *length) {
    *length = vocab->pieces[id].text_length;
    return vocab->arena + vocab->pieces[id].text;
}

const uint8_t *oc_vocab_bytes(const oc_vocab *vocab, int32_t id, size_t *length) {
    *length = vocab->pieces[id].bytes_length;
    return vocab->arena + vocab->pieces[id].bytes;
}

oc_token_type oc_vocab_type(const oc_vocab *vocab, int32_t id) { return vocab->types[id]; }

oc_status oc_vocab_strip(oc_vocab *vocab, int32_t id, int sides) {
    if (!vocab->strips) vocab->strips = calloc(vocab->count, 1);
    if (!vocab->strips) return OC_ERR_NOMEM;
    vocab->strips[id] = (uint8_t)sides;
    return OC_OK;
}
