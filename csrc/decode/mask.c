/* mask.c - which tokens may come next: a walk through the tree of spellings with the places of a grammar.
 *
 * Most tokens of a vocabulary are plain text, and most tokens of an answer stand inside a string: where plain text may
 * come, such tokens are allowed in bulk, without a look at their bytes. A mask is stored under the state that it is
 * for: the places, and all that their stacks hold.
 */
#include "decode/grammar.h"

#include <stdlib.h>
#include <string.h>

#define LONGEST_KEY 4096u /* words; the mask of a state that takes more is not stored */

/* ---- the key of a state ---- */

static bool key_room(oc_matcher *m, size_t need) {
    if (need <= m->key_capacity) return true;
    size_t capacity = need < 128 ? 128 : 2 * need;
    uint32_t *grown = realloc(m->key, capacity * sizeof *grown);
    if (!grown) return false;
    m->key = grown;
    m->key_capacity = capacity;
    return true;
}

/* Words in m->key; 0: the state is too large, or there is no memory. */
static size_t make_key(oc_matcher *m) {
    size_t n = 0;
    if (!key_room(m, 2)) return 0;
    m->key[n++] = (uint32_t)m->grammar->id;
    m->key[n++] = (uint32_t)(m->grammar->id >> 32);
    for (size_t i = 0; i < m->n_state; i++) {
        oc_place place = m->places[i];
        uint32_t depth = m->frames[place.stack].depth;
        if (n + 4 + 2 * (size_t)depth > LONGEST_KEY || !key_room(m, n + 4 + 2 * (size_t)depth)) return 0;
        m->key[n++] = place.node;
        m->key[n++] = place.count;
        m->key[n++] = place.phase;
        m->key[n++] = depth;
        for (uint32_t at = place.stack; at != 0; at = m->frames[at].parent) {
            m->key[n++] = m->frames[at].node;
            m->key[n++] = m->frames[at].count;
        }
    }
    return n;
}

static uint64_t hash_of(const uint32_t *key, size_t n) {
    uint64_t hash = 0;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ key[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}

/* ---- the walk ---- */

static void allow(uint32_t *mask, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) mask[ids[i] / 32] |= UINT32_C(1) << ids[i] % 32;
}

/* Characters that plain text may go on with from some of these places. */
static uint32_t room_of(const oc_matcher *m, size_t first, size_t n) {
    uint32_t room = 0;
    for (size_t i = first; i < first + n; i++) {
        const oc_grammar_node *node = &m->grammar->nodes[m->places[i].node];
        if (node->kind != OC_NODE_TEXT || m->places[i].phase != 0) continue;
        uint32_t left = node->c == OC_NO_LIMIT ? OC_NO_LIMIT : node->c - m->places[i].count;
        if (left > room) room = left;
    }
    return room;
}

/* Whether plain tokens come from strings only. */
static bool is_string(const oc_matcher *m) {
    for (size_t i = 0; i < m->n_state; i++) {
        const oc_grammar_node *node = &m->grammar->nodes[m->places[i].node];
        if (node->kind == OC_NODE_SPACE || (node->kind == OC_NODE_TEXT && m->places[i].phase != 0)) return false;
        if (node->kind == OC_NODE_BYTES && m->grammar->has_plain[node->a]) return false;
    }
    return true;
}

/* Allows the plain tokens that fit; whether all others are not. */
static bool allow_plain(const oc_matcher *m, const oc_spellings *s, uint32_t room, uint32_t *mask) {
    if (room >= s->longest) {
        for (int32_t i = 0; i < s->n_words; i++) mask[i] |= s->plain_mask[i];
        return true;
    }
    if (room == 0 || !is_string(m)) return false;
    allow(mask, s->plain, s->up_to[room]);
    return true;
}

static void set_level(oc_matcher *m, size_t depth) {
    size_t first = depth ? m->levels[depth - 1].places : 0;
    m->levels[depth] = (oc_level){m->n_places, m->n_frames, room_of(m, first, m->n_places - first)};
}

/* The tokens of a node are allowed if its byte leads on from the level above; whether anything behind it may be. */
static oc_status visit(oc_matcher *m, const oc_spellings *s, uint32_t at, uint32_t *mask, bool *goes_on) {
    const oc_spelling *node = &s->nodes[at];
    size_t depth = node->depth, first = depth > 1 ? m->levels[depth - 2].places : 0;
    const oc_level above = m->levels[depth - 1];
    m->n_places = above.places;
    m->n_frames = above.frames;
    oc_status status = oc_matcher_step(m, first, above.places - first, node->byte);
    if (status != OC_OK) return status;
    *goes_on = m->n_places > above.places;
    if (!*goes_on) return OC_OK;
    set_level(m, depth);
    allow(mask, s->order + node->first, s->nodes[at + 1].first - node->first);
    uint32_t room = m->levels[depth].room;
    if (node->reach == OC_NOT_PLAIN || room == 0 || room < node->reach) return OC_OK;
    allow(mask, s->order + node->first, s->nodes[node->end].first - node->first);
    *goes_on = false;
    return OC_OK;
}

static oc_status walk(oc_matcher *m, const oc_spellings *s, uint32_t *mask) {
    uint32_t frames = m->n_frames;
    oc_status status = OC_OK;
    m->n_places = m->n_state;
    set_level(m, 0);
    bool has_plain = allow_plain(m, s, m->levels[0].room, mask);
    for (uint32_t at = 1; at < s->n_nodes && status == OC_OK;) {
        bool goes_on = false;
        if (!has_plain || s->nodes[at].reach == OC_NOT_PLAIN) status = visit(m, s, at, mask, &goes_on);
        at = goes_on ? at + 1 : s->nodes[at].end;
    }
    m->n_frames = frames;
    m->n_places = m->n_state;
    return status;
}

static oc_status make_mask(oc_matcher *m, const oc_spellings *s, uint32_t *mask) {
    memset(mask, 0, (size_t)s->n_words * sizeof *mask);
    oc_status status = walk(m, s, mask);
    if (status != OC_OK) return status;
    uint32_t any = 0;
    for (int32_t i = 0; i < s->n_words; i++) {
        if (oc_matcher_may_end(m)) mask[i] |= s->end_mask[i];
        any |= mask[i];
    }
    return any ? OC_OK : OC_ERR_FORMAT;
}

oc_status oc_matcher_mask(oc_matcher *m, oc_spellings *s, uint32_t *mask) {
    size_t n = make_key(m);
    uint64_t hash = hash_of(m->key, n);
    const uint32_t *known = n ? oc_spellings_recall(s, m->key, n, hash) : NULL;
    if (known) {
        memcpy(mask, known, (size_t)s->n_words * sizeof *mask);
        return OC_OK;
    }
    oc_status status = make_mask(m, s, mask);
    if (status == OC_OK && n) oc_spellings_remember(s, m->key, n, hash, mask);
    return status;
}
