/* merge.c - merges the symbols of one pretoken, best pair first: few symbols in a plain array, searched for its best
 * pair each time, which is faster for words; more of them with a heap over a linked list, O(n log n). */
#include "text/text.h"

#define NO_SYMBOL UINT32_MAX
#define FEW 32 /* symbols that are merged in an array */

oc_status oc_tokens_push(oc_tokens *tokens, int32_t id) {
    if (tokens->count == tokens->capacity) {
        oc_status status =
            oc_text_reserve((void **)&tokens->ids, &tokens->capacity, tokens->count + 1, sizeof *tokens->ids);
        if (status) return status;
    }
    tokens->ids[tokens->count++] = id;
    return OC_OK;
}

/* ---- Heap of candidates ------------------------------------------------------------------------------------------ */

static void sift_down(oc_candidate *heap, size_t count, size_t at) {
    oc_candidate moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1].key < heap[child].key) child++;
        if (heap[child].key >= moved.key) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void sift_up(oc_candidate *heap, size_t at) {
    oc_candidate moved = heap[at];
    for (size_t parent; at && heap[parent = (at - 1) / 2].key > moved.key; at = parent) heap[at] = heap[parent];
    heap[at] = moved;
}

/* ---- Merging ----------------------------------------------------------------------------------------------------- */

/* What two neighbours merge to, or OC_NO_TOKEN: their ids and all of their bytes. */
static inline int32_t find_pair(const oc_vocab *vocab, int32_t left, int32_t right, const uint8_t *text,
                                uint32_t length, uint32_t *priority) {
    if (vocab->merges) return oc_bpe_pair(vocab, left, right, priority);
    int32_t merged = oc_vocab_find(vocab, text, length);
    if (merged != OC_NO_TOKEN) *priority = vocab->priorities[merged];
    return merged;
}

/* Append the merge of a symbol with the next one to the array, if there is one; *added tells. */
static oc_status add_candidate(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t left,
                               bool *added) {
    const oc_symbol *symbols = encoder->symbols;
    uint32_t right = symbols[left].next, priority;
    int32_t merged = find_pair(vocab, symbols[left].id, symbols[right].id, text + left, symbols[right].next - left,
                               &priority);
    *added = false;
    if (merged == OC_NO_TOKEN) return OC_OK;
    oc_status status = oc_text_reserve((void **)&encoder->heap, &encoder->heap_capacity, encoder->heap_count + 1,
                                       sizeof *encoder->heap);
    if (status) return status;
    encoder->heap[encoder->heap_count++] = (oc_candidate){(uint64_t)priority << 32 | left, right, merged};
    *added = true;
    return OC_OK;
}

/* A candidate is stale when one of its symbols has been swallowed or has grown since. */
static bool is_current(const oc_vocab *vocab, const oc_symbol *symbols, const oc_candidate *candidate) {
    uint32_t left = (uint32_t)candidate->key;
    if (symbols[left].dead || symbols[candidate->right].dead) return false;
    const oc_piece *piece = &vocab->pieces[candidate->merged];
    uint32_t length = vocab->model == OC_TOKENS_BPE ? piece->bytes_length : piece->text_length;
    return symbols[candidate->right].next - left == length;
}

/* Symbols side by side: symbol i is text[start[i] .. start[i + 1]), and pair i what it makes with the next. */
typedef struct few_symbols {
    uint32_t n, start[FEW + 1];
    int32_t id[FEW], merged[FEW];
    uint32_t priority[FEW]; // UINT32_MAX: no pair
} few_symbols;

static inline void set_pair(const oc_vocab *vocab, few_symbols *few, const uint8_t *text, uint32_t i) {
    const uint32_t start = few->start[i];
    few->merged[i] = find_pair(vocab, few->id[i], few->id[i + 1], text + start, few->start[i + 2] - start,
                               &few->priority[i]);
    if (few->merged[i] == OC_NO_TOKEN) few->priority[i] = UINT32_MAX;
}

/* Symbol i and the next become one. */
static void join(const oc_vocab *vocab, few_symbols *few, const uint8_t *text, uint32_t i) {
    few->id[i] = few->merged[i];
    few->n--;
    for (uint32_t k = i + 1; k < few->n; k++) {
        few->start[k] = few->start[k + 1];
        few->id[k] = few->id[k + 1];
        few->merged[k] = few->merged[k + 1];
        few->priority[k] = few->priority[k + 1];
    }
    few->start[few->n] = few->start[few->n + 1];
    if (i > 0) set_pair(vocab, few, text, i - 1);
    if (i + 1 < few->n) set_pair(vocab, few, text, i);
}

static void merge_few(const oc_vocab *vocab, oc_symbol *symbols, const uint8_t *text, uint32_t length) {
    few_symbols few;
    few.n = 0;
    for (uint32_t at = 0; at < length; at = symbols[at].next) {
        few.start[few.n] = at;
        few.id[few.n++] = symbols[at].id;
    }
    few.start[few.n] = length;
    for (uint32_t i = 0; i + 1 < few.n; i++) set_pair(vocab, &few, text, i);
    while (few.n > 1) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < few.n; i++) {
            if (few.priority[i] < few.priority[best]) best = i;
        }
        if (few.priority[best] == UINT32_MAX) break;
        join(vocab, &few, text, best);
    }
    for (uint32_t i = 0; i < few.n; i++) {
        symbols[few.start[i]].id = few.id[i];
        symbols[few.start[i]].next = few.start[i + 1];
    }
}

oc_status oc_merge(const oc_vocab *vocab, oc_encoder *encoder, const uint8_t *text, uint32_t length) {
    oc_symbol *symbols = encoder->symbols;
    if (length <= FEW) {
        merge_few(vocab, symbols, text, length);
        return OC_OK;
    }
    bool added;
    encoder->heap_count = 0;
    for (uint32_t left = 0; symbols[left].next < length; left = symbols[left].next) {
        oc_status status = add_candidate(vocab, encoder, text, left, &added);
        if (status) return status;
    }
    for (size_t at = encoder->heap_count / 2; at--;) sift_down(encoder->heap, encoder->heap_count, at);
    while (encoder->heap_count) {
        oc_candidate best = encoder->heap[0];
        encoder->heap[0] = encoder->heap[--encoder->heap_count];
        if (encoder->heap_count) sift_down(encoder->heap, encoder->heap_count, 0);
        if (!is_current(vocab, symbols, &best)) continue;
        uint32_t left = (uint32_t)best.key, next = symbols[best.right].next;
        symbols[left].id = best.merged;
        symbols[left].next = next;
        symbols[best.right].dead = true;
        if (next < length) symbols[next].prev = left;
        uint32_t around[2] = {symbols[left].prev, next < length ? left : NO_SYMBOL};
        for (int i = 0; i < 2; i++) {
            if (around[i] == NO_SYMBOL) continue;
            oc_status status = add_candidate(vocab, encoder, text, around[i], &added);
            if (status) return status;
            if (added) sift_up(encoder->heap, encoder->heap_count - 1);
        }
    }
    return OC_OK;
}
