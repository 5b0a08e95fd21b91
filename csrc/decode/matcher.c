/* matcher.c - the places of a grammar where a text may be, and how bytes move them.
 *
 * All places are followed at once, so nothing is ever tried and taken back. What comes after a rule is a list of frames
 * that places share. A byte makes its frames behind those that are there, and a walk that gives up its last byte cuts
 * them off; frames that nothing refers to any more are dropped between tokens. Places that would be alike are found
 * within one byte: all of them move at the same time.
 */
#include "decode/grammar.h"

#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX (1u << 22) /* of one text */
#define DEEP 500u             /* frames above which calls that may be left out are */
#define COMPACT_AT 4096u      /* frames that may be made before it is worth while to look for unused ones */
#define LONGEST_INDENT 20u

/* ---- inside a JSON string ---- */

enum { /* phases of a place at TEXT */
    CHARACTER, /* between characters */
    TAIL_1, TAIL_2, TAIL_3, /* so many bytes more */
    TAIL_E0, TAIL_ED, TAIL_F0, TAIL_F4, /* after these bytes the next has a smaller range */
    ESCAPE, HEX_1, HEX_2, HEX_3, HEX_4,
    HEX_D, /* the second digit after \uD: a surrogate from 8 */
    HIGH_3, HIGH_4, LOW_BACKSLASH, LOW_U, LOW_1, LOW_2, /* of a pair */
    NOWHERE
};

static bool is_within(uint8_t byte, uint8_t low, uint8_t high) { return byte >= low && byte <= high; }

static bool is_hex(uint8_t byte) {
    return is_within(byte, '0', '9') || is_within(byte | 0x20, 'a', 'f');
}

static bool is_d(uint8_t byte) { return (byte | 0x20) == 'd'; }

static uint32_t begin_character(uint8_t byte) {
    if (byte < 0x80) return oc_is_plain(byte) ? CHARACTER : byte == '\\' ? ESCAPE : NOWHERE;
    if (byte < 0xC2 || byte > 0xF4) return NOWHERE;
    switch (byte) {
    case 0xE0: return TAIL_E0;
    case 0xED: return TAIL_ED;
    case 0xF0: return TAIL_F0;
    case 0xF4: return TAIL_F4;
    }
    return byte < 0xE0 ? TAIL_1 : byte < 0xF0 ? TAIL_2 : TAIL_3;
}

static uint32_t begin_escape(uint8_t byte, bool is_line) {
    switch (byte) {
    case '"': case '\\': case '/': case 'b': case 'f': case 't': return CHARACTER;
    case 'n': case 'r': return is_line ? NOWHERE : CHARACTER;
    case 'u': return is_line ? NOWHERE : HEX_1;
    }
    return NOWHERE;
}

static uint32_t next_hex(uint32_t phase, uint8_t byte) {
    switch (phase) {
    case HEX_1: return is_d(byte) ? HEX_D : is_hex(byte) ? HEX_2 : NOWHERE;
    case HEX_2: return is_hex(byte) ? HEX_3 : NOWHERE;
    case HEX_3: return is_hex(byte) ? HEX_4 : NOWHERE;
    case HEX_4: return is_hex(byte) ? CHARACTER : NOWHERE;
    case HEX_D:
        if (is_within(byte, '0', '7')) return HEX_3;
        return is_within(byte, '8', '9') || is_within(byte | 0x20, 'a', 'b') ? HIGH_3 : NOWHERE;
    case HIGH_3: return is_hex(byte) ? HIGH_4 : NOWHERE;
    case HIGH_4: return is_hex(byte) ? LOW_BACKSLASH : NOWHERE;
    case LOW_BACKSLASH: return byte == '\\' ? LOW_U : NOWHERE;
    case LOW_U: return byte == 'u' ? LOW_1 : NOWHERE;
    case LOW_1: return is_d(byte) ? LOW_2 : NOWHERE;
    case LOW_2: return is_within(byte | 0x20, 'c', 'f') ? HEX_3 : NOWHERE;
    }
    return NOWHERE;
}

static uint32_t next_phase(uint32_t phase, uint8_t byte, bool is_line) {
    switch (phase) {
    case CHARACTER: return begin_character(byte);
    case TAIL_1: return is_within(byte, 0x80, 0xBF) ? CHARACTER : NOWHERE;
    case TAIL_2: return is_within(byte, 0x80, 0xBF) ? TAIL_1 : NOWHERE;
    case TAIL_3: return is_within(byte, 0x80, 0xBF) ? TAIL_2 : NOWHERE;
    case TAIL_E0: return is_within(byte, 0xA0, 0xBF) ? TAIL_1 : NOWHERE;
    case TAIL_ED: return is_within(byte, 0x80, 0x9F) ? TAIL_1 : NOWHERE;
    case TAIL_F0: return is_within(byte, 0x90, 0xBF) ? TAIL_2 : NOWHERE;
    case TAIL_F4: return is_within(byte, 0x80, 0x8F) ? TAIL_2 : NOWHERE;
    case ESCAPE: return begin_escape(byte, is_line);
    default: return next_hex(phase, byte);
    }
}

/* Between tokens: 0 nothing yet, 1 a blank, 2 a line end, 3 two of them, 3 + n an indent of n. Returns 0: not here. */
static uint32_t next_space(uint32_t count, uint8_t byte) {
    bool is_blank = byte == ' ' || (byte == '\t' && count >= 2);
    if (byte == '\n' && count != 1 && count < 3) return count == 0 ? 2 : 3;
    if (!is_blank || count == 1 || count >= 3 + LONGEST_INDENT) return 0;
    return count == 0 ? 1 : count < 3 ? 4 : count + 1;
}

/* ---- places ---- */

static const oc_grammar_node *node_of(const oc_matcher *m, oc_place place) { return &m->grammar->nodes[place.node]; }

/* Notes a place of this byte; false if it was there, or there is no room for more. */
static bool is_new(oc_matcher *m, oc_place place) {
    uint32_t hash = ((place.node * 31 + place.stack) * 31 + place.count) * 31 + place.phase;
    for (uint32_t at = hash * 0x9E3779B1u >> 12;; at++) {
        oc_seen *seen = &m->seen[at % (2 * OC_PLACES_MAX)];
        if (seen->stamp == m->stamp) {
            if (memcmp(&seen->place, &place, sizeof place) == 0) return false;
            continue;
        }
        if (m->n_seen == OC_PLACES_MAX) m->is_cut = true;
        if (m->is_cut) return false;
        *seen = (oc_seen){m->stamp, place};
        m->n_seen++;
        return true;
    }
}

/* What comes after a rule entered from `place`. A rule that is the end of its own adds nothing. */
static uint32_t push(oc_matcher *m, oc_place place, uint32_t node, uint32_t count) {
    if (m->grammar->nodes[node].kind == OC_NODE_RETURN) return place.stack;
    m->frames[m->n_frames] = (oc_frame){node, count, place.stack, m->frames[place.stack].depth + 1};
    return m->n_frames++;
}

static void keep(oc_matcher *m, oc_place place) { m->places[m->n_places++] = place; }

static uint32_t bodies_after(const oc_grammar_node *node, uint32_t count) {
    return node->c == OC_NO_LIMIT && count >= node->b ? node->b : count + 1; // beyond the least all are the same
}

/* Puts the places that `place` goes on to without a byte on the list; returns its new length. */
static size_t follow(oc_matcher *m, oc_place place, size_t n) {
    const oc_grammar_node *node = node_of(m, place);
    const uint8_t *leads = m->grammar->leads;
    const oc_frame *frame = &m->frames[place.stack];
    oc_place next = {node->next, place.stack, 0, 0};
    switch (node->kind) {
    case OC_NODE_RETURN:
        if (place.stack == 0) keep(m, place);
        else m->work[n++] = (oc_place){frame->node, frame->parent, frame->count, 0};
        break;
    case OC_NODE_FORK:
        if (place.phase + 1 < node->b) m->work[n++] = (oc_place){place.node, place.stack, 0, place.phase + 1};
        if (node->b > 0) m->work[n++] = (oc_place){m->grammar->edges[node->a + place.phase], place.stack, 0, 0};
        break;
    case OC_NODE_CALL:
        if (node->b && frame->depth >= DEEP) break;
        m->work[n++] = (oc_place){node->a, push(m, place, node->next, 0), 0, 0};
        break;
    case OC_NODE_REPEAT:
        if (place.count >= node->b) m->work[n++] = next;
        if (place.count < node->c && leads[node->a])
            m->work[n++] = (oc_place){node->a, push(m, place, place.node, bodies_after(node, place.count)), 0, 0};
        break;
    case OC_NODE_TEXT:
        if (place.count < node->c) keep(m, place);
        if (place.count >= node->b) m->work[n++] = next;
        break;
    case OC_NODE_SPACE:
        keep(m, place);
        m->work[n++] = next;
        break;
    default: keep(m, place);
    }
    return n;
}

/* Everything that can be reached from a place without a byte. */
static void enter(oc_matcher *m, oc_place place) {
    size_t n = 0;
    m->work[n++] = place;
    while (n > 0) {
        oc_place at = m->work[--n];
        bool is_next_edge = at.phase > 0 && node_of(m, at)->kind == OC_NODE_FORK; // of a place that was new
        if (is_next_edge || (m->grammar->leads[at.node] && is_new(m, at))) n = follow(m, at, n);
    }
}

/* A character more where a quotation mark is what may follow: most of what a walk through a vocabulary does. Places
 * that are there twice do no harm here, for their number does not grow. */
static bool add_character(oc_matcher *m, oc_place place, const oc_grammar_node *node) {
    if (m->grammar->nodes[node->next].kind != OC_NODE_BYTES || m->n_seen + 2 > OC_PLACES_MAX) return false;
    m->n_seen += 2; // they take room like others
    if (place.count < node->c) keep(m, place);
    if (place.count >= node->b) keep(m, (oc_place){node->next, place.stack, 0, 0});
    return true;
}

static void move_text(oc_matcher *m, oc_place place, const oc_grammar_node *node, uint8_t byte) {
    uint32_t phase = next_phase(place.phase, byte, node->a != 0);
    if (phase == NOWHERE) return;
    if (phase == CHARACTER) {
        place.count = node->c == OC_NO_LIMIT && place.count >= node->b ? node->b : place.count + 1;
        place.phase = CHARACTER;
        if (!add_character(m, place, node)) enter(m, place);
    } else {
        place.phase = phase;
        if (is_new(m, place)) keep(m, place);
    }
}

static void move(oc_matcher *m, oc_place place, uint8_t byte) {
    const oc_grammar_node *node = node_of(m, place);
    switch (node->kind) {
    case OC_NODE_BYTES:
        if (oc_set_has(&m->grammar->sets[node->a], byte)) enter(m, (oc_place){node->next, place.stack, 0, 0});
        return;
    case OC_NODE_TEXT: move_text(m, place, node, byte); return;
    case OC_NODE_SPACE:
        place.count = next_space(place.count, byte);
        if (place.count) enter(m, place);
        return;
    default: return; // RETURN at the bottom: nothing comes behind the text
    }
}

/* ---- memory ---- */

static oc_status reserve(void **array, size_t *capacity, size_t need, size_t size) {
    if (need <= *capacity) return OC_OK;
    size_t wanted = need + need / 2;
    void *grown = realloc(*array, wanted * size);
    if (!grown) return OC_ERR_NOMEM;
    *array = grown;
    *capacity = wanted;
    return OC_OK;
}

static oc_status make_room(oc_matcher *m) {
    size_t frames = m->frames_capacity;
    if (m->n_frames + OC_PLACES_MAX > FRAMES_MAX) return OC_ERR_NOMEM;
    oc_status status = reserve((void **)&m->frames, &frames, m->n_frames + OC_PLACES_MAX, sizeof *m->frames);
    m->frames_capacity = (uint32_t)frames;
    if (status != OC_OK) return status;
    return reserve((void **)&m->places, &m->places_capacity, m->n_places + OC_PLACES_MAX, sizeof *m->places);
}

static void begin_byte(oc_matcher *m) {
    m->n_seen = 0;
    m->is_cut = false;
    if (++m->stamp == 0) {
        memset(m->seen, 0, sizeof m->seen);
        m->stamp = 1;
    }
}

oc_status oc_matcher_step(oc_matcher *m, size_t first, size_t n, uint8_t byte) {
    oc_status status = make_room(m);
    if (status != OC_OK) return status;
    begin_byte(m);
    for (size_t i = first; i < first + n; i++) move(m, m->places[i], byte);
    return OC_OK;
}

/* Drops the frames that no place refers to. A frame lies behind its parent. */
static oc_status compact(oc_matcher *m) {
    uint32_t *moved = calloc(m->n_frames, sizeof *moved), n = 1;
    if (!moved) return OC_ERR_NOMEM;
    for (size_t i = 0; i < m->n_state; i++) moved[m->places[i].stack] = 1;
    for (uint32_t i = m->n_frames; i-- > 1;) {
        if (moved[i]) moved[m->frames[i].parent] = 1;
    }
    moved[0] = 0;
    for (uint32_t i = 1; i < m->n_frames; i++) {
        if (!moved[i]) continue;
        m->frames[n] = m->frames[i];
        m->frames[n].parent = moved[m->frames[i].parent];
        moved[i] = n++;
    }
    for (size_t i = 0; i < m->n_state; i++) m->places[i].stack = moved[m->places[i].stack];
    m->n_frames = m->kept = n;
    free(moved);
    return OC_OK;
}

/* ---- a text ---- */

oc_status oc_matcher_accept(oc_matcher *m, const uint8_t *bytes, size_t n) {
    size_t first = 0, count = m->n_state;
    uint32_t frames = m->n_frames;
    oc_status status = OC_OK;
    for (size_t i = 0; i < n && status == OC_OK; i++) {
        m->n_places = first + count;
        status = oc_matcher_step(m, first, count, bytes[i]);
        first += count;
        count = m->n_places - first;
        if (status == OC_OK && count == 0) status = OC_ERR_ARGUMENT;
        if (first > m->n_state) { // the bytes before the last one are not needed
            memmove(m->places + m->n_state, m->places + first, count * sizeof *m->places);
            first = m->n_state;
        }
    }
    if (status == OC_OK) {
        memmove(m->places, m->places + first, count * sizeof *m->places);
        m->n_state = count;
        if (m->n_frames > 2 * m->kept + COMPACT_AT) status = compact(m);
    } else {
        m->n_frames = frames;
    }
    m->n_places = m->n_state;
    return status;
}

int oc_matcher_may_end(const oc_matcher *m) {
    for (size_t i = 0; i < m->n_state; i++) {
        if (node_of(m, m->places[i])->kind == OC_NODE_RETURN) return 1;
    }
    return 0;
}

int oc_matcher_must_end(const oc_matcher *m) { return m->n_state == 1 && oc_matcher_may_end(m); }

/* The one byte that may come at these places, or -1. */
static int only_byte(const oc_matcher *m, size_t first, size_t n) {
    int found = -1;
    for (size_t i = first; i < first + n; i++) {
        const oc_grammar_node *node = node_of(m, m->places[i]);
        if (node->kind != OC_NODE_BYTES) return -1;
        const uint64_t *bits = m->grammar->sets[node->a].bits;
        for (int word = 0; word < 4; word++) {
            if (bits[word] == 0) continue;
            int byte = 64 * word + __builtin_ctzll(bits[word]);
            if (bits[word] & (bits[word] - 1) || (found >= 0 && found != byte)) return -1;
            found = byte;
        }
    }
    return found;
}

oc_status oc_matcher_forced(oc_matcher *m, uint8_t *bytes, size_t capacity, size_t *n) {
    size_t first = 0, count = m->n_state;
    uint32_t frames = m->n_frames;
    oc_status status = OC_OK;
    int byte;
    for (*n = 0; *n < capacity && (byte = only_byte(m, first, count)) >= 0;) {
        status = oc_matcher_step(m, first, count, (uint8_t)byte);
        if (status != OC_OK) break;
        bytes[(*n)++] = (uint8_t)byte;
        first += count;
        count = m->n_places - first;
    }
    m->n_frames = frames;
    m->n_places = m->n_state;
    return status;
}

/* ---- life ---- */

void oc_matcher_destroy(oc_matcher *m) {
    if (!m) return;
    free(m->places);
    free(m->frames);
    free(m->key);
    free(m);
}

oc_status oc_matcher_create(const oc_grammar *grammar, oc_matcher **out) {
    oc_matcher *m = *out = calloc(1, sizeof *m);
    if (!m) return OC_ERR_NOMEM;
    m->grammar = grammar;
    oc_status status = make_room(m);
    if (status != OC_OK) {
        oc_matcher_destroy(m);
        *out = NULL;
        return status;
    }
    m->frames[0] = (oc_frame){0, 0, 0, 0};
    m->n_frames = m->kept = 1;
    begin_byte(m);
    enter(m, (oc_place){grammar->root, 0, 0, 0});
    m->n_state = m->n_places;
    return OC_OK;
}
