/* pretoken.c - cuts text into pretokens as the models' regular expressions do, without a regex engine.
 *
 * GPT-2:          's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * SmolLM:         every \p{N} alone, then GPT-2 on what lies between, each stretch by itself
 * Llama 3, Qwen2: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
 *                 |\s*[\r\n]+|\s+(?!\S)|\s+        with \p{N} in place of \p{N}{1,3} for Qwen2
 * The first alternative that matches wins, as in the expressions; each function returns the length of its match.
 */
#include "text/text.h"
#include "text/unicode.h"

static inline int class_at(const uint8_t *text, size_t length, size_t *width) {
    return oc_class(oc_utf8_get(text, length, width));
}

/* Bytes of the run of one class that starts at `at`, `most` characters at most. */
static size_t run_end(const uint8_t *text, size_t length, size_t at, int class, size_t most) {
    size_t width;
    while (most-- && at < length && class_at(text + at, length - at, &width) == class) at += width;
    return at;
}

static size_t contraction(const uint8_t *text, size_t length, bool any_case) {
    if (length < 2 || text[0] != '\'') return 0;
    uint8_t fold = any_case ? 0x20 : 0, a = text[1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (length < 3) return 0;
    if (any_case && text[1] == 0xC5 && text[2] == 0xBF) return 3; // U+017F folds to s
    uint8_t b = text[2] | fold;
    return (b == 'e' && (a == 'r' || a == 'v')) || (b == 'l' && a == 'l') ? 3 : 0;
}

/* White space before something else leaves its last character to that; with `end_at_number`, a number ends the text. */
static size_t white_space(const uint8_t *text, size_t length, bool end_at_number) {
    size_t at = 0, last = 0, width;
    int class = OC_SPACE;
    while (at < length && (class = class_at(text + at, length - at, &width)) == OC_SPACE) {
        last = at;
        at += width;
    }
    bool at_end = at == length || (end_at_number && class == OC_NUMBER);
    return at_end || last == 0 ? at : last;
}

static size_t gpt2(const uint8_t *text, size_t length, bool split_numbers) {
    size_t short_form = contraction(text, length, false);
    if (short_form) return short_form;
    size_t width, start = 0;
    int class = class_at(text, length, &width);
    if (split_numbers && class == OC_NUMBER) return width;
    if (text[0] == ' ' && length > 1) {
        int after = class_at(text + 1, length - 1, &width);
        if (after != OC_SPACE && !(split_numbers && after == OC_NUMBER)) {
            class = after;
            start = 1;
        }
    }
    if (class == OC_SPACE) return white_space(text, length, split_numbers);
    return run_end(text, length, start, class, SIZE_MAX);
}

static inline bool is_newline(uint8_t c) { return c == '\n' || c == '\r'; }

static size_t llama3(const uint8_t *text, size_t length, size_t most_digits) {
    size_t short_form = contraction(text, length, true);
    if (short_form) return short_form;
    size_t width, width_after, at;
    int class = class_at(text, length, &width);
    if (class == OC_LETTER) return run_end(text, length, width, OC_LETTER, SIZE_MAX);
    if (class == OC_NUMBER) return run_end(text, length, 0, OC_NUMBER, most_digits);
    if (!is_newline(text[0]) && width < length &&
        class_at(text + width, length - width, &width_after) == OC_LETTER) {
        return run_end(text, length, width, OC_LETTER, SIZE_MAX);
    }
    size_t start = text[0] == ' ';
    if (start < length && class_at(text + start, length - start, &width) == OC_OTHER) {
        at = run_end(text, length, start, OC_OTHER, SIZE_MAX);
        while (at < length && is_newline(text[at])) at++;
        return at;
    }
    size_t after_newline = 0;
    for (at = 0; at < length && class_at(text + at, length - at, &width) == OC_SPACE; at += width) {
        if (is_newline(text[at])) after_newline = at + 1;
    }
    return after_newline ? after_newline : white_space(text, length, false);
}

size_t oc_pretoken(oc_pretokenizer pre, const uint8_t *text, size_t length) {
    switch (pre) {
    case OC_PRE_LLAMA3: return llama3(text, length, 3);
    case OC_PRE_QWEN2: return llama3(text, length, 1);
    case OC_PRE_SMOLLM: return gpt2(text, length, true);
    case OC_PRE_GPT2: break;
    }
    return gpt2(text, length, false);
}
