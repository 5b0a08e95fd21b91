/* kv.c - the pool of KV blocks and the sequences that hold them.
 *
 * A block is 32 positions of all layers and heads: per (layer, kv head) one K tile, transposed to (head_dim, 32), and
 * one V tile (32, head_dim), unless values are part of their keys; layers may differ in all that. Blocks are
 * reference-counted so that sequences can share a prefix.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

/* The place of the layer that begins at `offset` of a block. */
static oc_kv_place place_of(const oc_engine_params *params, int32_t layer, size_t offset) {
    const oc_kv_layer *shape = &params->kv_layers[layer];
    const size_t tile = oc_arena_round(oc_kv_tile_size((oc_kv_type)params->kv_type, shape->head_dim));
    return (oc_kv_place){.n_kv_head = shape->n_kv_head,
                         .head_dim = shape->head_dim,
                         .value_dim = shape->value_dim,
                         .offset = offset,
                         .tile_bytes = tile,
                         .head_bytes = shape->value_dim < shape->head_dim ? tile : 2 * tile};
}

static size_t end_of(const oc_kv_place *place) { return place->offset + (size_t)place->n_kv_head * place->head_bytes; }

int64_t oc_engine_kv_block_bytes(const oc_engine_params *params) {
    size_t bytes = 0;
    for (int32_t i = 0; i < params->n_layer; i++) {
        const oc_kv_place place = place_of(params, i, bytes);
        bytes = end_of(&place);
    }
    return (int64_t)bytes;
}

oc_status oc_kv_init(oc_kv *kv, const oc_engine_params *params) {
    kv->n_blocks = params->kv_blocks;
    kv->layers = malloc((size_t)params->n_layer * sizeof *kv->layers);
    if (!kv->layers) return OC_ERR_NOMEM;
    for (int32_t i = 0; i < params->n_layer; i++) {
        kv->layers[i] = place_of(params, i, kv->block_bytes);
        kv->block_bytes = end_of(&kv->layers[i]);
    }
    size_t total;
    if (__builtin_mul_overflow(kv->block_bytes, (size_t)kv->n_blocks, &total)) return OC_ERR_NOMEM;
    kv->free = malloc((size_t)kv->n_blocks * sizeof *kv->free);
    kv->references = calloc((size_t)kv->n_blocks, sizeof *kv->references);
    if (!kv->free || !kv->references || oc_arena_map(&kv->arena, total) != 0) return OC_ERR_NOMEM;
    /* Low indices are handed out first, so a lightly used pool touches little memory. */
    for (int64_t i = 0; i < kv->n_blocks; i++) kv->free[i] = (int32_t)(kv->n_blocks - 1 - i);
    kv->n_free = kv->n_blocks;
    return OC_OK;
}

void oc_kv_free(oc_kv *kv) {
    free(kv->free);
    free(kv->references);
    free(kv->layers);
    oc_arena_unmap(&kv->arena);
}

static void release(oc_kv *kv, int32_t block) {
    if (--kv->references[block] == 0) kv->free[kv->n_free++] = block;
}

oc_status oc_seq_create(oc_engine *engine, oc_seq **seq) {
    oc_seq *made = calloc(1, sizeof *made);
    if (!made) return OC_ERR_NOMEM;
    made->engine = engine;
    made->blocks = malloc((size_t)engine->kv.n_blocks * sizeof *made->blocks);
    oc_status status = made->blocks ? oc_seq_take_states(made) : OC_ERR_NOMEM;
    if (status != OC_OK) {
        free(made->blocks);
        free(made);
        return status;
    }
    *seq = made;
    return OC_OK;
}

void oc_seq_destroy(oc_seq *seq) {
    if (!seq) return;
    oc_seq_truncate(seq, 0);
    oc_seq_give_states(seq);
    free(seq->blocks);
    free(seq);
}

int64_t oc_seq_length(const oc_seq *seq) { return seq->length; }

static int64_t blocks_for(int64_t length) { return (length + OC_TILE - 1) / OC_TILE; }

void oc_seq_truncate(oc_seq *seq, int64_t length) {
    if (length < 0) length = 0;
    oc_stages_forget(seq);
    if (length < seq->length) seq->length = seq->state < 0 ? length : 0;
    while (seq->n_blocks > blocks_for(seq->length)) release(&seq->engine->kv, seq->blocks[--seq->n_blocks]);
}

static int32_t take_block(oc_kv *kv) {
    int32_t block = kv->free[--kv->n_free];
    if (block >= kv->n_touched) kv->n_touched = block + 1;
    kv->references[block] = 1;
    return block;
}

size_t oc_engine_kv_bytes_used(const oc_engine *engine) {
    const size_t touched = (size_t)engine->kv.n_touched * engine->kv.block_bytes, committed = engine->kv.committed;
    return touched > committed ? touched : committed;
}

int oc_engine_needs_memory(const oc_engine *engine, int64_t n_blocks) {
    const oc_kv *kv = &engine->kv;
    const int64_t untouched = kv->n_blocks - kv->n_touched, returned = kv->n_free - untouched; /* these are taken first */
    const int64_t fresh = n_blocks < kv->n_free ? n_blocks - returned : untouched;
    return fresh > 0 && (size_t)(kv->n_touched + fresh) * kv->block_bytes > oc_engine_kv_bytes_used(engine);
}

int oc_engine_commit(oc_engine *engine, int64_t n_blocks) {
    if (!oc_engine_needs_memory(engine, n_blocks)) return 0;
    engine->kv.committed = oc_arena_commit(&engine->kv.arena, oc_engine_kv_bytes_used(engine));
    return 1;
}

oc_status oc_seq_reserve(oc_seq *seq, int64_t length) {
    oc_kv *kv = &seq->engine->kv;
    int64_t partial = seq->length % OC_TILE ? seq->n_blocks - 1 : -1;
    int is_shared = partial >= 0 && length > seq->length && kv->references[seq->blocks[partial]] > 1;
    int64_t need = blocks_for(length) - seq->n_blocks;
    if (need + is_shared > kv->n_free) return OC_ERR_FULL;
    if (is_shared) {
        int32_t own = take_block(kv);
        memcpy(kv->arena.base + (size_t)own * kv->block_bytes, kv->arena.base + (size_t)seq->blocks[partial] * kv->block_bytes,
               kv->block_bytes);
        release(kv, seq->blocks[partial]);
        seq->blocks[partial] = own;
    }
    for (; need > 0; need--) seq->blocks[seq->n_blocks++] = take_block(kv);
    return OC_OK;
}

int64_t oc_seq_blocks(const oc_seq *seq, int32_t *blocks, int64_t capacity) {
    int64_t n = blocks_for(seq->length);
    if (n > capacity) n = capacity;
    memcpy(blocks, seq->blocks, (size_t)n * sizeof *blocks);
    return n;
}

static oc_status append_blocks(oc_seq *seq, const int32_t *blocks, int64_t n) {
    oc_kv *kv = &seq->engine->kv;
    if (seq->length != seq->n_blocks * OC_TILE || n < 0 || seq->n_blocks + n > kv->n_blocks) return OC_ERR_ARGUMENT;
    for (int64_t i = 0; i < n; i++)
        if (blocks[i] < 0 || blocks[i] >= kv->n_blocks || kv->references[blocks[i]] < 1) return OC_ERR_ARGUMENT;
    for (int64_t i = 0; i < n; i++) {
        kv->references[blocks[i]]++;
        seq->blocks[seq->n_blocks++] = blocks[i];
    }
    seq->length += n * OC_TILE;
    return OC_OK;
}

oc_status oc_seq_share(oc_seq *seq, const int32_t *blocks, int64_t n) {
    return seq->state < 0 ? append_blocks(seq, blocks, n) : OC_ERR_ARGUMENT;
}

oc_status oc_seq_resume(oc_seq *seq, const int32_t *blocks, int64_t n, int64_t length, int32_t state) {
    const oc_states *states = &seq->engine->states;
    if (seq->state < 0 || seq->length != 0 || length < 1 || blocks_for(length) != n) return OC_ERR_ARGUMENT;
    if (state < 0 || state >= states->n) return OC_ERR_ARGUMENT;
    oc_status status = append_blocks(seq, blocks, n);
    if (status != OC_OK) return status;
    seq->length = length;
    memcpy(oc_state_at(seq->engine, seq->state), oc_state_at(seq->engine, state), states->bytes);
    return OC_OK;
}

void oc_block_retain(oc_engine *engine, int32_t block) { engine->kv.references[block]++; }
void oc_block_release(oc_engine *engine, int32_t block) { release(&engine->kv, block); }
int32_t oc_block_references(const oc_engine *engine, int32_t block) { return engine->kv.references[block]; }

const void *oc_block_data(const oc_engine *engine, int32_t block) {
    return engine->kv.arena.base + (size_t)block * engine->kv.block_bytes;
}

oc_status oc_block_add(oc_engine *engine, const void *data, int32_t *block) {
    oc_kv *kv = &engine->kv;
    if (kv->n_free == 0) return OC_ERR_FULL;
    *block = take_block(kv);
    memcpy(kv->arena.base + (size_t)*block * kv->block_bytes, data, kv->block_bytes);
    return OC_OK;
}
