/* text.h - what the files of this folder share: the vocabulary, its lookups and the working memory of an encoder.
 *
 * vocab.c owns the pieces and the index, special.c finds special tokens in text, pretoken.c cuts text into pretokens,
 * merge.c merges symbols, bpe.c, spm.c, wpm.c and ugm.c hold what differs between the models, encode.c drives them.
 */
#ifndef OC_TEXT_H
#define OC_TEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "oc.h"

#define OC_NO_TOKEN (-1)
#define OC_COUNT_MAX (1u << 26) /* tokens or merges */
#define OC_PIECE_MAX 65535u  /* bytes of one token */
#define OC_SPECIAL_MAX 1024u /* bytes of one special token: bounds the work at each position of a text */
#define OC_PROBE_MAX 4096u   /* slots walked in a hash table: keys made to collide end here, not in a hang */

typedef struct oc_piece { // both spellings lie in the arena
    uint32_t text, bytes;
    uint16_t text_length, bytes_length;
} oc_piece;

typedef struct oc_index_slot {
    uint32_t hash;
    int32_t id; // OC_NO_TOKEN: empty
} oc_index_slot;

typedef struct oc_merge_slot {
    uint32_t left, right; // ids; left UINT32_MAX: empty
    uint32_t rank;
    int32_t merged;
} oc_merge_slot;

typedef struct oc_trie_node {
    uint32_t child, sibling; // 0: none
    int32_t id;              // OC_NO_TOKEN: no token ends here
    uint8_t byte;
} oc_trie_node;

typedef struct oc_symbol { // a run of bytes on its way to a token; symbols are named by the offset of their first byte
    uint32_t prev, next;   // next is also the end of this one; prev UINT32_MAX: the first
    int32_t id;            // OC_NO_TOKEN: no token yet
    bool dead;             // swallowed by the symbol before it
} oc_symbol;

typedef struct oc_candidate { // a possible merge
    uint64_t key;             // priority << 32 | offset of the left symbol: the smallest goes first
    uint32_t right;
    int32_t merged;
} oc_candidate;

typedef struct oc_lattice_step { // UGM: the best way to a place in a word
    double score;
    uint32_t from;       // where its last piece begins; UINT32_MAX: no way found yet
    int32_t id;          // of that piece; OC_NO_TOKEN: a character without a piece
} oc_lattice_step;

#define OC_STAGES_MAX 6

typedef struct oc_cuts { // where the current piece of each stage of the pretokenizer ends; starts as {0}
    size_t ends[OC_STAGES_MAX];
} oc_cuts;

typedef struct oc_pretokenizer oc_pretokenizer;

#define OC_CACHE_SLOTS 32768u /* in pairs: a word is in one of two */
#define OC_CACHE_KEY 30u
#define OC_CACHE_IDS 8u

typedef struct oc_cache_slot { // one cache line: a pretoken and its ids
    uint8_t key_length, count; // key_length 0: empty
    uint8_t key[OC_CACHE_KEY];
    int32_t ids[OC_CACHE_IDS];
} oc_cache_slot;

typedef struct oc_encoder { // working memory of one call
    oc_cache_slot *cache;   // (OC_CACHE_SLOTS), or NULL
    oc_symbol *symbols;
    size_t symbol_capacity;
    oc_candidate *heap;
    size_t heap_count, heap_capacity;
    oc_lattice_step *steps;
    size_t step_capacity;
    uint8_t *escaped; // SPM: a word with its spaces replaced; UGM, WPM: the fragment, normalised
    size_t escaped_capacity;
} oc_encoder;

struct oc_vocab {
    oc_token_model model;
    oc_pretokenizer *pre; // BPE
    bool ignore_merges, add_space_prefix, trim_spaces, lowercase;
    uint32_t neighbours[256][8]; // SPM, UGM: bit b of row a: text may not be cut between bytes a and b
    int32_t unknown;
    uint32_t count;
    uint32_t longest; // bytes of the longest key in the index
    oc_piece *pieces; // (count)
    uint8_t *types;   // (count) oc_token_type
    uint8_t *strips;  // (count) sides, or NULL where no token strips
    uint8_t *arena;
    size_t arena_used, arena_capacity;
    oc_index_slot *index; // key -> id; the key is a piece's bytes with BPE, else its text
    uint32_t index_mask;
    oc_merge_slot *merges; // BPE and SPM by rank, or NULL
    uint32_t merge_mask;
    uint32_t *priorities; // SPM by score: (count) smaller is a higher score
    float *scores;        // UGM: (count)
    double unknown_score; // UGM: of a character without a piece
    uint8_t *prefixes;    // UGM: two bits for each hash of characters: pieces go on after them; they are a piece
    uint32_t prefix_mask;
    uint8_t *charsmap;    // UGM: the normaliser as in the file, or NULL
    size_t charsmap_size;
    int32_t byte_ids[256];
    uint32_t trie_root[256]; // first byte -> node, 0: none
    oc_trie_node *trie;      // node 0 is not used
    size_t trie_count, trie_capacity;
    oc_encoder encoder; // kept warm for the one call that holds `busy`; calls beside it bring their own
    atomic_flag busy;
};

/* ---- vocab.c ---- */

/* err = before + number + after, and " '<quoted>'" when there is something to quote; returns OC_ERR_FORMAT. */
oc_status oc_text_fail(char *err, const char *before, uint64_t number, const char *after, const uint8_t *quoted,
                       size_t quoted_length);
/* Room for `need` elements in a growing array; the old contents stay. */
oc_status oc_text_reserve(void **array, size_t *capacity, size_t need, size_t element);
/* Slots of a hash table that is at most half full; a power of two. */
uint32_t oc_table_slots(size_t count);
/* String i of an array in a file; false if it does not lie inside. */
bool oc_strings_get(const oc_strings *strings, size_t i, const uint8_t **data, size_t *length);
int32_t oc_vocab_find(const oc_vocab *vocab, const uint8_t *key, size_t length);
/* The same for a key whose oc_text_hash is known, so that the index can be prefetched. */
int32_t oc_vocab_find_hashed(const oc_vocab *vocab, const uint8_t *key, size_t length, uint32_t hash);

/* The piece that a key of this hash is, if it is one, or OC_NO_TOKEN. */
int32_t oc_vocab_likely(const oc_vocab *vocab, uint32_t hash);

/* The last 1 to 7 bytes of a key, each at least once, without a loop. */
static inline uint64_t oc_text_tail(const uint8_t *data, size_t length) {
    if (length < 4) return data[0] | (uint64_t)data[length / 2] << 8 | (uint64_t)data[length - 1] << 16;
    uint32_t first, last;
    memcpy(&first, data, 4);
    memcpy(&last, data + length - 4, 4);
    return first | (uint64_t)last << 32;
}

/* A multiply-and-fold hash, 8 bytes at a time. */
static inline uint32_t oc_text_hash(const uint8_t *data, size_t length) {
    uint64_t h = length * 0x9E3779B97F4A7C15u, word;
    for (; length >= 8; data += 8, length -= 8) {
        memcpy(&word, data, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    if (length) {
        h = (h ^ oc_text_tail(data, length)) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    h *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(h >> 32);
}

/* ---- special.c ---- */

oc_status oc_special_add(oc_vocab *vocab, int32_t id);
/* The leftmost special token in text, the longest that starts there: its offset and id, or `length` and OC_NO_TOKEN. */
size_t oc_special_find(const oc_vocab *vocab, const uint8_t *text, size_t length, bool parse_special, int32_t *id);

/* ---- pretoken.c ---- */

/* A copy of the rules of this name, to be freed; OC_ERR_ARGUMENT if there are none. */
oc_status oc_pretokenizer_create(const char *name, oc_pretokenizer **out);
/* Where the pretoken that starts at `at` ends; called for all pretokens of a text in order, with the same cuts. */
size_t oc_pretoken_end(const oc_pretokenizer *pre, oc_cuts *cuts, const uint8_t *text, size_t at, size_t length);

/* ---- merge.c ---- */

/* The pair's merge, or OC_NO_TOKEN. */
int32_t oc_bpe_pair(const oc_vocab *vocab, int32_t left, int32_t right, uint32_t *priority);
/* Merge the symbols of a text until no pair is left; symbol 0 is the first. */
oc_status oc_merge(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length);
oc_status oc_tokens_push(oc_tokens *tokens, int32_t id);

/* ---- bpe.c, spm.c, wpm.c and ugm.c: load what only this model has; one pretoken to ids ---- */

oc_status oc_bpe_load_merges(oc_vocab *vocab, const oc_strings *merges, char *err);
/* A piece in the GPT-2 alphabet as bytes; a character outside the alphabet stays as it is. Returns the length, which
 * is never more than that of the text. */
size_t oc_bpe_decode(const uint8_t *text, size_t length, uint8_t *bytes);
/* Are all characters of the piece in the alphabet? */
bool oc_bpe_is_spelled(const uint8_t *text, size_t length);
oc_status oc_bpe_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                        oc_tokens *out);

oc_status oc_spm_load_scores(oc_vocab *vocab, const float *scores);
/* Learn where text can be cut into words: between bytes that stand side by side in no piece, no piece can lie. */
void oc_spm_load_neighbours(oc_vocab *vocab);
/* The byte that a token spelled exactly <0xXX> stands for, or -1. */
int oc_spm_byte(const uint8_t *text, size_t length);
/* A piece's text with U+2581 as a space, which is what it adds to a text. Never longer than the text. */
size_t oc_spm_decode(const uint8_t *text, size_t length, uint8_t *bytes);
/* Bytes of the stretch at the start of a text, its spaces escaped or not, that no piece leaves; length >= 1. */
uint32_t oc_spm_word(const oc_vocab *vocab, const uint8_t *text, uint32_t length);
/* Text that is no piece: its bytes, or unknown once. */
oc_status oc_spm_push_bytes(const oc_vocab *vocab, oc_tokens *out, const uint8_t *text, uint32_t length);
/* `prefix`: as if one more space stood before the text. */
oc_status oc_spm_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length, bool prefix,
                        oc_tokens *out);

/* The words of a text, normalised, in encoder->escaped. */
oc_status oc_wpm_normalize(oc_encoder *encoder, const uint8_t *text, size_t length, bool lowercase,
                           uint32_t *size);
/* Bytes of the word at the start of normalised text, with the space before it; length >= 1. */
uint32_t oc_wpm_word(const uint8_t *text, uint32_t length);
oc_status oc_wpm_encode(const oc_vocab *vocab, const uint8_t *text, uint32_t length, oc_tokens *out);

oc_status oc_ugm_load(oc_vocab *vocab, const oc_vocab_spec *spec, char *err);
/* The text normalised, with its spaces as U+2581, in encoder->escaped. */
oc_status oc_ugm_normalize(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, size_t length,
                           uint32_t *size);
oc_status oc_ugm_encode(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length,
                        oc_tokens *out);

#endif
