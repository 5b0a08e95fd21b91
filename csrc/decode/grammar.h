/* grammar.h - what the files of structured output share.
 *
 * grammar.c owns the nodes of a grammar and finds out which of them lead anywhere, spellings.c the tree of a
 * vocabulary's spellings and the masks that were made with it, matcher.c the places in a grammar where a text may be
 * and how bytes move them, mask.c which tokens may come.
 */
#ifndef OC_GRAMMAR_H
#define OC_GRAMMAR_H

#include <stdbool.h>

#include "oc.h"

#define OC_LONGEST_SPELLING 1024u /* bytes; longer tokens are never allowed */
#define OC_NOT_PLAIN UINT16_MAX

/* ---- grammar ---- */

typedef struct oc_byte_set {
    uint64_t bits[4];
} oc_byte_set;

struct oc_grammar {
    uint64_t id;
    oc_grammar_node *nodes; /* (n_nodes) */
    uint32_t *edges;        /* (n_edges) */
    oc_byte_set *sets;      /* (n_sets) */
    uint8_t *has_plain;     /* (n_sets) whether a set has a byte that plain spellings may begin with */
    uint8_t *leads;         /* (n_nodes) whether some text gets from here to the end of the node's rule */
    uint32_t n_nodes, n_edges, n_sets, root;
};

static inline bool oc_set_has(const oc_byte_set *set, uint8_t byte) { return set->bits[byte >> 6] >> (byte & 63) & 1; }

/* Plain: a part of a JSON string that stands for itself. Those from 0x80 are judged as UTF-8 elsewhere. */
static inline bool oc_is_plain(uint8_t byte) { return byte >= 0x20 && byte != '"' && byte != '\\'; }

/* Whether a byte begins a character of UTF-8 rather than going on with one. */
static inline bool oc_is_lead(uint8_t byte) { return (byte & 0xC0) != 0x80; }

/* ---- spellings ---- */

typedef struct oc_spelling { /* a node of the tree, in preorder: the first bytes that some tokens share */
    uint32_t end;            /* the node behind its subtree */
    uint32_t first;          /* its tokens are order[first .. the next node's first) */
    uint16_t depth;
    uint16_t reach; /* the most characters that a token has behind this node; OC_NOT_PLAIN: one of them is not plain */
    uint8_t byte;
} oc_spelling;

typedef struct oc_mask_entry { /* a mask that was made */
    uint64_t hash, used;
    uint32_t *key; /* (n_key) */
    size_t n_key;
    uint32_t *mask;
} oc_mask_entry;

struct oc_spellings {
    oc_spelling *nodes; /* (n_nodes + 1), the root first, and one that only has `first` last */
    int32_t *order;     /* (n_tokens) ids in the order of their bytes */
    int32_t *plain;     /* (n_plain) ids of plain tokens, the shortest first */
    uint32_t *up_to;    /* (longest + 1) how many of those have so many characters at most */
    uint32_t *plain_mask, *end_mask; /* (n_words) */
    uint32_t n_nodes, n_tokens, n_plain;
    uint32_t longest; /* characters of a plain token */
    int32_t n_words;  /* of a mask */
    oc_mask_entry *entries; /* (n_entries) */
    uint32_t n_entries, n_used;
    uint64_t clock;
};

/* The mask that was stored under a key, or NULL. */
const uint32_t *oc_spellings_recall(oc_spellings *s, const uint32_t *key, size_t n, uint64_t hash);
/* Stores a copy, in the place of the one longest unused where there is no room. Without memory nothing is stored. */
void oc_spellings_remember(oc_spellings *s, const uint32_t *key, size_t n, uint64_t hash, const uint32_t *mask);

/* ---- matcher ---- */

typedef struct oc_place { /* where a text may be: at a node, with what comes after its rule on the stack */
    uint32_t node, stack;
    uint32_t count; /* REPEAT: bodies done; TEXT: characters; SPACE: where in the blanks */
    uint32_t phase; /* TEXT: where in a character or escape; while FORK is explored: the next edge */
} oc_place;

typedef struct oc_frame { /* what comes after a rule; frame 0 is the bottom */
    uint32_t node, count, parent, depth;
} oc_frame;

#define OC_PLACES_MAX 2048u /* looked at for one byte; what is beyond is as if the grammar did not have it */

typedef struct oc_seen {
    uint32_t stamp;
    oc_place place;
} oc_seen;

typedef struct oc_level { /* of a walk: how much of places and frames the levels up to here have */
    size_t places;
    uint32_t frames;
    uint32_t room; /* characters that plain text may go on with; 0: none */
} oc_level;

struct oc_matcher {
    const oc_grammar *grammar;
    oc_place *places; /* the state, and above it the levels of a walk */
    size_t n_state, n_places, places_capacity;
    oc_frame *frames;
    uint32_t n_frames, frames_capacity, kept; /* kept: left by the last compaction */
    oc_place work[2 * OC_PLACES_MAX + 2];
    oc_seen seen[2 * OC_PLACES_MAX];
    uint32_t stamp, n_seen;
    bool is_cut; /* the last step had more places than fit */
    oc_level levels[OC_LONGEST_SPELLING + 1];
    uint32_t *key;
    size_t key_capacity;
};

/* Appends the places that a byte leads to from places[first .. first + n). */
oc_status oc_matcher_step(oc_matcher *m, size_t first, size_t n, uint8_t byte);

#endif
