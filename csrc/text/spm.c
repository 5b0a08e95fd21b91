/* spm.c - SentencePiece BPE: merges by score or rank, U+2581 for spaces, byte tokens for characters without a piece. */
#include "text/text.h"
#include "text/unicode.h"

#include <stdlib.h>

static inline bool is_marker(const uint8_t *text, size_t length) { // U+2581
    return length >= 3 && text[0] == 0xE2 && text[1] == 0x96 && text[2] == 0x81;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int oc_spm_byte(const uint8_t *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

size_t oc_spm_decode(const uint8_t *text, size_t length, uint8_t *bytes) {
    size_t count = 0;
    for (size_t at = 0; at < length;) {
        bool marker = is_marker(text + at, length - at);
        bytes[count++] = marker ? ' ' : text[at];
        at += marker ? 3 : 1;
    }
    return count;
}

/* Floats as integers of the same order, turned around: the highest score is the smallest number. */
static uint32_t priority_of(float score) {
    uint32_t bits;
    score += 0.0f; // -0 becomes 0
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

oc_status oc_spm_load_scores(oc_vocab *vocab, const float *scores) {
    vocab->priorities = malloc((size_t)vocab->count * sizeof *vocab->priorities);
    if (!vocab->priorities) return OC_ERR_NOMEM;
    for (uint32_t id = 0; id < vocab->count; id++) vocab->priorities[id] = priority_of(scores[id]);
    return OC_OK;
}

void oc_spm_load_neighbours(oc_vocab *vocab) {
    for (uint32_t id = 0; id < vocab->count; id++) {
        oc_token_type type = vocab->types[id];
        if (type == OC_TOKEN_CONTROL || type == OC_TOKEN_UNKNOWN || type == OC_TOKEN_BYTE) continue;
        size_t length;
        const uint8_t *bytes = oc_vocab_bytes(vocab, (int32_t)id, &length);
        for (size_t i = 1; i < length; i++) {
            uint32_t *word = &vocab->neighbours[bytes[i - 1]][bytes[i] >> 5], bit = 1u << (bytes[i] & 31);
            if (!(*word & bit)) *word |= bit; // mostly known: a write would have the next read wait
        }
    }
}

/* The text with its spaces as U+2581, in encoder->escaped. */
static oc_status escape(oc_encoder *encoder, const uint8_t *text, size_t length, bool prefix, uint32_t *escaped) {
    size_t spaces = prefix, count = 0;
    for (size_t i = 0; i < length; i++) spaces += text[i] == ' ';
    size_t need = length + 3 * spaces;
    if (need > INT32_MAX) return OC_ERR_ARGUMENT;
    oc_status status = oc_text_reserve((void **)&encoder->escaped, &encoder->escaped_capacity, need, 1);
    if (status) return status;
    uint8_t *out = encoder->escaped;
    if (prefix) {
        memcpy(out, "\xE2\x96\x81", 3);
        count = 3;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ') {
            memcpy(out + count, "\xE2\x96\x81", 3);
            count += 3;
        } else {
            out[count++] = text[i];
        }
    }
    *escaped = (uint32_t)count;
    return OC_OK;
}

/* The byte that stands at the start of text in pieces, and its width: U+2581 is a space. */
static inline uint8_t unescaped(const uint8_t *text, uint32_t length, uint32_t *width) {
    const bool marker = text[0] == 0xE2 && is_marker(text, length);
    *width = marker ? 3 : 1;
    return marker ? ' ' : text[0];
}

uint32_t oc_spm_word(const oc_vocab *vocab, const uint8_t *text, uint32_t length) {
    uint32_t width, at;
    uint8_t last = unescaped(text, length, &at);
    for (; at < length; at += width) {
        const uint8_t next = unescaped(text + at, length - at, &width);
        const bool inside = (next & 0xC0) == 0x80; // of a character
        if (!inside && !(vocab->neighbours[last][next >> 5] >> (next & 31) & 1)) break;
        last = next;
    }
    return at;
}

oc_status oc_spm_push_bytes(const oc_vocab *vocab, oc_tokens *out, const uint8_t *text, uint32_t length) {
    bool known = true;
    for (uint32_t i = 0; i < length; i++) known = known && vocab->byte_ids[text[i]] != OC_NO_TOKEN;
    if (!known) return vocab->unknown == OC_NO_TOKEN ? OC_OK : oc_tokens_push(out, vocab->unknown);
    oc_status status = OC_OK;
    for (uint32_t i = 0; i < length && !status; i++) status = oc_tokens_push(out, vocab->byte_ids[text[i]]);
    return status;
}

#define NOT_ASKED (-2) /* id of a character; only merges by rank need it beforehand */

oc_status oc_spm_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *raw, uint32_t raw_length, bool prefix,
                        oc_tokens *out) {
    uint32_t length;
    oc_status status = escape(encoder, raw, raw_length, prefix, &length);
    if (status) return status;
    status = oc_text_reserve((void **)&encoder->symbols, &encoder->symbol_capacity, length, sizeof *encoder->symbols);
    if (status) return status;
    const uint8_t *text = encoder->escaped;
    oc_symbol *symbols = encoder->symbols;
    size_t width;
    for (uint32_t at = 0, prev = UINT32_MAX; at < length; prev = at, at += (uint32_t)width) {
        oc_utf8_get(text + at, length - at, &width);
        symbols[at] = (oc_symbol){.prev = prev, .next = at + (uint32_t)width,
                                  .id = vocab->merges ? oc_vocab_find(vocab, text + at, width) : NOT_ASKED};
    }
    status = oc_merge(vocab, encoder, text, length);
    for (uint32_t at = 0, next; at < length && !status; at = next) {
        next = symbols[at].next;
        const int32_t id = symbols[at].id == NOT_ASKED ? oc_vocab_find(vocab, text + at, next - at) : symbols[at].id;
        status = id != OC_NO_TOKEN ? oc_tokens_push(out, id) : oc_spm_push_bytes(vocab, out, text + at, next - at);
    }
    return status;
}
