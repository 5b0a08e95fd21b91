/* pretoken.c - cuts text into pretokens as the models' regular expressions do, without a regex engine.
 *
 * A model's rules are stages. Each stage cuts what the stage before it made, at every match of its expression and at
 * every gap between matches; most models need one. A stage is a matcher and its parameters, a model one row of the
 * table at the end. The expressions, with C for a contraction ('s 't 're 've 'm 'll 'd):
 *
 * gpt2:      C| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * words:     (?i:C)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * cased:     words without (?i:C), and in place of its words [^\r\n\p{L}\p{N}]?U*L+(?i:C)?|[^\r\n\p{L}\p{N}]?U+L*(?i:C)?
 *            where U is [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and L is [\p{Ll}\p{Lm}\p{Lo}\p{M}]; with ranges R, [R]+ comes
 *            first, and U and L lack R
 * thousands: \d{1,3}(?=(?:\d{3})*\b)
 * deepseek3: A[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *            where A is ASCII punctuation or symbols
 *
 * The first alternative that matches wins, as in the expressions.
 */
#include "text/text.h"
#include "text/unicode.h"

#include <stdlib.h>

#define ALL SIZE_MAX
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct code_range {
    uint32_t first, last;
} code_range;

typedef enum lead { LEAD_NONE, LEAD_SPACE, LEAD_WHITE } lead; // before a run: nothing,  ?, \s?
typedef enum short_form { SHORT_NONE, SHORT_FIRST, SHORT_SUFFIX } short_form;

typedef struct stage {
    /* The length of a match at the start of text, 0 if there is none. Then *skip, where it is set, is how many bytes
     * cannot start a match either. */
    size_t (*match)(const struct stage *stage, const uint8_t *text, size_t length, size_t *skip);
    size_t least, most;       // run: characters; words and cased: most digits together
    const code_range *ranges; // run: characters beside those of `classes`; cased: that words lack; in order
    size_t n_ranges;
    int classes;    // run: what it is made of; words: what words are made of
    lead before;    // run
    short_form how; // words and cased: where contractions are looked for
    bool negate;    // run: everything but these
    char slash;     // words and cased: a character that belongs to the line ends after punctuation, or 0
    bool no_ends;   // words: line ends do not join punctuation
    uint64_t ascii[2], starts[2]; // run, filled in a vocabulary's copy: bit c: in the set; may begin a match
} stage;

/* ---- Parts of expressions ---------------------------------------------------------------------------------------- */

static inline int class_at(const uint8_t *text, size_t length, size_t *width) {
    return oc_class(oc_utf8_get(text, length, width));
}

static bool is_in(const code_range *ranges, size_t n, uint32_t code) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > ranges[middle].last) low = middle + 1;
        else high = middle;
    }
    return low < n && code >= ranges[low].first;
}

static bool in_ranges(const stage *stage, uint32_t code) { return is_in(stage->ranges, stage->n_ranges, code); }

static inline bool is_newline(uint8_t c) { return c == '\n' || c == '\r'; }

/* Where the run of these classes that starts at `at` ends, `most` characters at most. */
static inline size_t run_end(const uint8_t *text, size_t length, size_t at, int classes, size_t most) {
    size_t width;
    while (most-- && at < length && class_at(text + at, length - at, &width) & classes) at += width;
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

/* \s+(?!\S)|\s+: white space before something else leaves its last character to that. */
static size_t white_space(const uint8_t *text, size_t length) {
    size_t at = 0, last = 0, width;
    while (at < length && class_at(text + at, length - at, &width) == OC_SPACE) {
        last = at;
        at += width;
    }
    return at == length || last == 0 ? at : last;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t lines_or_white_space(const uint8_t *text, size_t length) {
    size_t after_newline = 0, width;
    for (size_t at = 0; at < length && class_at(text + at, length - at, &width) == OC_SPACE; at += width) {
        if (is_newline(text[at])) after_newline = at + 1;
    }
    return after_newline ? after_newline : white_space(text, length);
}

/*  ?[classes]+[\r\n]*, with one more character among the line ends; 0 if there is none. */
static size_t punctuation(const stage *stage, const uint8_t *text, size_t length, int classes) {
    size_t start = text[0] == ' ', at = run_end(text, length, start, classes, ALL);
    if (at == start) return 0;
    if (stage->no_ends) return at;
    while (at < length && (is_newline(text[at]) || (stage->slash && text[at] == (uint8_t)stage->slash))) at++;
    return at;
}

/* ---- Matchers ---------------------------------------------------------------------------------------------------- */

static size_t match_gpt2(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    (void)stage, (void)skip;
    size_t short_form = contraction(text, length, false);
    if (short_form) return short_form;
    size_t width, start = text[0] == ' ' && length > 1;
    int class = class_at(text + start, length - start, &width);
    if (class == OC_SPACE) return white_space(text, length);
    int classes = class & OC_LETTER ? OC_LETTER : class == OC_NUMBER ? OC_NUMBER : ~(OC_LETTER | OC_NUMBER | OC_SPACE);
    return run_end(text, length, start, classes, ALL);
}

static size_t match_words(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    (void)skip;
    size_t short_form = stage->how == SHORT_FIRST ? contraction(text, length, true) : 0;
    if (short_form) return short_form;
    size_t width;
    int class = class_at(text, length, &width), letters = stage->classes;
    if (class & letters) return run_end(text, length, width, letters, ALL);
    if (class == OC_NUMBER) return run_end(text, length, 0, OC_NUMBER, stage->most);
    if (!is_newline(text[0])) {
        size_t end = run_end(text, length, width, letters, ALL);
        if (end > width) return end;
    }
    size_t end = punctuation(stage, text, length, ~(letters | OC_NUMBER | OC_SPACE));
    return end ? end : lines_or_white_space(text, length);
}

#define LATER (OC_LOWER | OC_CASELESS | OC_MARK) // L, what a word goes on with
#define EARLY (OC_UPPER | OC_CASELESS | OC_MARK) // U, what it may begin with

/* The class of a character of a word; what words lack has none. */
static inline int cased_class(const stage *stage, const uint8_t *text, size_t length, size_t *width) {
    const uint32_t code = oc_utf8_get(text, length, width);
    return stage->n_ranges && in_ranges(stage, code) ? 0 : oc_class(code);
}

static size_t cased_end(const stage *stage, const uint8_t *text, size_t length, size_t at, int classes) {
    size_t width;
    while (at < length && cased_class(stage, text + at, length - at, &width) & classes) at += width;
    return at;
}

/* Where U*L+ from `at` ends, or 0: the last character of U's run that is in L is given back where nothing follows. */
static size_t lower_end(const stage *stage, const uint8_t *text, size_t length, size_t at) {
    size_t width, last = 0;
    int class = 0;
    while (at < length && (class = cased_class(stage, text + at, length - at, &width)) & EARLY) {
        at += width;
        if (class & LATER) last = at;
    }
    return at < length && class & LATER ? cased_end(stage, text, length, at, LATER) : last;
}

/* [R]+ */
static size_t ranges_end(const stage *stage, const uint8_t *text, size_t length) {
    size_t at = 0, width;
    while (at < length && in_ranges(stage, oc_utf8_get(text + at, length - at, &width))) at += width;
    return at;
}

static size_t match_cased(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    (void)skip;
    size_t width, end = stage->n_ranges ? ranges_end(stage, text, length) : 0;
    if (end) return end;
    int class = class_at(text, length, &width);
    if (class == OC_NUMBER) return run_end(text, length, 0, OC_NUMBER, stage->most);
    size_t prefix = class & OC_LETTER || is_newline(text[0]) ? 0 : width;
    end = lower_end(stage, text, length, prefix);
    if (!end && prefix && class == OC_MARK) end = lower_end(stage, text, length, 0);
    if (!end) {
        end = cased_end(stage, text, length, prefix, EARLY);
        if (end == prefix) end = 0;
    }
    if (end) return end + (stage->how == SHORT_SUFFIX ? contraction(text + end, length - end, true) : 0);
    end = punctuation(stage, text, length, ~(OC_LETTER | OC_NUMBER | OC_SPACE));
    return end ? end : lines_or_white_space(text, length);
}

static bool is_latin(uint8_t c) { return (uint8_t)((c | 0x20) - 'a') < 26; }

static size_t match_deepseek3(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    (void)skip;
    const int marks = OC_PUNCTUATION | OC_SYMBOL, letters = OC_LETTER | OC_MARK;
    size_t width, end = 1;
    int class = class_at(text, length, &width);
    if (text[0] < 0x80 && class & marks) {
        while (end < length && is_latin(text[end])) end++;
        if (end > 1) return end;
    }
    size_t prefix = class & (OC_LETTER | marks) || is_newline(text[0]) ? 0 : width;
    end = run_end(text, length, prefix, letters, ALL);
    if (end > prefix) return end;
    if (class == OC_MARK) return width;
    end = punctuation(stage, text, length, marks);
    return end ? end : lines_or_white_space(text, length);
}

static bool in_set(const stage *stage, uint32_t code) {
    return (oc_class(code) & stage->classes || in_ranges(stage, code)) != stage->negate;
}

static inline bool has_bit(const uint64_t bits[2], uint8_t c) { return bits[c >> 6] >> (c & 63) & 1; }

/* Where a run of the stage's characters from `at` ends; `at` if it is too short. */
static size_t set_run(const stage *stage, const uint8_t *text, size_t length, size_t at) {
    size_t start = at, count = 0, width;
    for (; at < length && count < stage->most; at += width, count++) {
        width = 1;
        if (text[at] < 0x80 ? !has_bit(stage->ascii, text[at])
                            : !in_set(stage, oc_utf8_get(text + at, length - at, &width)))
            break;
    }
    return count < stage->least ? start : at;
}

/* \s?[...]+ and the like. */
static size_t match_run(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    size_t width, end;
    bool white = stage->before == LEAD_WHITE && class_at(text, length, &width) == OC_SPACE;
    if (stage->before == LEAD_SPACE && text[0] == ' ') {
        white = true;
        width = 1;
    }
    if (white && (end = set_run(stage, text, length, width)) > width) return end;
    if ((end = set_run(stage, text, length, 0))) return end;
    for (oc_utf8_get(text, length, skip); *skip < length; ++*skip) {
        if (text[*skip] >= 0x80 || has_bit(stage->starts, text[*skip])) break;
    }
    return 0;
}

static void find_ascii(stage *stage) {
    for (uint8_t c = 0; c < 0x80; c++) {
        const uint64_t bit = (uint64_t)1 << (c & 63), member = in_set(stage, c) ? bit : 0;
        const bool leads = stage->before == LEAD_WHITE ? oc_class(c) == OC_SPACE : stage->before == LEAD_SPACE && c == ' ';
        stage->ascii[c >> 6] |= member;
        stage->starts[c >> 6] |= leads ? bit : member;
    }
}

/* What belongs to words beside letters, marks and decimal digits: \w of tokenizers. */
static const code_range in_words[] = {
    {0x5F, 0x5F}, {0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}, {0x16EE, 0x16F0}, {0x203F, 0x2040},
    {0x2054, 0x2054}, {0x2160, 0x2182}, {0x2185, 0x2188}, {0x24B6, 0x24E9}, {0x3007, 0x3007},
    {0x3021, 0x3029}, {0x3038, 0x303A}, {0xA6E6, 0xA6EF}, {0xFE33, 0xFE34}, {0xFE4D, 0xFE4F},
    {0xFF3F, 0xFF3F}, {0x10140, 0x10174}, {0x10341, 0x10341}, {0x1034A, 0x1034A}, {0x103D1, 0x103D5},
    {0x12400, 0x1246E}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
/* As many digits as leave whole threes to the end of a number, which no letter follows. */
static size_t match_thousands(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    size_t at = 0, count = 0, ends[3] = {0}, width;
    uint32_t code = 0;
    for (; at < length && in_ranges(stage, code = oc_utf8_get(text + at, length - at, &width)); count++) {
        at += width;
        if (count < COUNT(ends)) ends[count] = at;
    }
    *skip = at;
    const bool is_joined = oc_class(code) & (OC_LETTER | OC_MARK) || is_in(in_words, COUNT(in_words), code);
    if (count == 0 || (at < length && is_joined)) return 0;
    return ends[(count - 1) % 3];
}

/* \s+$ */
static size_t match_last_space(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    (void)stage;
    size_t end = run_end(text, length, 0, OC_SPACE, ALL);
    *skip = text[length - 1] < 0x80 && oc_class(text[length - 1]) != OC_SPACE ? length : end;
    return end == length ? end : 0;
}

/* [^\n]+|[\n]+ */
static size_t match_line(const stage *stage, const uint8_t *text, size_t length, size_t *skip) {
    (void)stage, (void)skip;
    if (text[0] != '\n') {
        const uint8_t *newline = memchr(text, '\n', length);
        return newline ? (size_t)(newline - text) : length;
    }
    size_t end = 1;
    while (end < length && text[end] == '\n') end++;
    return end;
}

/* ---- The models -------------------------------------------------------------------------------------------------- */

/* The letters with case that DeepSeek's first models know. */
static const code_range cased_letters[] = {
    {0x41, 0x5A}, {0x61, 0x7A}, {0xB5, 0xB5}, {0xC0, 0xD6}, {0xD8, 0xF6}, {0xF8, 0x1BA}, {0x1BC, 0x1BF},
    {0x1C4, 0x293}, {0x295, 0x2AF}, {0x370, 0x373}, {0x376, 0x376}, {0x377, 0x377}, {0x37B, 0x37D},
    {0x37F, 0x37F}, {0x386, 0x386}, {0x388, 0x38A}, {0x38C, 0x38C}, {0x38E, 0x3A1}, {0x3A3, 0x3F5},
    {0x3F7, 0x481}, {0x48A, 0x52F}, {0x531, 0x556}, {0x10A0, 0x10C5}, {0x13A0, 0x13F5}, {0x13F8, 0x13FD},
    {0x1C90, 0x1CBA}, {0x1CBD, 0x1CBF}, {0x1D00, 0x1D2B}, {0x1D6B, 0x1D77}, {0x1D79, 0x1D9A},
    {0x1E00, 0x1F15}, {0x1F18, 0x1F1D}, {0x1F20, 0x1F45}, {0x1F48, 0x1F4D}, {0x1F50, 0x1F57},
    {0x1F59, 0x1F59}, {0x1F5B, 0x1F5B}, {0x1F5D, 0x1F5D}, {0x1F5F, 0x1F7D}, {0x1F80, 0x1FB4},
    {0x1FB6, 0x1FBC}, {0x1FBE, 0x1FBE}, {0x1FC2, 0x1FC4}, {0x1FC6, 0x1FCC}, {0x1FD0, 0x1FD3},
    {0x1FD6, 0x1FDB}, {0x1FE0, 0x1FEC}, {0x1FF2, 0x1FF4}, {0x1FF6, 0x1FFC}, {0x2102, 0x2102},
    {0x2107, 0x2107}, {0x210A, 0x2113}, {0x2115, 0x2115}, {0x2119, 0x211D}, {0x2124, 0x2124},
    {0x2126, 0x2126}, {0x2128, 0x2128}, {0x212A, 0x212D}, {0x212F, 0x2134}, {0x2139, 0x2139},
    {0x213C, 0x213F}, {0x2145, 0x2149}, {0x214E, 0x214E}, {0x2183, 0x2183}, {0x2184, 0x2184},
    {0x2C00, 0x2C7B}, {0x2C7E, 0x2CE4}, {0x2CEB, 0x2CEE}, {0x2CF2, 0x2CF2}, {0x2CF3, 0x2CF3},
    {0xA640, 0xA66D}, {0xA680, 0xA69B}, {0xA722, 0xA76F}, {0xA771, 0xA787}, {0xA78B, 0xA78E},
    {0xAB70, 0xABBF}, {0xFB00, 0xFB06}, {0xFB13, 0xFB17}, {0xFF21, 0xFF3A}, {0xFF41, 0xFF5A},
    {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2},
    {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
static const code_range wide_punctuation[] = {{'!', '/'},       {':', '~'},       {0x2018, 0x201F},
                                              {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
static const code_range east_asian[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
static const code_range han_and_kana[] = {{0x3040, 0x30FF}, {0x4E00, 0x9FA5}};
static const code_range ascii_digits[] = {{'0', '9'}};
static const code_range falcon_symbols[] = {{'$', '$'}, {'+', '+'}, {'<', '>'}, {'^', '^'},
                                            {'`', '`'}, {'|', '|'}, {'~', '~'}};
static const code_range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}};
static const code_range bloom_stops[] = {{'!', '!'},     {'(', ')'},     {',', ','},     {'.', '.'},
                                         {'?', '?'},     {'|', '|'},     {0x60C, 0x60C}, {0x6D4, 0x6D4},
                                         {0x964, 0x964}, {0x2026, 0x2026}, {0x3001, 0x3002}, {0xFF0C, 0xFF0C}};

/* Decimal digits. */
static const code_range digits[] = {
    {0x30, 0x39}, {0x660, 0x669}, {0x6F0, 0x6F9}, {0x7C0, 0x7C9}, {0x966, 0x96F}, {0x9E6, 0x9EF},
    {0xA66, 0xA6F}, {0xAE6, 0xAEF}, {0xB66, 0xB6F}, {0xBE6, 0xBEF}, {0xC66, 0xC6F}, {0xCE6, 0xCEF},
    {0xD66, 0xD6F}, {0xDE6, 0xDEF}, {0xE50, 0xE59}, {0xED0, 0xED9}, {0xF20, 0xF29}, {0x1040, 0x1049},
    {0x1090, 0x1099}, {0x17E0, 0x17E9}, {0x1810, 0x1819}, {0x1946, 0x194F}, {0x19D0, 0x19D9},
    {0x1A80, 0x1A89}, {0x1A90, 0x1A99}, {0x1B50, 0x1B59}, {0x1BB0, 0x1BB9}, {0x1C40, 0x1C49},
    {0x1C50, 0x1C59}, {0xA620, 0xA629}, {0xA8D0, 0xA8D9}, {0xA900, 0xA909}, {0xA9D0, 0xA9D9},
    {0xA9F0, 0xA9F9}, {0xAA50, 0xAA59}, {0xABF0, 0xABF9}, {0xFF10, 0xFF19}, {0x104A0, 0x104A9},
    {0x10D30, 0x10D39}, {0x11066, 0x1106F}, {0x110F0, 0x110F9}, {0x11136, 0x1113F}, {0x111D0, 0x111D9},
    {0x112F0, 0x112F9}, {0x11450, 0x11459}, {0x114D0, 0x114D9}, {0x11650, 0x11659}, {0x116C0, 0x116C9},
    {0x11730, 0x11739}, {0x118E0, 0x118E9}, {0x11950, 0x11959}, {0x11C50, 0x11C59}, {0x11D50, 0x11D59},
    {0x11DA0, 0x11DA9}, {0x11F50, 0x11F59}, {0x16A60, 0x16A69}, {0x16AC0, 0x16AC9}, {0x16B50, 0x16B59},
    {0x1D7CE, 0x1D7FF}, {0x1E140, 0x1E149}, {0x1E2F0, 0x1E2F9}, {0x1E4F0, 0x1E4F9}, {0x1E950, 0x1E959},
    {0x1FBF0, 0x1FBF9}};
/* The script Han, in Unicode 15.1. */
static const code_range han[] = {
    {0x2E80, 0x2E99},   {0x2E9B, 0x2EF3},   {0x2F00, 0x2FD5},   {0x3005, 0x3005},   {0x3007, 0x3007},
    {0x3021, 0x3029},   {0x3038, 0x303B},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFA6D},
    {0xFA70, 0xFAD9},   {0x16FE2, 0x16FE3}, {0x16FF0, 0x16FF1}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B739},
    {0x2B740, 0x2B81D}, {0x2B820, 0x2CEA1}, {0x2CEB0, 0x2EBE0}, {0x2EBF0, 0x2EE5D}, {0x2F800, 0x2FA1D},
    {0x30000, 0x3134A}, {0x31350, 0x323AF}};
static const code_range hangul[] = {{0x3131, 0x318E}, {0xAC00, 0xD7A3}};
static const code_range youtu_marks[] = {{0x2014, 0x2014}, {0x2018, 0x2019}, {0x201C, 0x201D}, {0x2026, 0x2026},
                                         {0x3001, 0x303F}, {0xFE30, 0xFE4F}, {0xFF01, 0xFF01}, {0xFF0C, 0xFF0C},
                                         {0xFF1A, 0xFF1B}};
static const code_range bopomofo[] = {{0x3105, 0x312F}};

#define RANGES(array) .ranges = array, .n_ranges = COUNT(array)
#define GPT2 {.match = match_gpt2}
#define WORDS(digits) {.match = match_words, .classes = OC_LETTER, .most = digits, .how = SHORT_FIRST}
#define DIGITS(few) {.match = match_run, .classes = OC_NUMBER, .least = 1, .most = few}
#define RUN(array, lowest, highest) {.match = match_run, RANGES(array), .least = lowest, .most = highest}
#define LED_RUN(array) {.match = match_run, RANGES(array), .before = LEAD_WHITE, .least = 1, .most = ALL}
#define LED_CLASS(set) {.match = match_run, .classes = set, .before = LEAD_WHITE, .least = 1, .most = ALL}
#define BLOOM {.match = match_run, .classes = OC_SPACE, RANGES(bloom_stops), .negate = true, .before = LEAD_SPACE, \
               .least = 1, .most = ALL}

struct oc_pretokenizer {
    const char *name;
    stage stages[OC_STAGES_MAX]; // as many as have a matcher
};

static const oc_pretokenizer pretokenizers[] = {
    {"gpt-2", {GPT2}},
    {"smollm", {DIGITS(1), GPT2}},
    {"falcon",
     {{.match = match_run, .classes = OC_PUNCTUATION, RANGES(falcon_symbols), .least = 1, .most = ALL},
      GPT2,
      RUN(ascii_digits, 3, 3)}},
    {"llama-bpe", {WORDS(3)}},
    {"qwen2", {WORDS(1)}},
    {"qwen35", {{.match = match_words, .classes = OC_LETTER | OC_MARK, .most = 1, .how = SHORT_FIRST}}},
    {"seed-coder", {{.match = match_words, .classes = OC_LETTER, .most = 1, .how = SHORT_FIRST, .no_ends = true}}},
    {"minicpm5", {DIGITS(3), WORDS(ALL)}},
    {"laguna", {{.match = match_line}, WORDS(1)}},
    {"gpt-4o", {{.match = match_cased, .most = 3, .how = SHORT_SUFFIX, .slash = '/'}}},
    {"tekken", {{.match = match_cased, .most = 1, .slash = '/'}}},
    {"kimi-k2", {{.match = match_cased, RANGES(han), .most = 3, .how = SHORT_SUFFIX}}},
    {"tiny-aya",
     {{.match = match_thousands, RANGES(digits)}, {.match = match_cased, .most = 3, .how = SHORT_SUFFIX, .slash = '/'}}},
    {"youtu",
     {RUN(hangul, 1, ALL), RUN(youtu_marks, 1, ALL), RUN(bopomofo, 1, ALL), RUN(han_and_kana, 1, ALL),
      {.match = match_cased, .most = 1, .how = SHORT_SUFFIX, .slash = '/'}}},
    {"deepseek-llm",
     {RUN(line_ends, 1, 1), LED_RUN(cased_letters), LED_RUN(wide_punctuation), {.match = match_last_space},
      RUN(east_asian, 1, ALL), DIGITS(ALL)}},
    {"deepseek-coder",
     {RUN(line_ends, 1, 1), LED_CLASS(OC_LETTER), LED_CLASS(OC_PUNCTUATION), RUN(east_asian, 1, ALL), DIGITS(1)}},
    {"deepseek-v3", {DIGITS(3), RUN(han_and_kana, 1, ALL), {.match = match_deepseek3}}},
    {"bloom", {BLOOM}},
    {"viking", {BLOOM, DIGITS(1)}},
};

oc_status oc_pretokenizer_create(const char *name, oc_pretokenizer **out) {
    for (size_t i = 0; i < COUNT(pretokenizers); i++) {
        if (strcmp(pretokenizers[i].name, name) != 0) continue;
        oc_pretokenizer *made = malloc(sizeof *made);
        if (!made) return OC_ERR_NOMEM;
        *made = pretokenizers[i];
        for (size_t k = 0; k < OC_STAGES_MAX; k++) find_ascii(&made->stages[k]);
        *out = made;
        return OC_OK;
    }
    return OC_ERR_ARGUMENT;
}

/* ---- Cutting ----------------------------------------------------------------------------------------------------- */

/* Where the match, or the gap before the next match, that starts at `at` ends. */
static size_t piece_end(const stage *stage, const uint8_t *text, size_t at, size_t end) {
    size_t skip = 0, width, match = stage->match(stage, text + at, end - at, &skip);
    if (match) return at + match;
    while (at < end) {
        if (!skip) {
            oc_utf8_get(text + at, end - at, &width);
            skip = width;
        }
        at += skip;
        skip = 0;
        if (at < end && stage->match(stage, text + at, end - at, &skip)) break;
    }
    return at;
}

size_t oc_pretoken_end(const oc_pretokenizer *pre, oc_cuts *cuts, const uint8_t *text, size_t at, size_t length) {
    size_t end = length;
    for (size_t i = 0; i < OC_STAGES_MAX && pre->stages[i].match; i++) {
        if (cuts->ends[i] <= at) cuts->ends[i] = piece_end(&pre->stages[i], text, at, end);
        end = cuts->ends[i];
    }
    return end;
}
