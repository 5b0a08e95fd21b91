/* oc.h - the public C interface of the core, the only header that Cython (oc.pxd) and outside code see.
 *
 * Rules: every function returns oc_status or a plain value and never prints, exits or touches errno; text of an error
 * goes to the caller's buffer `err` of OC_ERR_LEN bytes; memory handed in is borrowed for the call unless said otherwise.
 */
#ifndef OC_H
#define OC_H

#include <stddef.h>
#include <stdint.h>

#define OC_ERR_LEN 256

typedef enum oc_status {
    OC_OK = 0,
    OC_ERR_NOMEM = -1,     /* an allocation failed */
    OC_ERR_ARGUMENT = -2,  /* the caller broke a contract that the core checks */
    OC_ERR_FORMAT = -3,    /* data from a file is damaged or not supported */
    OC_ERR_CANCELLED = -4, /* a cancel flag was seen */
    OC_ERR_FULL = -5,      /* the KV pool has no free block */
    OC_ERR_THREAD = -6     /* a worker thread could not be started */
} oc_status;

/* ==== Status and CPU ================================================================================================ */

const char *oc_status_text(oc_status status);

/* ==== Kernels: the table that dispatch, tests and benchmarks walk ==================================================== */

/* ==== Engine: plan, KV pool, step =================================================================================== */

/* An engine is weights + a plan + a pool of KV blocks; a sequence is one timeline of tokens in that pool. The plan is
 * data: a flat list of op records over numbered buffers, emitted by ollamacore/arch. Building it is single-threaded;
 * afterwards one thread at a time may call oc_step, and any thread may set a cancel flag. */
typedef struct oc_engine oc_engine;
typedef struct oc_seq oc_seq;

/* Buffers hold one column of `width` floats per token of a step. Every op reads columns written by earlier ops. */
typedef enum oc_op_kind {
    /* dst = scale * row `token` of matrix (+ row `position` of matrix2) (+ vector); also prepares the rope tables */
    OC_OP_EMBED = 0,
    /* x(dst2) += rmsnorm(src, vector2) or src if vector2 < 0; nothing if src < 0; x += src2 if >= 0; x *= scale;
     * dst = rmsnorm(x, vector); with OC_FLAG_CENTER vector2 belongs to the norm: dst = layernorm(x, vector, vector2);
     * with OC_FLAG_PLAIN dst = x, times vector if >= 0. dst may be dst2: the norm replaces x. n_head > 0: n_head parts
     * of x, each normed on its own by the same vector, or by its part of one as long as x */
    OC_OP_NORM = 1,
    /* dst = scale * (matrix * src + vector (bias, or none if < 0)), through GELU with OC_FLAG_GELU (its tanh form) or
     * OC_FLAG_ERF; with softcap > 0 dst = softcap * tanh(dst / softcap); then times src2, from value `offset` on,
     * if >= 0 */
    OC_OP_LINEAR = 2,
    /* dst = act(matrix * src) * (matrix2 * src); SiLU, or GELU with OC_FLAG_GELU or OC_FLAG_ERF */
    OC_OP_GLU = 3,
    /* q (src), k (src2): optional norms of heads, vector / vector2, of the first rope_at elements if rope_at > 0, and
     * rope from element rope_at on; q *= scale; k and v (src3), with OC_FLAG_NORM_VALUE normed by head, without weights,
     * into the cache; v may be k as it was before, and is < 0 where values are part of their keys. src2 and src3 < 0:
     * `layer` has its keys and values already */
    OC_OP_ROPE_KV = 4,
    /* after its ROPE_KV; dst, value_dim for each head, = attention of q (src) over the cache of `layer`: the last
     * `window` keys if > 0, and with OC_FLAG_BOTH_WAYS the keys after the token too, up to the last one of the step, or
     * those at most window / 2 away; vector: a sink for each head, one more score in its softmax; vector2: for each head
     * what a score loses for each position between query and key (ALiBi) */
    OC_OP_ATTENTION = 5,
    OC_OP_QUANTIZE = 6,  /* the quantised form of src, where its producer could not make it */
    /* Experts: a matrix has the rows of all n_expert, a vector their biases. ROUTE chooses n_used of them for each token
     * from their logits (src), by softmax or with OC_FLAG_SIGMOID, plus vector for the choice alone; of n_group groups, if
     * that is > 1, only the n_group_used best take part. Weights, with OC_FLAG_NORMALIZE divided by their sum, times
     * scale, times the expert's value of vector2 if >= 0. */
    OC_OP_ROUTE = 7,
    /* dst, n_used vectors a token, each filled up to whole groups of rows = the GLU of the chosen experts, + vector and
     * vector2 before act; OC_FLAG_GELU as in GLU, OC_FLAG_CLAMP: the variant of gpt-oss. With OC_FLAG_ERF there is no
     * gate and no matrix2: GELU with the error function of the one product */
    OC_OP_EXPERT_GLU = 8,
    /* dst = sum of weight * (matrix * src + vector) over the chosen experts, + src2 (times sigmoid of the one value of
     * src3, if >= 0) if src2 >= 0 */
    OC_OP_EXPERT_SUM = 9,
    /* dst += scale * row `token` of the table `matrix`, its first row for tokens that it lacks */
    OC_OP_GATHER = 10,
    /* dst = GELU(max(src - (mean + scale * standard deviation of src), 0)) * src2: of a normal distribution a fixed
     * part of the values is not zero (Gaussian top-k). dst is neither of the two */
    OC_OP_SPARSE_GLU = 11,
    /* AltUp (Baykal et al., arXiv 2301.13310): a token has n_stream streams, the buffers from dst on. PREDICT: stream
     * j += sum over i of stream i times value n_stream * j + i of vector (n_stream^2, n_stream) * src; dst2 = stream 0.
     * CORRECT: stream 0 is what a block made of dst2; it becomes dst2 again, and then all streams += what the block
     * changed, times 1 + vector (n_stream, n_stream) * src. dst2 is spent */
    OC_OP_PREDICT = 12,
    OC_OP_CORRECT = 13,
    /* dst = src scaled to the root mean square of src2 */
    OC_OP_MATCH = 14,
    /* a matrix for each of n_head heads, one behind another as they lie in src and dst: of each head
     * dst = matrix * the first k of its elements in src, and what it has there behind them, unchanged */
    OC_OP_HEAD_LINEAR = 15,
    /* State: a sequence has params.state_size floats, zeros at its start; an op has its own from `state` on. CONV: dst =
     * silu of the depthwise causal convolution of src over `window` positions, weights in vector, (window, width of dst);
     * + vector2 if >= 0; with OC_FLAG_GATED src is b, c and x, and dst = c * convolution of b * x, without vector2. Behind
     * a LINEAR that is not joined */
    OC_OP_CONV = 16,
    /* The gated delta rule of n_head heads of v and n_kv_head of k and q: src = q, k (head_dim each) and v, src2 = beta and
     * src3 = alpha before their activations, src4 = gate; vector = weights of the norm of a head of v, vector2 = A, vector3
     * = bias of alpha. decay = exp(A softplus(alpha + bias)); dst = rmsnorm(head) * silu(gate). Head h has k of head
     * h % n_kv_head; with OC_FLAG_GROUPED that of h / (n_head / n_kv_head), and src2 holds for each k the betas of its
     * heads and then their alphas. With OC_FLAG_SCAN a state space: src = v, k and q, which are not made unit vectors,
     * src2 = src3 = alpha, beta = softplus(alpha + bias), head h has k of head h / (n_head / n_kv_head), and dst = (head +
     * vector's value of the head * v) * silu(gate) */
    OC_OP_DELTA = 17
} oc_op_kind;

enum {
    OC_FLAG_QUANTIZE = 1, /* dst also gets its quantised form, for matmuls that read it */
    OC_FLAG_JOIN = 2,     /* LINEAR: one phase with the next op, if that is a LINEAR of the same src */
    OC_FLAG_NEOX = 4,     /* rope pairs (i, i + n_rot/2) instead of (2i, 2i+1) */
    OC_FLAG_GELU = 8,     /* GLU and LINEAR: GELU in its tanh form */
    OC_FLAG_SELECT = 16,  /* NORM: only the columns whose outputs are wanted go on; the ops after it see no others */
    OC_FLAG_CENTER = 32,  /* NORM: layernorm instead of rmsnorm */
    OC_FLAG_ERF = 64,     /* GLU and LINEAR: GELU with the error function */
    OC_FLAG_BOTH_WAYS = 128,
    OC_FLAG_PLAIN = 256,  /* NORM: none */
    OC_FLAG_SIGMOID = 512,
    OC_FLAG_NORMALIZE = 1024,
    OC_FLAG_CLAMP = 2048,
    OC_FLAG_NORM_VALUE = 4096,
    OC_FLAG_GATED = 8192, /* CONV; ROPE_KV and ATTENTION: each head of q has its gate behind it, dst *= sigmoid(gate) */
    OC_FLAG_GROUPED = 16384,
    OC_FLAG_SCAN = 32768
};

typedef struct oc_op {
    int32_t kind, flags;
    int32_t src, src2, src3, src4, dst, dst2; /* buffers; -1 = none */
    int32_t matrix, matrix2;            /* from oc_engine_add_matrix; of GATHER from oc_engine_add_table */
    int32_t vector, vector2, vector3;   /* from oc_engine_add_vector */
    int32_t layer, n_head, n_kv_head, head_dim, rope, rope_at, window;
    int32_t n_expert, n_used, n_group, n_group_used;
    int32_t n_stream, offset;
    int32_t state; /* first of its floats in a sequence's state */
    float eps, scale, softcap;
} oc_op;

typedef enum oc_kv_type { OC_KV_F16 = 0, OC_KV_F32 = 1, OC_KV_Q8_0 = 2 } oc_kv_type;

/* Keys and values that one layer of the cache holds of a token. */
typedef struct oc_kv_layer {
    int32_t n_kv_head, head_dim;
    int32_t value_dim; /* head_dim; or less: a value is the first value_dim elements of its key and not stored itself */
} oc_kv_layer;

typedef struct oc_engine_params {
    int32_t n_threads;
    int32_t max_tokens;  /* columns of one step */
    int32_t max_outputs; /* columns of logits of one step */
    int32_t max_seqs;    /* batch items of one step */
    int32_t n_layer;     /* of the KV cache: layers that have keys and values of their own */
    int32_t kv_type;
    const oc_kv_layer *kv_layers; /* (n_layer), copied */
    int64_t kv_blocks;   /* blocks of 32 positions in the pool */
    int64_t state_size;  /* floats of recurrent state; 0: the plan has none */
    int32_t n_sequences; /* that exist at the same time, where there is state */
    int32_t n_saved;     /* copies of states, from oc_seq_save */
} oc_engine_params;

oc_status oc_engine_create(const oc_engine_params *params, oc_engine **engine, char *err);
void oc_engine_destroy(oc_engine *engine);
/* Loads and steps from now on, between 1 and params.n_threads, with which it begins; not while one of them runs. */
void oc_engine_set_threads(oc_engine *engine, int32_t n_threads);
int32_t oc_engine_threads(const oc_engine *engine);
/* A weight matrix in GGUF layout, (n_rows, k) row-major blocks, in n_runs runs of n_bytes and as many rows, each run what
 * one expert or head has if there are several. They stay in memory until loading has returned, or with
 * oc_engine_load_source as long as the engine lives. */
oc_status oc_engine_add_matrix(oc_engine *engine, int32_t gguf_type, int64_t n_rows, int64_t k, const void *const *runs,
                               int32_t n_runs, size_t n_bytes, int32_t *index, char *err);
/* The same for GATHER, which takes single rows: they stay in the file and are read there, as long as the engine
 * lives. */
oc_status oc_engine_add_table(oc_engine *engine, int32_t gguf_type, int64_t n_rows, int64_t k, const void *data,
                              size_t n_bytes, int32_t *index, char *err);
/* n floats, copied. */
oc_status oc_engine_add_vector(oc_engine *engine, const float *data, int64_t n, int32_t *index, char *err);
oc_status oc_engine_add_buffer(oc_engine *engine, int32_t width, int32_t *index, char *err);
/* A rope table: n_freq angular frequencies in radians per position (n_rot = 2 * n_freq). */
oc_status oc_engine_add_rope(oc_engine *engine, const double *freq, int32_t n_freq, double mscale, int32_t *index, char *err);
oc_status oc_engine_add_op(oc_engine *engine, const oc_op *op, char *err);
/* Checks every op against every shape once. The last op is the LINEAR that writes the logits or, in an encoder, which
 * has none, the NORM with SELECT that writes the hidden states. */
oc_status oc_engine_finish(oc_engine *engine, char *err);
/* Packs all weights in parallel. *progress (may be NULL) counts the source bytes done; a non-zero *cancel ends it. */
oc_status oc_engine_load(oc_engine *engine, int64_t *progress, const int32_t *cancel, char *err);

/* For other threads meanwhile: what a count has come to, and setting a cancel flag, of a step as well. */
int64_t oc_progress(const int64_t *progress);
void oc_cancel(int32_t *cancel);
/* Or: takes weights from what oc_engine_packed_weights gave for an engine with the same matrices, n_bytes from a multiple of
 * 64 on, borrowed as long as the engine lives. The layout depends on OC_PACKED_LAYOUT alone, not on the processor. */
oc_status oc_engine_load_packed(oc_engine *engine, const void *packed, size_t n_bytes, char *err);
/* Or: leaves weights where they are. Steps pack what they multiply, give the same bits, and take longer. */
oc_status oc_engine_load_source(oc_engine *engine, char *err);
/* All packed weights; NULL and 0 after oc_engine_load_source. */
const void *oc_engine_packed_weights(const oc_engine *engine, size_t *n_bytes);
#define OC_PACKED_LAYOUT 2 /* goes up when a packed block, or the place of a matrix, changes */

/* Bytes that the engine has reserved: packed weights, KV pool, scratch. */
size_t oc_engine_weight_bytes(const oc_engine *engine);
size_t oc_engine_kv_bytes(const oc_engine *engine);
/* Of the KV pool, the bytes of blocks that were ever handed out, or committed: the others have no memory behind them. */
size_t oc_engine_kv_bytes_used(const oc_engine *engine);
/* Whether one of the next `n_blocks` free blocks has no memory yet: the step that takes it would wait for that. */
int oc_engine_needs_memory(const oc_engine *engine, int64_t n_blocks);
/* Asks the system for such memory, 2 MiB at most in a call; 0: all have it. A step may be under way. */
int oc_engine_commit(oc_engine *engine, int64_t n_blocks);
size_t oc_engine_scratch_bytes(const oc_engine *engine);
int64_t oc_engine_kv_blocks_free(const oc_engine *engine);
int64_t oc_engine_kv_block_bytes(const oc_engine_params *params);
size_t oc_engine_state_bytes(const oc_engine *engine);
int64_t oc_engine_states_saved(const oc_engine *engine);

oc_status oc_seq_create(oc_engine *engine, oc_seq **seq); /* OC_ERR_FULL: n_sequences exist */
void oc_seq_destroy(oc_seq *seq); /* gives its blocks back; before its engine is destroyed */
int64_t oc_seq_length(const oc_seq *seq);
/* Forget all positions from `length` on. A sequence with state cannot go back and forgets everything, if anything. */
void oc_seq_truncate(oc_seq *seq, int64_t length);

/* Blocks are counted by reference, so that sequences and a prefix cache can share them. A whole block (32 positions) is
 * never written again; a partial one that is shared is copied before its sequence grows. */
int64_t oc_seq_blocks(const oc_seq *seq, int32_t *blocks, int64_t capacity); /* their ids; returns how many */
/* Appends whole blocks that another sequence computed for the same tokens; the sequence must end on a block and have no
 * state. */
oc_status oc_seq_share(oc_seq *seq, const int32_t *blocks, int64_t n);
/* A copy of a sequence's state, which oc_state_release gives back. OC_ERR_FULL: there are n_saved. */
oc_status oc_seq_save(const oc_seq *seq, int32_t *state);
/* Lets an empty sequence with state begin with `length` positions: n blocks of one that had this state there. */
oc_status oc_seq_resume(oc_seq *seq, const int32_t *blocks, int64_t n, int64_t length, int32_t state);
void oc_state_release(oc_engine *engine, int32_t state);
void oc_block_retain(oc_engine *engine, int32_t block);
void oc_block_release(oc_engine *engine, int32_t block);
int32_t oc_block_references(const oc_engine *engine, int32_t block);
/* The keys and values of a block, oc_engine_kv_block_bytes bytes, to keep them outside the pool; and a block made of
 * such bytes, held once. OC_ERR_FULL if none is free. */
const void *oc_block_data(const oc_engine *engine, int32_t block);
oc_status oc_block_add(oc_engine *engine, const void *data, int32_t *block);

typedef struct oc_batch_item {
    oc_seq *seq; /* each sequence at most once in a batch */
    const int32_t *tokens;
    int32_t n_tokens;
    int32_t n_outputs;     /* logits, and hidden states, of the last n_outputs tokens are computed */
    const int32_t *cancel; /* NULL, or a flag that ends the step within one layer when another thread sets it */
    int32_t end_stage;     /* 0: all stages of the plan. Of the last item: only those before this one are computed, and its
                              sequence stays as it is. If the next step ends with the same item, it goes on from there;
                              with the same end_stage it waits in that step. */
} oc_batch_item;

/* A plan ends a stage behind each of its ATTENTIONs, the last one behind all. A prompt chunk that takes its stages in
 * turns, some in every step, reads the keys in front of it once, and no step beside it gets long. */
int32_t oc_engine_stages(const oc_engine *engine);
/* Tokens behind the end of a sequence of which the last step has computed some stages: n_tokens of the item to give again,
 * or 0. */
int32_t oc_seq_staged(const oc_seq *seq, int32_t *end_stage);

/* Appends the tokens of every item to its sequence in one pass. On success *logits points to
 * (sum of n_outputs, stride) floats in item order, valid until the next step; NULL for an encoder. On any error no
 * sequence has changed. While the other threads compute, the caller gets memory for the `ahead` KV blocks that will be
 * taken next (oc_engine_commit). */
oc_status oc_step(oc_engine *engine, const oc_batch_item *items, int32_t n_items, int64_t ahead, const float **logits,
                  int64_t *stride, char *err);
/* The same in two halves: other threads begin, and the caller, one of them, joins in the second half. In between the
 * logits of the step before stay; items, the tokens and the sequences must stay as they are. Every step that was begun is
 * to be finished, soon, by the same thread: no engine can make another one meanwhile. With `give_up` it ends within one
 * layer with OC_ERR_CANCELLED, and no sequence has changed. */
oc_status oc_step_begin(oc_engine *engine, const oc_batch_item *items, int32_t n_items, char *err);
oc_status oc_step_finish(oc_engine *engine, int give_up, const float **logits, int64_t *stride, char *err);
/* Of the step just made, what the NORM with SELECT wrote: (sum of n_outputs) columns of `width` floats, `stride` apart,
 * valid until the next. */
const float *oc_engine_hidden(const oc_engine *engine, int64_t *width, int64_t *stride);
/* mean[i] = the mean of x[r * stride + i] over the rows r < n, i < width, summed in double. */
void oc_mean_rows(const float *x, int64_t n, int64_t width, int64_t stride, float *mean);

/* ==== Sampler ======================================================================================================= */

#define OC_RUN 32 /* logits that share a maximum */

/* The logits of one position, and the largest of each run of OC_RUN of them (NaN left out), so that a search for the
 * best looks at one in OC_RUN first. Sampling changes both meanwhile and restores them. */
typedef struct oc_logits {
    float *values;
    float *maxima; /* (n / OC_RUN, rounded up) */
    int32_t n;
} oc_logits;

/* Output `row` of the engine's last step. */
oc_logits oc_step_logits(const oc_engine *engine, int32_t row);
/* The maxima of logits that no step computed. */
void oc_fill_maxima(const oc_logits *logits);

typedef struct oc_bias {
    int32_t token;
    float bias; /* added to the token's logit */
} oc_bias;

typedef struct oc_breaker {
    const char *text;
    size_t length;
} oc_breaker;

typedef struct oc_vocab oc_vocab;

typedef struct oc_sampler_params {
    float temperature;       /* <= 0: the best token, no draw */
    float top_p;             /* >= 1: off */
    float min_p;             /* <= 0: off */
    float typical_p;         /* >= 1: off */
    float top_n_sigma;       /* <= 0: off */
    float xtc_probability;   /* <= 0: off */
    float xtc_threshold;     /* > 0.5: off */
    float repeat_penalty;    /* 1: off */
    float presence_penalty;  /* 0: off */
    float frequency_penalty; /* 0: off */
    float dry_multiplier;    /* 0: off */
    float dry_base;          /* < 1: off */
    float mirostat_tau, mirostat_eta;
    int32_t mirostat;        /* 0: off, 1, 2: the version */
    int32_t top_k;           /* <= 0: off */
    int32_t repeat_last_n;   /* tokens that the penalties look back on, prompt included; 0: off, < 0: n_ctx */
    int32_t dry_allowed_length;
    int32_t dry_penalty_last_n; /* as repeat_last_n, for DRY */
    uint64_t seed;
    const oc_bias *bias; /* (n_bias), copied */
    int32_t n_bias;
    const oc_breaker *breakers; /* (n_breakers) sequence breakers of DRY, copied */
    int32_t n_breakers;
    const oc_vocab *vocab; /* spells the tokens for the breakers; must outlive the sampler. NULL: no breakers */
} oc_sampler_params;

#define OC_MAX_TOP_LOGPROBS 20

/* The random state, recent tokens and candidates of one sequence. Same parameters, accepted tokens and logits give
 * the same tokens, whatever other sequences do. Not for two threads at once. */
typedef struct oc_sampler oc_sampler;

/* n_ctx: upper limit of the windows of penalties and DRY. */
oc_status oc_sampler_create(const oc_sampler_params *params, int32_t n_ctx, oc_sampler **sampler);
void oc_sampler_destroy(oc_sampler *sampler); /* NULL is fine */

/* Put a token, of the prompt or just sampled, into the windows. */
void oc_sampler_accept(oc_sampler *sampler, int32_t token);

/* The next token. NaN never wins; if nothing is above -infinity, the answer is the first token that is not NaN.
 * `allowed`: NULL, or a bit for each token, lowest first; no other token is chosen. None allowed is OC_ERR_ARGUMENT.
 * Does not accept the token. Allocates at the first call only (or for more logits, or the first mask); that may fail
 * with OC_ERR_NOMEM. */
oc_status oc_sampler_sample(oc_sampler *sampler, const oc_logits *logits, const uint32_t *allowed, int32_t *token);

/* What oc_sampler_sample would draw from, without drawing: up to `capacity` ids and probabilities; *n is how many
 * candidates there are. Greedy sampling has one. */
oc_status oc_sampler_candidates(oc_sampler *sampler, const oc_logits *logits, const uint32_t *allowed,
                                int32_t capacity, int32_t *ids, float *probs, int32_t *n);

/* Log-probability of `token` over the whole vocabulary, before penalties and samplers, and the n_top (at most
 * OC_MAX_TOP_LOGPROBS) best tokens, best first, equal ones by id. Returns how many of those there are: tokens at
 * -infinity are left out. Values below -9999, and NaN, become -9999. */
int32_t oc_logprobs(const oc_logits *logits, int32_t token, int32_t n_top, float *logprob, int32_t *top_ids,
                    float *top_logprobs);

/* ==== Decoding: one sequence that answers by itself ================================================================ */

#define OC_LONGEST_DRAFT 8 /* tokens proposed at most */

/* What steps of one sequence cost on an engine: of one token, and more for each further one. */
typedef struct oc_costs {
    double single; /* seconds of a step of one token; 0: none was measured */
    double usual;  /* half of those steps take less; moves by a hundredth with each */
    double extra;  /* what a further column costs, as a part of that */
    double weight; /* of a new observation in these running means */
} oc_costs;

/* A step of one sequence with so many tokens took so long. A pause of the machine counts little. */
void oc_costs_observe(oc_costs *costs, int32_t columns, double seconds);

/* Prompt lookup: what followed the last tokens earlier in a sequence is proposed as what follows now. */
typedef struct oc_lookup oc_lookup;

oc_status oc_lookup_create(oc_lookup **lookup);
void oc_lookup_destroy(oc_lookup *lookup); /* NULL is fine */
/* The sequence is another one now, such as after a context shift. What was learned about its proposals stays. */
oc_status oc_lookup_restart(oc_lookup *lookup, const int32_t *tokens, int64_t n);
/* One token more. Every token goes through here, so hit rates are learned without drafts too. */
oc_status oc_lookup_accept(oc_lookup *lookup, int32_t token);
/* The next tokens, at most `most` and OC_LONGEST_DRAFT: as many as are worth their columns, often none. Returns their
 * number. */
int32_t oc_lookup_propose(const oc_lookup *lookup, int64_t most, oc_costs *costs, int32_t *draft);

/* A stream: what the next tokens of a sequence come from, and the step that computes them while the caller does other
 * things. The caller fills in the first six; the rest starts at 0. */
typedef struct oc_stream {
    oc_engine *engine;
    oc_seq *seq;
    const int32_t *cancel; /* as in oc_batch_item */
    oc_sampler *sampler;
    oc_lookup *lookup; /* NULL: no drafts */
    oc_costs *costs;
    oc_batch_item item;    /* of the step under way */
    int32_t tokens[1 + OC_LONGEST_DRAFT]; /* of it: the token before, and a draft of those to be chosen */
    int32_t is_begun;      /* whether a step is under way */
    int64_t wanted;        /* tokens that may be wanted after those of this step */
    int64_t drafted, accepted; /* tokens that lookup proposed; of them those that were chosen */
    int64_t began, joined, ended; /* the last time that a step was begun, that the caller joined one, and that one
                                     ended: nanoseconds on the monotonic clock */
} oc_stream;

/* The next token by output `row` of the engine's last step, and `allowed` as in oc_sampler_sample. */
oc_status oc_stream_choose(oc_stream *stream, int32_t row, const uint32_t *allowed, int32_t *token);
/* A token that somebody else has chosen. */
oc_status oc_stream_accept(oc_stream *stream, int32_t token);
/* Begins the step that computes what follows `token`; `wanted`: further tokens that may be wanted after the next. */
oc_status oc_stream_begin(oc_stream *stream, int32_t token, int64_t wanted, char *err);
/* Finishes it and writes the *n tokens that follow, at most 1 + OC_LONGEST_DRAFT; the sequence ends before the last of
 * them. Then the next step is under way, unless no more tokens are wanted or it cannot be begun: oc_stream_begin would
 * say why. */
oc_status oc_stream_advance(oc_stream *stream, int32_t *tokens, int32_t *n, char *err);
/* Ends the step under way, if there is one, as if it had not been begun. */
void oc_stream_give_up(oc_stream *stream);

/* ==== Text: tokenizers and string tables ============================================================================ */

/* Finds `count` records (length as uint64, bytes) at the start of `data`: offsets[i] is where record i begins and
 * offsets[count] where the last one ends, so that string i is data[offsets[i] + 8 .. offsets[i + 1]).
 * OC_ERR_FORMAT when a string is longer than max_bytes or than the data. */
oc_status oc_strings_index(const uint8_t *data, size_t size, size_t count, uint64_t max_bytes,
                           uint64_t *offsets /* (count + 1) */);
typedef enum oc_token_model {
    OC_TOKENS_BPE, /* byte-level BPE: pieces in the GPT-2 alphabet, merges by rank ("gpt2" in GGUF) */
    OC_TOKENS_SPM, /* SentencePiece BPE with byte fallback: merges by the score of the result ("llama" in GGUF), or by
                    * rank where the file has merges ("gemma4") */
    OC_TOKENS_WPM, /* WordPiece of BERT: the longest piece that fits, again and again ("bert" in GGUF) */
    OC_TOKENS_UGM  /* SentencePiece unigram: the pieces with the highest sum of scores ("t5" in GGUF) */
} oc_token_model;

/* The values of tokenizer.ggml.token_type. */
typedef enum oc_token_type {
    OC_TOKEN_UNDEFINED = 0,
    OC_TOKEN_NORMAL = 1,
    OC_TOKEN_UNKNOWN = 2,
    OC_TOKEN_CONTROL = 3,
    OC_TOKEN_USER_DEFINED = 4,
    OC_TOKEN_UNUSED = 5,
    OC_TOKEN_BYTE = 6
} oc_token_type;

/* A GGUF array of strings in place: the little-endian u64 length of string i stands at data + offsets[i], its bytes
 * follow. Nothing in it is trusted. */
typedef struct oc_strings {
    const uint8_t *data;
    size_t size;
    const uint64_t *offsets; // (count)
    size_t count;
} oc_strings;

typedef struct oc_vocab_spec {
    oc_token_model model;
    const char *pre;      /* BPE: the rules that cut text into pretokens, by their name in text/pretoken.c */
    int ignore_merges;    /* BPE: a pretoken that is a piece as a whole is not merged */
    int lowercase;        /* WPM: text loses case and accents */
    int add_space_prefix; /* SPM, UGM: a space goes before text at the start and after a special token */
    int trim_spaces;      /* UGM: spaces at the ends of a text go, and runs of them become one */
    int32_t unknown;      /* all but BPE: what stands for text that no token covers; -1: such text is dropped */
    oc_strings tokens;
    oc_strings merges;    /* BPE, and SPM without scores: "left right" */
    const float *scores;  /* SPM, UGM: (tokens.count) or NULL */
    const uint8_t *charsmap; /* UGM: SentencePiece's precompiled normaliser, or NULL */
    size_t charsmap_size;
    const int32_t *types; /* (tokens.count), or NULL: all normal, byte tokens known by their spelling */
    oc_strings control;   /* spellings of tokens that are control tokens where `types` says user-defined */
} oc_vocab_spec;

/* Checks and copies everything; OC_ERR_FORMAT names what is wrong in err. */
oc_status oc_vocab_create(const oc_vocab_spec *spec, oc_vocab **out, char *err);
void oc_vocab_free(oc_vocab *vocab);
int32_t oc_vocab_count(const oc_vocab *vocab);
/* The vocabulary's own spelling of a token, and the bytes that it adds to a text; id must be in range. */
const uint8_t *oc_vocab_text(const oc_vocab *vocab, int32_t id, size_t *length);
const uint8_t *oc_vocab_bytes(const oc_vocab *vocab, int32_t id, size_t *length);
oc_token_type oc_vocab_type(const oc_vocab *vocab, int32_t id);
/* White space that a special token takes with it where it is found in a text; before the vocabulary is first used. */
enum { OC_STRIP_LEFT = 1, OC_STRIP_RIGHT = 2 };
oc_status oc_vocab_strip(oc_vocab *vocab, int32_t id, int sides);

typedef struct oc_tokens { /* start with {0}; grows as needed */
    int32_t *ids;
    size_t count, capacity;
} oc_tokens;

/* Append the ids of a text. User-defined tokens are found in it always, control tokens only with parse_special.
 * Any number of threads may encode with one vocabulary. A text of 2 GiB or more is OC_ERR_ARGUMENT. */
oc_status oc_vocab_encode(oc_vocab *vocab, const uint8_t *text, size_t length, int parse_special, oc_tokens *out);
void oc_tokens_free(oc_tokens *tokens);

/* ==== Structured output: grammars ================================================================================== */

/* A grammar is a graph: a text moves from node to node. A part of it that is used in several places is entered by CALL
 * or REPEAT, which remember where to go on, and left by RETURN, which goes there; at the bottom the text is complete. */
typedef enum oc_node_kind {
    OC_NODE_RETURN, /* the end of a rule */
    OC_NODE_BYTES,  /* one byte of set `a` */
    OC_NODE_FORK,   /* any of edges[a .. a + b); no two FORKs have an edge in common */
    OC_NODE_CALL,   /* the rule that begins at `a`; with `b` it is not entered in the depths of the text */
    OC_NODE_REPEAT, /* that rule at least `b` and at most `c` times */
    OC_NODE_TEXT,   /* the inside of a JSON string: at least `b` and at most `c` characters; with `a` without line ends */
    OC_NODE_SPACE   /* blanks as they stand between JSON's tokens: none, one, or up to two line ends and an indent */
} oc_node_kind;

#define OC_NO_LIMIT UINT32_MAX /* as `c` */

typedef struct oc_grammar_node {
    uint32_t kind, next; /* next: where the text goes on; not for RETURN and FORK */
    uint32_t a, b, c;
} oc_grammar_node;

typedef struct oc_grammar_spec {
    uint64_t id; /* of its own among all grammars of the process: masks are stored under it */
    const oc_grammar_node *nodes;
    const uint32_t *edges;
    const uint64_t *sets; /* four words for each: a bit for each byte, lowest first */
    uint32_t n_nodes, n_edges, n_sets;
    uint32_t root;
} oc_grammar_spec;

typedef struct oc_grammar oc_grammar;
typedef struct oc_spellings oc_spellings;
typedef struct oc_matcher oc_matcher;

/* Checks and copies everything. What cannot lead to a complete text is as if it was not there; OC_ERR_ARGUMENT, with
 * words in err, for a grammar that has no text at all. */
oc_status oc_grammar_create(const oc_grammar_spec *spec, oc_grammar **out, char *err);
void oc_grammar_destroy(oc_grammar *grammar); /* NULL is fine */

/* What the tokens below n_vocab spell, and masks made with it: for one thread at a time. `ends`: tokens that end a text;
 * they, and control tokens, are no part of one. */
oc_status oc_spellings_create(const oc_vocab *vocab, int32_t n_vocab, const int32_t *ends, int32_t n_ends,
                              oc_spellings **out);
void oc_spellings_destroy(oc_spellings *spellings); /* NULL is fine */

/* One text in a grammar, from its beginning. The grammar must outlive it. */
oc_status oc_matcher_create(const oc_grammar *grammar, oc_matcher **out);
void oc_matcher_destroy(oc_matcher *matcher); /* NULL is fine */
/* Goes on by n bytes; OC_ERR_ARGUMENT, with nothing changed, if the grammar does not have them. */
oc_status oc_matcher_accept(oc_matcher *matcher, const uint8_t *bytes, size_t n);
/* Whether the text may end here, and whether it can only end here. */
int oc_matcher_may_end(const oc_matcher *matcher);
int oc_matcher_must_end(const oc_matcher *matcher);
/* The next bytes as far as there is no choice, at most `capacity`. */
oc_status oc_matcher_forced(oc_matcher *matcher, uint8_t *bytes, size_t capacity, size_t *n);
/* A bit for each token that may come next, lowest first, in (n_vocab + 31) / 32 words; the tokens that end a text where
 * it may end. OC_ERR_FORMAT if there is none: the vocabulary cannot spell what the grammar wants. */
oc_status oc_matcher_mask(oc_matcher *matcher, oc_spellings *spellings, uint32_t *mask);

#endif
