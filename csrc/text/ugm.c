/* ugm.c - SentencePiece unigram: a precompiled normaliser, then the pieces whose scores have the highest sum.
 *
 * The normaliser is a table from a stretch of text to its replacement: a double array of 32-bit units (a trie; its
 * children are found by xor with the byte), and zero-terminated replacements that its leaves point to.
 */
#include "text/text.h"
#include "text/unicode.h"

#include <stdlib.h>

#define UNKNOWN_PENALTY 10.0 /* how much worse a character without a piece is than the worst piece */
#define REPLACEMENT_MAX 1024u
#define PREFIX_SLOTS_MAX (1u << 25) /* the bits of a hash that are used */
#define MARKER "\xE2\x96\x81" /* U+2581 */

/* ---- The normaliser ---------------------------------------------------------------------------------------------- */

static uint32_t read_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static oc_status load_charsmap(oc_vocab *vocab, const uint8_t *data, size_t size, char *err) {
    if (size < 4 || read_u32(data) >= size - 4 || read_u32(data) % 4) {
        return oc_text_fail(err, "the precompiled charsmap of ", size, " bytes is cut short", NULL, 0);
    }
    size_t length = 0;
    for (size_t at = 4 + read_u32(data); at < size; at++) {
        length = data[at] ? length + 1 : 0;
        if (length > REPLACEMENT_MAX) break;
    }
    if (length) return oc_text_fail(err, "the precompiled charsmap of ", size, " bytes has a text without end", NULL, 0);
    vocab->charsmap = malloc(size);
    if (!vocab->charsmap) return OC_ERR_NOMEM;
    memcpy(vocab->charsmap, data, size);
    vocab->charsmap_size = size;
    return OC_OK;
}

/* Unit i of the double array; 0, which has no children, for one that is not there. */
static uint32_t unit(const oc_vocab *vocab, uint32_t i) {
    return i < read_u32(vocab->charsmap) / 4 ? read_u32(vocab->charsmap + 4 + 4 * (size_t)i) : 0;
}

static uint32_t children(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

/* The replacement of the longest stretch at the start of text that has one, and that stretch's length, or NULL. */
static const char *replacement(const oc_vocab *vocab, const uint8_t *text, size_t length, size_t *width) {
    const char *found = NULL;
    if (!vocab->charsmap) return NULL;
    size_t strings = 4 + (size_t)read_u32(vocab->charsmap);
    uint32_t at = children(unit(vocab, 0));
    for (size_t i = 0; i < length && text[i]; i++) {
        at ^= text[i];
        uint32_t node = unit(vocab, at);
        if ((node & 0x800000FFu) != text[i]) break;
        at ^= children(node);
        if (!(node & 0x100)) continue;
        uint32_t offset = unit(vocab, at) & 0x7FFFFFFFu;
        if (offset >= vocab->charsmap_size - strings) break;
        found = (const char *)vocab->charsmap + strings + offset;
        *width = i + 1;
    }
    return found;
}

typedef struct writer {
    uint8_t *out;
    size_t count;
    bool started, space; // a character is written; a space is due before the next one
} writer;

static void put(writer *w, const oc_vocab *vocab, const uint8_t *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bool space = text[i] == ' ';
        if (space && vocab->trim_spaces) {
            w->space = w->started;
            continue;
        }
        if (!w->started && vocab->trim_spaces) w->space = vocab->add_space_prefix;
        for (int n = w->space + space; n; n--, w->count += 3) memcpy(w->out + w->count, MARKER, 3);
        if (!space) w->out[w->count++] = text[i];
        w->started = true;
        w->space = false;
    }
}

oc_status oc_ugm_normalize(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, size_t length,
                           uint32_t *size) {
    // Where spaces are trimmed, the prefix waits for a character; else it stands even where all characters vanish.
    writer w = {.space = length && vocab->add_space_prefix && !vocab->trim_spaces};
    size_t width;
    for (size_t at = 0; at < length; at += width) {
        const char *mapped = replacement(vocab, text + at, length - at, &width);
        const uint8_t *bytes = mapped ? (const uint8_t *)mapped : text + at;
        size_t n = mapped ? strlen(mapped) : 0;
        if (!mapped) {
            bool broken = oc_utf8_get(text + at, length - at, &width) == 0xFFFD && width == 1;
            bytes = broken ? (const uint8_t *)"\xEF\xBF\xBD" : bytes;
            n = broken ? 3 : width;
        }
        if (w.count + 3 * n + 3 > INT32_MAX) return OC_ERR_ARGUMENT;
        oc_status status = oc_text_reserve((void **)&encoder->escaped, &encoder->escaped_capacity,
                                           w.count + 3 * n + 3, 1);
        if (status) return status;
        w.out = encoder->escaped;
        put(&w, vocab, bytes, n);
    }
    if (w.space && !vocab->trim_spaces) {
        memcpy(w.out, MARKER, 3);
        w.count = 3;
    }
    *size = (uint32_t)w.count;
    return OC_OK;
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

/* ---- Prefixes of pieces ----
 * Two bits for each hash of one or more characters: some piece goes on after them; they are a piece. Hashes collide, so
 * a bit that is not set is the answer that saves a look into the index. */

enum { GOES_ON = 1, IS_PIECE = 2 };

static inline uint32_t prefix_hash(uint32_t hash, uint32_t character) {
    return (hash ^ character) * 0x9E3779B1u ^ (hash >> 15);
}

static inline uint32_t prefix_bits(const oc_vocab *vocab, uint32_t hash) {
    hash = hash * 0x85EBCA6Bu >> 7 & vocab->prefix_mask;
    return vocab->prefixes[hash >> 2] >> (2 * (hash & 3)) & 3;
}

static void note_prefixes(oc_vocab *vocab, const uint8_t *text, size_t length) {
    size_t width;
    uint32_t hash = 0;
    for (size_t at = 0; at < length; at += width) {
        hash = prefix_hash(hash, oc_utf8_get(text + at, length - at, &width));
        const uint32_t slot = hash * 0x85EBCA6Bu >> 7 & vocab->prefix_mask;
        const int bits = at + width < length ? GOES_ON : IS_PIECE;
        vocab->prefixes[slot >> 2] |= (uint8_t)(bits << (2 * (slot & 3)));
    }
}

/* A run of characters without pieces is one unknown token, so text may be cut only between ASCII characters of which one
 * is a piece, and before a space, if a space is a piece. */
static void keep_runs_whole(oc_vocab *vocab) {
    const bool space = oc_vocab_find(vocab, (const uint8_t *)MARKER, 3) != OC_NO_TOKEN;
    bool known[256] = {[' '] = space};
    for (int byte = 0; byte < 128; byte++) {
        const uint8_t key = (uint8_t)byte;
        if (byte != ' ') known[byte] = oc_vocab_find(vocab, &key, 1) != OC_NO_TOKEN;
    }
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++) {
            if (b == ' ' ? space : a < 128 && b < 128 && (known[a] || known[b])) continue;
            vocab->neighbours[a][b >> 5] |= 1u << (b & 31);
        }
}

oc_status oc_ugm_load(oc_vocab *vocab, const oc_vocab_spec *spec, char *err) {
    if (spec->charsmap_size) {
        oc_status status = load_charsmap(vocab, spec->charsmap, spec->charsmap_size, err);
        if (status) return status;
    }
    vocab->scores = malloc((size_t)vocab->count * sizeof *vocab->scores);
    const uint32_t slots = oc_table_slots((size_t)vocab->count * 8);
    vocab->prefix_mask = (slots < PREFIX_SLOTS_MAX ? slots : PREFIX_SLOTS_MAX) - 1;
    vocab->prefixes = calloc(vocab->prefix_mask / 4 + 1, 1);
    if (!vocab->scores || !vocab->prefixes) return OC_ERR_NOMEM;
    memcpy(vocab->scores, spec->scores, (size_t)vocab->count * sizeof *vocab->scores);
    float worst = 0;
    for (uint32_t id = 0; id < vocab->count; id++) {
        size_t length;
        const uint8_t *text = oc_vocab_text(vocab, (int32_t)id, &length);
        if (vocab->types[id] == OC_TOKEN_NORMAL && vocab->scores[id] < worst) worst = vocab->scores[id];
        if (length <= OC_SPECIAL_MAX) note_prefixes(vocab, text, length); // one beyond that would make all places slow
    }
    vocab->unknown_score = (double)worst - UNKNOWN_PENALTY;
    keep_runs_whole(vocab);
    return OC_OK;
}

/* ---- Encoding ---------------------------------------------------------------------------------------------------- */

static void offer(oc_lattice_step *step, double score, uint32_t from, int32_t id) {
    if (step->from == UINT32_MAX || score > step->score) *step = (oc_lattice_step){score, from, id};
}

/* Every piece that starts at `at`, and the character itself where it is none. */
static void offer_pieces(const oc_vocab *vocab, oc_lattice_step *steps, const uint8_t *text, uint32_t length, uint32_t at) {
    double score = steps[at].score;
    size_t width;
    uint32_t last = OC_SPECIAL_MAX < length - at ? at + OC_SPECIAL_MAX : length, hash = 0, bits = GOES_ON, character = 0;
    bool known = false;
    for (uint32_t end = at; bits & GOES_ON && end < last;) {
        hash = prefix_hash(hash, oc_utf8_get(text + end, length - end, &width));
        bits = prefix_bits(vocab, hash);
        end += (uint32_t)width;
        if (!character) character = end;
        int32_t id = bits & IS_PIECE ? oc_vocab_find(vocab, text + at, end - at) : OC_NO_TOKEN;
        if (id != OC_NO_TOKEN && vocab->types[id] != OC_TOKEN_UNUSED) {
            offer(&steps[end], score + (double)vocab->scores[id], at, id);
            known = known || end == character;
        }
    }
    if (!known) offer(&steps[character], score + vocab->unknown_score, at, OC_NO_TOKEN);
}

oc_status oc_ugm_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                        oc_tokens *out) {
    oc_status status = oc_text_reserve((void **)&encoder->steps, &encoder->step_capacity, (size_t)length + 1,
                                       sizeof *encoder->steps);
    if (status) return status;
    oc_lattice_step *steps = encoder->steps;
    size_t width;
    for (uint32_t i = 0; i <= length; i++) steps[i].from = UINT32_MAX;
    steps[0] = (oc_lattice_step){0};
    for (uint32_t at = 0; at < length; at += (uint32_t)width) {
        oc_utf8_get(text + at, length - at, &width);
        offer_pieces(vocab, steps, text, length, at);
    }
    // The way back leaves its links turned around: steps[at].id is the piece at `at`, steps[at].from where it ends.
    int32_t id = OC_NO_TOKEN;
    for (uint32_t at = length, end = length;;) {
        oc_lattice_step step = steps[at];
        steps[at].from = end;
        steps[at].id = id;
        if (at == 0) break;
        end = at;
        id = step.id;
        at = step.from;
    }
    for (uint32_t at = 0, end; at < length && !status; at = end) {
        end = steps[at].from;
        while (steps[at].id == OC_NO_TOKEN && end < length && steps[end].id == OC_NO_TOKEN) end = steps[end].from;
        status = steps[at].id == OC_NO_TOKEN ? oc_spm_push_bytes(vocab, out, text + at, end - at)
                                             : oc_tokens_push(out, steps[at].id);
    }
    return status;
}
