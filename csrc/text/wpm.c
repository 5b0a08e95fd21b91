/* wpm.c - WordPiece: BERT's normalizer, then the longest piece that fits from the start of each word on.
 *
 * In the vocabulary a piece that begins a word has U+2581 in front, and one inside a word has nothing (converters
 * write it so in place of "##"). Words stand in encoder->escaped as a space, U+2581, and their characters.
 */
#include "text/text.h"
#include "text/unicode.h"
#include "text/wordpiece_tables.h"

#define WORD_MAX 100u     /* characters; a longer word is unknown as a whole */
#define MARKER_BYTES 3u   /* U+2581 in UTF-8 */
#define CHARACTER_MAX 8u  /* bytes that one character adds: space, marker, UTF-8 */

enum { WORD = 0, SPACE = 1, ALONE = 2, DROPPED = 3 };

static int class_of(uint32_t code) {
    uint32_t four = oc_wpm_class_stage2[oc_wpm_class_stage1[code >> 8] * 64u + (code >> 2 & 63)];
    return (int)(four >> (2 * (code & 3)) & 3);
}

/* The blocks of ideographs that BERT takes for words of their own; the gap before U+2B920 is its authors'. */
static bool is_ideograph(uint32_t code) {
    return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
           (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
           (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
           (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

#define FOLD_MAX 4

/* What stands for a character: lower case, decomposed, without accents. */
static int fold(uint32_t code, uint32_t out[FOLD_MAX]) {
    if (code >= 0xAC00 && code <= 0xD7A3) { /* Hangul syllables: Unicode 3.12 */
        uint32_t s = code - 0xAC00;
        out[0] = 0x1100 + s / 588;
        out[1] = 0x1161 + s % 588 / 28;
        out[2] = 0x11A7 + s % 28;
        return s % 28 ? 3 : 2;
    }
    uint32_t index = oc_wpm_fold_stage2[oc_wpm_fold_stage1[code >> 7] * 128u + (code & 127)];
    if (index == 0) {
        out[0] = code;
        return 1;
    }
    int n = (int)oc_wpm_fold_pool[index];
    for (int i = 0; i < n; i++) out[i] = oc_wpm_fold_pool[index + 1 + (uint32_t)i];
    return n;
}

static size_t put_utf8(uint8_t *out, uint32_t code) {
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6) out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)((0xF00 >> length & 0xF0) | code);
    return length;
}

/* Where words are written. */
typedef struct writer {
    uint8_t *out;
    size_t count;
    bool in_word;
} writer;

static void put(writer *w, uint32_t code, bool alone) {
    if (!w->in_word || alone) {
        memcpy(w->out + w->count, " \xE2\x96\x81", 1 + MARKER_BYTES);
        w->count += 1 + MARKER_BYTES;
    }
    /* A marker in the text itself must not look like the start of a word; no piece has this character. */
    w->count += put_utf8(w->out + w->count, code == 0x2581 ? 0xFFFD : code);
    w->in_word = !alone;
}

oc_status oc_wpm_normalize(oc_encoder *encoder, const uint8_t *text, size_t length, bool lowercase,
                           uint32_t *size) {
    writer w = {0};
    size_t width;
    for (size_t at = 0; at < length; at += width) {
        uint32_t code = oc_utf8_get(text + at, length - at, &width), parts[FOLD_MAX] = {code};
        oc_status status = oc_text_reserve((void **)&encoder->escaped, &encoder->escaped_capacity,
                                           w.count + FOLD_MAX * CHARACTER_MAX, 1);
        if (status) return status;
        w.out = encoder->escaped;
        int class = class_of(code), n = lowercase ? fold(code, parts) : 1;
        if (class == SPACE) w.in_word = false;
        if (class == SPACE || class == DROPPED) continue;
        for (int i = 0; i < n; i++) put(&w, parts[i], is_ideograph(code) || class_of(parts[i]) == ALONE);
    }
    if (w.count > INT32_MAX) return OC_ERR_ARGUMENT;
    *size = (uint32_t)w.count;
    return OC_OK;
}

uint32_t oc_wpm_word(const uint8_t *text, uint32_t length) {
    uint32_t at = 1;
    while (at < length && text[at] != ' ') at++;
    return at;
}

static bool is_inside(uint8_t byte) { return (byte & 0xC0) == 0x80; }

static uint32_t count_characters(const uint8_t *text, uint32_t length) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < length; i++) count += !is_inside(text[i]);
    return count;
}

/* The longest piece at the start of text that has more than `least` bytes, and its length. */
static int32_t longest_piece(const oc_vocab *vocab, const uint8_t *text, uint32_t length, uint32_t least,
                             uint32_t *end) {
    uint32_t at = length < vocab->longest ? length : vocab->longest;
    while (at < length && is_inside(text[at])) at--;
    for (; at > least; at--) {
        if (at < length && is_inside(text[at])) continue;
        int32_t id = oc_vocab_find(vocab, text, at);
        if (id == OC_NO_TOKEN) continue;
        *end = at;
        return id;
    }
    return OC_NO_TOKEN;
}

oc_status oc_wpm_encode(const oc_vocab *vocab, const uint8_t *text, uint32_t length, oc_tokens *out) {
    const size_t before = out->count;
    const uint32_t start = 1; /* the space */
    uint32_t end;
    oc_status status = OC_OK;
    bool known = count_characters(text + start, length - start) <= WORD_MAX + 1;
    for (uint32_t at = start; known && at < length && !status; at += end) {
        int32_t id = longest_piece(vocab, text + at, length - at, at == start ? MARKER_BYTES : 0, &end);
        known = id != OC_NO_TOKEN;
        if (known) status = oc_tokens_push(out, id);
        else end = 0;
    }
    if (known || status) return status;
    out->count = before; /* a word with an unknown part is unknown as a whole */
    return vocab->unknown == OC_NO_TOKEN ? OC_OK : oc_tokens_push(out, vocab->unknown);
}
