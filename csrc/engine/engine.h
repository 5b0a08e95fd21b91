/* engine.h - the engine's own structures; nothing outside csrc/engine sees them. */
#ifndef OC_ENGINE_ENGINE_H
#define OC_ENGINE_ENGINE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/share.h"
#include "kernels/kernels.h"
#include "oc.h"
#include "quant/format.h"

/* ---- weights ---- */

typedef struct oc_matrix {
    const oc_format *format;
    int64_t n_rows, k;  /* of several runs, each is counted as whole groups */
    int64_t run_rows;   /* that a run has in the file */
    const void *source; /* GGUF rows, borrowed until packed: the first of n_runs runs */
    const void **runs;  /* (n_runs) where each begins; NULL: one run */
    int32_t n_runs;
    const void *packed; /* NULL: the matrix stays in its file, see weights.c */
} oc_matrix;

typedef struct oc_vector {
    float *data;
    int64_t n;
} oc_vector;

/* ---- buffers and rope tables ---- */

/* Where the columns of one buffer stand. */
typedef struct oc_columns {
    float *f32;    /* (columns, width) */
    int8_t *codes; /* (columns, n) or NULL; with codes n is a multiple of 32 and equal to width */
    float *scale;  /* (columns, n / 16) or NULL */
    float *sum;    /* (columns, n / 32) or NULL */
} oc_columns;

/* A private buffer is written by EMBED, NORM and AltUp only: in a step of one token every thread computes its own
 * copy, which costs a microsecond and saves a phase. */
typedef struct oc_buffer {
    int32_t n;     /* values per column */
    int32_t width; /* floats from one column to the next: n rounded up to whole groups of rows, which matmul writes */
    int is_private, is_quantized, is_output; /* is_output: written after SELECT, so it has max_outputs columns */
    int is_codes; /* nobody reads the floats: they need not come to their place */
    oc_columns shared;
    oc_columns *own; /* (n_threads) of one column each, private buffers only */
} oc_buffer;

typedef struct oc_rope {
    double *freq; /* (n_freq) radians per position */
    int32_t n_freq;
    double mscale;
    float *cos, *sin; /* (max_tokens, n_freq) of the step in work */
} oc_rope;

/* ---- KV pool ---- */

/* Where the tiles of one layer lie in a block: of each kv head a K tile and, unless values are part of their keys, a V
 * tile. */
typedef struct oc_kv_place {
    int32_t n_kv_head, head_dim, value_dim;
    size_t offset, tile_bytes, head_bytes;
} oc_kv_place;

typedef struct oc_kv {
    oc_arena arena;
    int64_t n_blocks;
    _Atomic int64_t n_free;    /* as n_touched and n_saved, other threads look at it */
    _Atomic int64_t n_touched; /* blocks that were handed out at least once: the lowest indices */
    _Atomic size_t committed;  /* bytes behind which memory was not asked for, except by use */
    int32_t *free;      /* (n_free) indices */
    int32_t *references; /* (n_blocks) */
    oc_kv_place *layers; /* (n_layer) */
    size_t block_bytes;
} oc_kv;

/* ---- recurrent state ---- */

typedef struct oc_states {
    oc_arena arena;
    int64_t n, n_free;
    _Atomic int64_t n_saved;
    int32_t *free; /* (n) indices; NULL: the plan has no state */
    size_t bytes;  /* of one */
} oc_states;

struct oc_seq {
    struct oc_engine *engine;
    int32_t *blocks; /* (kv.n_blocks): block i holds positions 32 i .. 32 i + 31 */
    int64_t n_blocks, length;
    int32_t state, next; /* -1: none. A step reads one and writes the other, and they change places once it is done */
};

/* ---- the step in work ---- */

/* Up to OC_ROWS query rows of consecutive tokens of one sequence: the unit of attention, per slice of heads. */
typedef struct oc_span {
    int32_t item, column, n_tokens; /* batch item, first column, tokens */
    int64_t position;               /* of the first token */
    int64_t partials;               /* rows of step->partials in front of its own; -1: its keys are not split */
} oc_span;

/* Keys are summed up in parts of OC_PART positions and the parts joined in ascending order, always: so the parts may be
 * shared by threads or not, and the result is the same. */
#define OC_PART OC_ATTENTION_KEYS

/* What attention makes of some keys, to be joined with what it makes of others (see oc_attention_args). */
typedef struct oc_partial {
    float *out, *max, *sum; /* (rows, value_dim), (rows), (rows) */
} oc_partial;

/* What one thread does of the attention of a span and a slice: one part of the keys, or all. */
typedef struct oc_attention_work {
    int32_t span, part; /* part -1: all */
} oc_attention_work;

/* A token sent to an expert. */
typedef struct oc_choice {
    int32_t expert;
    float weight;
} oc_choice;

/* What the last ROUTE decided: pairs of a token and an expert, grouped by expert, ascending; in a group by column. */
typedef struct oc_routes {
    oc_choice *chosen;   /* (max_tokens, n_used), of each token by expert, ascending */
    int32_t *column;     /* (max_tokens * n_used) of each pair */
    float *weight;       /* (max_tokens * n_used) of each pair */
    int32_t *first;      /* (n_expert + 1) first pair of each expert */
    int32_t *active;     /* (n_expert) experts that have a pair, ascending */
    int32_t n_active;
    atomic_int n_routed; /* columns */
} oc_routes;

/* The last item of a step, where that computes some of its stages only: what is done of it, in its columns. */
typedef struct oc_staged {
    oc_seq *seq; /* NULL: nothing is */
    int32_t n_tokens, column, stage; /* its first column, and the first stage that is not done */
} oc_staged;

/* What part of the columns, items and work of a step an op works on. */
typedef struct oc_extent {
    int32_t n_columns, n_items, n_work;
} oc_extent;

typedef struct oc_step_state {
    int is_begun; /* and not finished */
    const oc_batch_item *items;
    int32_t n_outputs, n_spans;
    oc_extent all, rest; /* all: of the ops [staged_begin, staged_end); rest: of others, without the staged item */
    const oc_op *staged_begin, *staged_end;
    oc_staged staged;
    int is_solo;         /* one column, all stages */
    int decode_only;     /* every item has one token: attention stores its key and value itself */
    int32_t *token;      /* (max_tokens) */
    int32_t *item;       /* (max_tokens) batch item of a column */
    int64_t *position;   /* (max_tokens) */
    int32_t *output;     /* (max_outputs) columns whose logits are wanted */
    int32_t *first;      /* (max_seqs) first column of an item */
    oc_span *spans;      /* (max_tokens) */
    int64_t n_partials;  /* rows that partials has room for, of value_dim + 2 floats */
    float *partials;     /* parts of the spans that are split, until the last one arrives */
    oc_attention_work *work; /* (max_tokens + parts of all positions in the pool) */
    atomic_int *arrived; /* (max_tokens, slices of all kv heads) parts of a span that are done */
    oc_lane *lanes;      /* (n_ops, n_threads): work sharing inside one op */
    unsigned epoch;      /* of the step, for the lanes */
    atomic_ullong front; /* the last phase that a thread has come to, and which: see exec.c */
    atomic_int stop, is_joined; /* given up; the caller has come to the second half of the step */
    oc_routes routes;
} oc_step_state;

/* Scratch of one thread. */
typedef struct oc_thread {
    float *q, *attention, *column;       /* (OC_ROWS, head_dim), oc_attention_scratch, widest buffer */
    oc_partial whole, part;              /* (OC_ROWS) */
    int32_t *first, *last, *position;    /* (OC_ROWS) */
    float *slope;                        /* (OC_ROWS) */
    const void **k_tiles, **v_tiles;     /* (kv.n_blocks) */
    oc_columns gathered;                 /* (OC_SLICE) columns that go to one expert or head */
    float *rows;                         /* (OC_SLICE, OC_EXPERT_ROWS) products of an expert */
    float *product;                      /* of a chunk, of GLU twice, until it may be written down */
    atomic_ullong settled;               /* the phase in front of which its private buffers stand still, or 0 */
    void *panel;                         /* groups of weights that stay in their file, packed for one call */
} oc_thread;

#define OC_CHUNK_BYTES 32768 /* weight bytes of one chunk of a GEMV, at least */
#define OC_ROW_CHUNK 4       /* groups: 32 rows, whose outputs share a sum where they are quantised, or a maximum */
#define OC_PANEL_GROUPS 8    /* the same for GLU: outputs of all columns stay in cache between its two matmuls */
#define OC_SLICE 32       /* tokens of one expert or head that are multiplied at a time */
#define OC_MAX_GROUPS 64  /* of experts */
#define OC_MAX_USED 256   /* experts of a token */
#define OC_MAX_STREAMS 8  /* of a token, in AltUp */
#define OC_EXPERT_ROWS 64 /* rows of one expert that are multiplied at a time */
#define OC_ROWS OC_ATTENTION_ROWS /* query rows of one attention call */
#define OC_SOURCE_PANEL 65536 /* bytes of a panel, if that holds a group: small beside any second-level cache */

struct oc_engine {
    oc_engine_params params;
    oc_matrix *matrices;
    oc_matrix *tables; /* of GATHER: always in their file */
    oc_vector *vectors;
    oc_buffer *buffers;
    oc_rope *ropes;
    oc_op *ops;
    int32_t n_matrices, n_tables, n_vectors, n_buffers, n_ropes, n_ops;
    int32_t n_stages; /* ATTENTIONs, at least 1 */
    int is_finished, is_loaded;
    int32_t n_threads; /* at work, of the params.n_threads that there is room for */
    int32_t n_kv_head, head_dim, value_dim; /* the most of any layer of the KV cache */
    float *maxima;     /* (max_outputs, runs of OC_RUN logits): see oc_logits */
    int32_t embedding; /* the matrix of EMBED: its rows bound the token ids */
    int32_t positions; /* the matrix2 of EMBED, or -1: its rows bound the length of a sequence */
    const oc_op *select; /* the first NORM with SELECT */
    int32_t hidden;    /* the buffer that the NORM with SELECT writes */
    int looks_ahead;   /* some ATTENTION looks both ways: the keys of a token end with its sequence */
    oc_arena weights, scratch;
    oc_kv kv;
    oc_states states;
    oc_step_state step;
    oc_thread *threads; /* (n_threads) */
};

/* weights.c: rows of the file from row `row` on, which begins a group; *n is how many follow in its run. */
const void *oc_source_rows(const oc_matrix *m, int64_t row, int64_t *n);

/* n rounded up to whole groups of rows. */
static inline int64_t oc_whole_groups(int64_t n) { return (n + OC_GROUP - 1) / OC_GROUP * OC_GROUP; }

oc_status oc_fail(oc_status status, char *err, const char *format, int64_t a, int64_t b);

/* The query heads of a kv head, cut into n slices of `rows` heads, the last of them perhaps shorter: the rows of a
 * token in one attention call. */
typedef struct oc_slices {
    int32_t n, rows;
} oc_slices;

static inline oc_slices oc_slices_of(const oc_op *op) {
    const int32_t group = op->n_head / op->n_kv_head, n = (group + OC_ROWS - 1) / OC_ROWS;
    return (oc_slices){.n = n, .rows = (group + n - 1) / n};
}

/* step.c: the most that any layer has, of both. */
oc_slices oc_most_slices(const struct oc_engine *engine);

oc_status oc_kv_init(oc_kv *kv, const oc_engine_params *params);
void oc_kv_free(oc_kv *kv);
/* state.c */
oc_status oc_states_init(oc_states *states, const oc_engine_params *params);
void oc_states_free(oc_states *states);
static inline float *oc_state_at(const struct oc_engine *engine, int32_t state) {
    return (float *)(engine->states.arena.base + (size_t)state * engine->states.bytes);
}
/* The two states of a new sequence, if its engine has any, and back. */
oc_status oc_seq_take_states(oc_seq *seq);
void oc_seq_give_states(oc_seq *seq);
/* Before and after a step: a sequence without positions begins with zeros; what the step wrote is the state. */
void oc_seq_begin_state(oc_seq *seq);
void oc_seq_commit_state(oc_seq *seq);

/* stages.c: whether only the last item ends early, and without outputs. */
oc_status oc_stages_check(const struct oc_engine *engine, const oc_batch_item *items, int32_t n_items, char *err);
/* Before room is made for a step: which part of the plan its last item takes. */
void oc_stages_begin(struct oc_engine *engine, const oc_batch_item *items, int32_t n_items);
/* What was computed behind the end of a sequence is gone. */
void oc_stages_forget(const oc_seq *seq);

/* Makes room for `length` positions; on OC_ERR_FULL the sequence is as before. */
oc_status oc_seq_reserve(oc_seq *seq, int64_t length);
/* The K tile of (block, layer, head); its V tile, if there is one, follows at + the layer's tile_bytes. */
static inline unsigned char *oc_kv_tile(const struct oc_engine *engine, int32_t block, int32_t layer, int32_t head) {
    const oc_kv *kv = &engine->kv;
    const oc_kv_place *place = &kv->layers[layer];
    return kv->arena.base + (size_t)block * kv->block_bytes + place->offset + (size_t)head * place->head_bytes;
}

/* Values of a head of a DELTA, whose buffers exist. */
static inline int64_t oc_value_length(const struct oc_engine *engine, const oc_op *op) {
    return op->flags & OC_FLAG_SCAN ? engine->buffers[op->dst].n / op->n_head : engine->vectors[op->vector].n;
}

/* Groups of a chunk of a GEMV: as many as fill OC_CHUNK_BYTES, `least` times a power of two. */
static inline long oc_gemv_chunk(const oc_matrix *m, long least) {
    const long group_bytes = (long)(m->k / m->format->block) * m->format->group_bytes;
    while (least * group_bytes < OC_CHUNK_BYTES) least *= 2;
    return least;
}

/* exec.c: runs the plan over engine->step on all threads, in two halves as oc_pool_begin; with `give_up` to the end of the
 * first layer only. */
oc_status oc_exec_begin(struct oc_engine *engine);
oc_status oc_exec_finish(struct oc_engine *engine, int give_up);

#endif
