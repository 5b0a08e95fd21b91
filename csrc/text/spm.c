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

/* A piece that goes on past a space, such as ">▁</", forbids the cut between words after the byte before that space. */
static void note_joins(oc_vocab *vocab, const uint8_t *text, size_t length) {
    for (size_t at = 1; at < length; at++) {
        if (!is_marker(text + at, length - at) || (at >= 3 && is_marker(text + at - 3, 3))) continue;
        vocab->joins[text[at - 1]] = true;
    }
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

void oc_spm_load_joins(oc_vocab *vocab) {
    for (uint32_t id = 0; id < vocab->count; id++) {
        size_t length;
        const uint8_t *text = oc_vocab_text(vocab, (int32_t)id, &length);
        oc_token_type type = vocab->types[id];
        if (type != OC_TOKEN_CONTROL && type != OC_TOKEN_UNKNOWN) note_joins(vocab, text, length);
    }
}

oc_status oc_spm_escape(oc_encoder *encoder, const uint8_t *text, size_t length, bool prefix, uint32_t *escaped) {
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

uint32_t oc_spm_word(const oc_vocab *vocab, const uint8_t *text, uint32_t length) {
    uint32_t at = 0;
    while (is_marker(text + at, length - at)) at += 3;
    while (at < length) {
        if (!is_marker(text + at, length - at)) {
            at++;
        } else {
            if (!vocab->joins[text[at - 1]]) break;
            while (is_marker(text + at, length - at)) at += 3;
        }
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

oc_status oc_spm_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                        oc_tokens *out) {
    oc_status status = oc_text_reserve((void **)&encoder->symbols, &encoder->symbol_capacity, length,
                                       sizeof *encoder->symbols);
    if (status) return status;
    oc_symbol *symbols = encoder->symbols;
    size_t width;
    for (uint32_t at = 0, prev = UINT32_MAX; at < length; prev = at, at += (uint32_t)width) {
        oc_utf8_get(text + at, length - at, &width);
        symbols[at] = (oc_symbol){.prev = prev, .next = at + (uint32_t)width,
                                  .id = oc_vocab_find(vocab, text + at, width)};
    }
    status = oc_merge(vocab, encoder, text, length);
    for (uint32_t at = 0; at < length && !status; at = symbols[at].next) {
        status = symbols[at].id != OC_NO_TOKEN ? oc_tokens_push(out, symbols[at].id)
                                               : oc_spm_push_bytes(vocab, out, text + at, symbols[at].next - at);
    }
    return status;
}
