/* encode.c - text to ids: special tokens first, then pretokens or words through the cache. */
#include "text/text.h"

#include <stdlib.h>

#define KEEP_BYTES ((size_t)1 << 20) /* working memory above this is given back after the call */

static oc_status append_ids(oc_tokens *out, const int32_t *ids, size_t count) {
    if (count == 0) return OC_OK;
    oc_status status = oc_text_reserve((void **)&out->ids, &out->capacity, out->count + count, sizeof *out->ids);
    if (status) return status;
    memcpy(out->ids + out->count, ids, count * sizeof *ids);
    out->count += count;
    return OC_OK;
}

static oc_status encode_new(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                            oc_tokens *out) {
    switch (vocab->model) {
    case OC_TOKENS_SPM: return oc_spm_encode(vocab, encoder, text, length, false, out);
    case OC_TOKENS_WPM: return oc_wpm_encode(vocab, text, length, out);
    case OC_TOKENS_UGM: return oc_ugm_encode(vocab, encoder, text, length, out);
    case OC_TOKENS_BPE: break;
    }
    return oc_bpe_encode(vocab, encoder, text, length, out);
}

static inline bool is_cached(const oc_cache_slot *slot, const uint8_t *text, uint32_t length) {
    return slot->key_length == length && memcmp(slot->key, text, length) == 0;
}

/* One pretoken or word, from the cache if it was seen before. A new one pushes the one in its slot to the other slot. */
static oc_status encode_word(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                             oc_tokens *out) {
    if (!encoder->cache || length > OC_CACHE_KEY) return encode_new(vocab, encoder, text, length, out);
    const uint32_t place = oc_text_hash(text, length) % OC_CACHE_SLOTS;
    oc_cache_slot *slot = &encoder->cache[place], *other = &encoder->cache[place ^ 1];
    if (is_cached(slot, text, length)) return append_ids(out, slot->ids, slot->count);
    if (is_cached(other, text, length)) return append_ids(out, other->ids, other->count);
    size_t before = out->count;
    oc_status status = encode_new(vocab, encoder, text, length, out);
    size_t count = out->count - before;
    if (status || count > OC_CACHE_IDS) return status;
    if (slot->key_length) *other = *slot;
    slot->key_length = (uint8_t)length;
    slot->count = (uint8_t)count;
    memcpy(slot->key, text, length);
    if (count) memcpy(slot->ids, out->ids + before, count * sizeof *slot->ids);
    return OC_OK;
}

/* Where the pretoken or word of prepared text that starts at `at` ends. */
static uint32_t word_end(const oc_vocab *vocab, oc_cuts *cuts, const uint8_t *text, uint32_t at, uint32_t length) {
    switch (vocab->model) {
    case OC_TOKENS_SPM:
    case OC_TOKENS_UGM: return at + oc_spm_word(vocab, text + at, length - at);
    case OC_TOKENS_WPM: return at + oc_wpm_word(text + at, length - at);
    case OC_TOKENS_BPE: break;
    }
    return (uint32_t)oc_pretoken_end(vocab->pre, cuts, text, at, length);
}

/* Text between special tokens. */
static oc_status encode_fragment(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, size_t length,
                                 oc_tokens *out) {
    uint32_t size = (uint32_t)length, at = 0;
    oc_cuts cuts = {0};
    oc_status status = OC_OK;
    if (vocab->model == OC_TOKENS_SPM && vocab->add_space_prefix) {
        // Each fragment starts the text or follows a special token, so each gets the prefix.
        at = oc_spm_word(vocab, text, size);
        status = oc_spm_encode(vocab, encoder, text, at, true, out);
    } else if (vocab->model == OC_TOKENS_WPM) {
        status = oc_wpm_normalize(encoder, text, length, vocab->lowercase, &size);
        text = encoder->escaped;
    } else if (vocab->model == OC_TOKENS_UGM) {
        status = oc_ugm_normalize(vocab, encoder, text, length, &size);
        text = encoder->escaped;
    }
    for (uint32_t end; at < size && !status; at = end) {
        end = word_end(vocab, &cuts, text, at, size);
        status = encode_word(vocab, encoder, text + at, end - at, out);
    }
    return status;
}

static bool is_stripped(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static oc_status encode_text(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, size_t length,
                             bool parse_special, oc_tokens *out) {
    while (length) {
        int32_t special;
        size_t at = oc_special_find(vocab, text, length, parse_special, &special), plain = at, width = 0;
        const int sides = special != OC_NO_TOKEN && vocab->strips ? vocab->strips[special] : 0;
        while (sides & OC_STRIP_LEFT && plain && is_stripped(text[plain - 1])) plain--;
        oc_status status = plain ? encode_fragment(vocab, encoder, text, plain, out) : OC_OK;
        if (!status && special != OC_NO_TOKEN) {
            oc_vocab_bytes(vocab, special, &width);
            status = oc_tokens_push(out, special);
        }
        if (status) return status;
        at += width;
        while (sides & OC_STRIP_RIGHT && at < length && is_stripped(text[at])) at++;
        text += at;
        length -= at;
    }
    return OC_OK;
}

static void release(oc_encoder *encoder, size_t keep) {
    if (encoder->symbol_capacity * sizeof *encoder->symbols > keep) {
        free(encoder->symbols);
        encoder->symbols = NULL;
        encoder->symbol_capacity = 0;
    }
    if (encoder->heap_capacity * sizeof *encoder->heap > keep) {
        free(encoder->heap);
        encoder->heap = NULL;
        encoder->heap_capacity = 0;
    }
    if (encoder->step_capacity * sizeof *encoder->steps > keep) {
        free(encoder->steps);
        encoder->steps = NULL;
        encoder->step_capacity = 0;
    }
    if (encoder->escaped_capacity > keep) {
        free(encoder->escaped);
        encoder->escaped = NULL;
        encoder->escaped_capacity = 0;
    }
}

oc_status oc_vocab_encode(oc_vocab *vocab, const uint8_t *text, size_t length, int parse_special, oc_tokens *out) {
    if (length >= INT32_MAX) return OC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set_explicit(&vocab->busy, memory_order_acquire)) {
        oc_encoder own = {0};
        oc_status status = encode_text(vocab, &own, text, length, parse_special != 0, out);
        release(&own, 0);
        return status;
    }
    oc_status status = encode_text(vocab, &vocab->encoder, text, length, parse_special != 0, out);
    release(&vocab->encoder, KEEP_BYTES);
    atomic_flag_clear_explicit(&vocab->busy, memory_order_release);
    return status;
}

void oc_tokens_free(oc_tokens *tokens) {
    free(tokens->ids);
    *tokens = (oc_tokens){0};
}
