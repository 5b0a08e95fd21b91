"""C declarations of oc.h, nothing else."""
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "oc.h" nogil:
    enum: OC_ERR_LEN
    enum: OC_PACKED_LAYOUT
    ctypedef enum oc_status:
        OC_OK
        OC_ERR_NOMEM
        OC_ERR_ARGUMENT
        OC_ERR_FORMAT
        OC_ERR_CANCELLED
        OC_ERR_FULL
        OC_ERR_THREAD
    const char *oc_status_text(oc_status status) noexcept

    # ---- kernels ----

    # ---- engine ----
    ctypedef struct oc_engine
    ctypedef struct oc_seq
    enum:
        OC_OP_EMBED
        OC_OP_NORM
        OC_OP_LINEAR
        OC_OP_GLU
        OC_OP_ROPE_KV
        OC_OP_ATTENTION
        OC_OP_QUANTIZE
        OC_OP_ROUTE
        OC_OP_EXPERT_GLU
        OC_OP_EXPERT_SUM
        OC_OP_GATHER
        OC_OP_SPARSE_GLU
        OC_OP_PREDICT
        OC_OP_CORRECT
        OC_OP_MATCH
        OC_OP_HEAD_LINEAR
        OC_OP_CONV
        OC_OP_DELTA
        OC_FLAG_QUANTIZE
        OC_FLAG_JOIN
        OC_FLAG_NEOX
        OC_FLAG_GELU
        OC_FLAG_SELECT
        OC_FLAG_CENTER
        OC_FLAG_ERF
        OC_FLAG_BOTH_WAYS
        OC_FLAG_PLAIN
        OC_FLAG_SIGMOID
        OC_FLAG_NORMALIZE
        OC_FLAG_CLAMP
        OC_FLAG_NORM_VALUE
        OC_FLAG_GATED
        OC_FLAG_GROUPED
        OC_FLAG_SCAN
        OC_KV_F16
        OC_KV_F32
        OC_KV_Q8_0
    ctypedef struct oc_op:
        int32_t kind, flags
        int32_t src, src2, src3, src4, dst, dst2
        int32_t matrix, matrix2, vector, vector2, vector3
        int32_t layer, n_head, n_kv_head, head_dim, rope, rope_at, window
        int32_t n_expert, n_used, n_group, n_group_used, n_stream, offset, state
        float eps, scale, softcap
    ctypedef struct oc_kv_layer:
        int32_t n_kv_head, head_dim, value_dim
    ctypedef struct oc_engine_params:
        int32_t n_threads, max_tokens, max_outputs, max_seqs
        int32_t n_layer, kv_type
        const oc_kv_layer *kv_layers
        int64_t kv_blocks, state_size
        int32_t n_sequences, n_saved
    ctypedef struct oc_batch_item:
        oc_seq *seq
        const int32_t *tokens
        int32_t n_tokens, n_outputs
        const int32_t *cancel
        int32_t end_stage
    oc_status oc_engine_create(const oc_engine_params *params, oc_engine **engine, char *err) noexcept
    void oc_engine_destroy(oc_engine *engine) noexcept
    void oc_engine_set_threads(oc_engine *engine, int32_t n_threads) noexcept
    int32_t oc_engine_threads(const oc_engine *engine) noexcept
    oc_status oc_engine_add_matrix(oc_engine *engine, int32_t gguf_type, int64_t n_rows, int64_t k,
                                   const void *const *runs, int32_t n_runs, size_t n_bytes, int32_t *index,
                                   char *err) noexcept
    oc_status oc_engine_add_table(oc_engine *engine, int32_t gguf_type, int64_t n_rows, int64_t k, const void *data,
                                  size_t n_bytes, int32_t *index, char *err) noexcept
    oc_status oc_engine_add_vector(oc_engine *engine, const float *data, int64_t n, int32_t *index, char *err) noexcept
    oc_status oc_engine_add_buffer(oc_engine *engine, int32_t width, int32_t *index, char *err) noexcept
    oc_status oc_engine_add_rope(oc_engine *engine, const double *freq, int32_t n_freq, double mscale,
                                 int32_t *index, char *err) noexcept
    oc_status oc_engine_add_op(oc_engine *engine, const oc_op *op, char *err) noexcept
    oc_status oc_engine_finish(oc_engine *engine, char *err) noexcept
    oc_status oc_engine_load(oc_engine *engine, int64_t *progress, const int32_t *cancel, char *err) noexcept
    int64_t oc_progress(const int64_t *progress) noexcept
    void oc_cancel(int32_t *cancel) noexcept
    oc_status oc_engine_load_packed(oc_engine *engine, const void *packed, size_t n_bytes, char *err) noexcept
    oc_status oc_engine_load_source(oc_engine *engine, char *err) noexcept
    const void *oc_engine_packed_weights(const oc_engine *engine, size_t *n_bytes) noexcept
    size_t oc_engine_weight_bytes(const oc_engine *engine) noexcept
    size_t oc_engine_kv_bytes(const oc_engine *engine) noexcept
    size_t oc_engine_kv_bytes_used(const oc_engine *engine) noexcept
    bint oc_engine_needs_memory(const oc_engine *engine, int64_t n_blocks) noexcept
    int oc_engine_commit(oc_engine *engine, int64_t n_blocks) noexcept
    size_t oc_engine_scratch_bytes(const oc_engine *engine) noexcept
    int64_t oc_engine_kv_blocks_free(const oc_engine *engine) noexcept
    int64_t oc_engine_kv_block_bytes(const oc_engine_params *params) noexcept
    size_t oc_engine_state_bytes(const oc_engine *engine) noexcept
    int64_t oc_engine_states_saved(const oc_engine *engine) noexcept
    oc_status oc_seq_create(oc_engine *engine, oc_seq **seq) noexcept
    void oc_seq_destroy(oc_seq *seq) noexcept
    int64_t oc_seq_length(const oc_seq *seq) noexcept
    void oc_seq_truncate(oc_seq *seq, int64_t length) noexcept
    int64_t oc_seq_blocks(const oc_seq *seq, int32_t *blocks, int64_t capacity) noexcept
    oc_status oc_seq_share(oc_seq *seq, const int32_t *blocks, int64_t n) noexcept
    oc_status oc_seq_save(const oc_seq *seq, int32_t *state) noexcept
    oc_status oc_seq_resume(oc_seq *seq, const int32_t *blocks, int64_t n, int64_t length, int32_t state) noexcept
    void oc_state_release(oc_engine *engine, int32_t state) noexcept
    void oc_block_retain(oc_engine *engine, int32_t block) noexcept
    void oc_block_release(oc_engine *engine, int32_t block) noexcept
    int32_t oc_block_references(const oc_engine *engine, int32_t block) noexcept
    const void *oc_block_data(const oc_engine *engine, int32_t block) noexcept
    oc_status oc_block_add(oc_engine *engine, const void *data, int32_t *block) noexcept
    int32_t oc_engine_stages(const oc_engine *engine) noexcept
    int32_t oc_seq_staged(const oc_seq *seq, int32_t *end_stage) noexcept
    oc_status oc_step(oc_engine *engine, const oc_batch_item *items, int32_t n_items, int64_t ahead,
                      const float **logits, int64_t *stride, char *err) noexcept
    const float *oc_engine_hidden(const oc_engine *engine, int64_t *width, int64_t *stride) noexcept
    void oc_mean_rows(const float *x, int64_t n, int64_t width, int64_t stride, float *mean) noexcept

    # ---- sampler ----
    enum: OC_RUN
    enum: OC_MAX_TOP_LOGPROBS
    ctypedef struct oc_logits:
        float *values
        float *maxima
        int32_t n
    oc_logits oc_step_logits(const oc_engine *engine, int32_t row) noexcept
    void oc_fill_maxima(const oc_logits *logits) noexcept
    ctypedef struct oc_bias:
        int32_t token
        float bias
    ctypedef struct oc_breaker:
        const char *text
        size_t length
    ctypedef struct oc_vocab:
        pass
    ctypedef struct oc_sampler_params:
        float temperature
        float top_p
        float min_p
        float typical_p
        float top_n_sigma
        float xtc_probability
        float xtc_threshold
        float repeat_penalty
        float presence_penalty
        float frequency_penalty
        float dry_multiplier
        float dry_base
        float mirostat_tau
        float mirostat_eta
        int32_t mirostat
        int32_t top_k
        int32_t repeat_last_n
        int32_t dry_allowed_length
        int32_t dry_penalty_last_n
        uint64_t seed
        const oc_bias *bias
        int32_t n_bias
        const oc_breaker *breakers
        int32_t n_breakers
        const oc_vocab *vocab
    ctypedef struct oc_sampler:
        pass
    oc_status oc_sampler_create(const oc_sampler_params *params, int32_t n_ctx, oc_sampler **sampler) noexcept
    void oc_sampler_destroy(oc_sampler *sampler) noexcept
    void oc_sampler_accept(oc_sampler *sampler, int32_t token) noexcept
    oc_status oc_sampler_sample(oc_sampler *sampler, const oc_logits *logits, const uint32_t *allowed,
                                int32_t *token) noexcept
    oc_status oc_sampler_candidates(oc_sampler *sampler, const oc_logits *logits, const uint32_t *allowed,
                                    int32_t capacity, int32_t *ids, float *probs, int32_t *n) noexcept
    int32_t oc_logprobs(const oc_logits *logits, int32_t token, int32_t n_top, float *logprob, int32_t *top_ids,
                        float *top_logprobs) noexcept

    # ---- decoding ----
    enum: OC_LONGEST_DRAFT
    ctypedef struct oc_costs:
        double single, usual, extra, weight
    ctypedef struct oc_lookup:
        pass
    ctypedef struct oc_stream:
        oc_engine *engine
        oc_seq *seq
        const int32_t *cancel
        oc_sampler *sampler
        oc_lookup *lookup
        oc_costs *costs
        int32_t is_begun
        int64_t drafted, accepted, began, joined, ended
    void oc_costs_observe(oc_costs *costs, int32_t columns, double seconds) noexcept
    oc_status oc_lookup_create(oc_lookup **lookup) noexcept
    void oc_lookup_destroy(oc_lookup *lookup) noexcept
    oc_status oc_lookup_restart(oc_lookup *lookup, const int32_t *tokens, int64_t n) noexcept
    oc_status oc_lookup_accept(oc_lookup *lookup, int32_t token) noexcept
    int32_t oc_lookup_propose(const oc_lookup *lookup, int64_t most, oc_costs *costs, int32_t *draft) noexcept
    oc_status oc_stream_choose(oc_stream *stream, int32_t row, const uint32_t *allowed, int32_t *token) noexcept
    oc_status oc_stream_accept(oc_stream *stream, int32_t token) noexcept
    oc_status oc_stream_begin(oc_stream *stream, int32_t token, int64_t wanted, char *err) noexcept
    oc_status oc_stream_advance(oc_stream *stream, int32_t *tokens, int32_t *n, char *err) noexcept
    void oc_stream_give_up(oc_stream *stream) noexcept

    # ---- text ----
    oc_status oc_strings_index(const uint8_t *data, size_t size, size_t count, uint64_t max_bytes,
                               uint64_t *offsets) noexcept
    ctypedef enum oc_token_model:
        OC_TOKENS_BPE
        OC_TOKENS_SPM
        OC_TOKENS_WPM
        OC_TOKENS_UGM
    ctypedef enum oc_token_type:
        OC_TOKEN_UNDEFINED
        OC_TOKEN_NORMAL
        OC_TOKEN_UNKNOWN
        OC_TOKEN_CONTROL
        OC_TOKEN_USER_DEFINED
        OC_TOKEN_UNUSED
        OC_TOKEN_BYTE
    ctypedef struct oc_strings:
        const uint8_t *data
        size_t size
        const uint64_t *offsets
        size_t count
    ctypedef struct oc_vocab_spec:
        oc_token_model model
        const char *pre
        int ignore_merges
        int lowercase
        int add_space_prefix
        int trim_spaces
        int32_t unknown
        oc_strings tokens
        oc_strings merges
        const float *scores
        const uint8_t *charsmap
        size_t charsmap_size
        const int32_t *types
        oc_strings control
    oc_status oc_vocab_create(const oc_vocab_spec *spec, oc_vocab **out, char *err) noexcept
    void oc_vocab_free(oc_vocab *vocab) noexcept
    const uint8_t *oc_vocab_text(const oc_vocab *vocab, int32_t id, size_t *length) noexcept
    const uint8_t *oc_vocab_bytes(const oc_vocab *vocab, int32_t id, size_t *length) noexcept
    oc_token_type oc_vocab_type(const oc_vocab *vocab, int32_t id) noexcept
    cdef enum:
        OC_STRIP_LEFT
        OC_STRIP_RIGHT
    oc_status oc_vocab_strip(oc_vocab *vocab, int32_t id, int sides) noexcept
    ctypedef struct oc_tokens:
        int32_t *ids
        size_t count
        size_t capacity
    oc_status oc_vocab_encode(oc_vocab *vocab, const uint8_t *text, size_t length, int parse_special,
                              oc_tokens *out) noexcept
    void oc_tokens_free(oc_tokens *tokens) noexcept

    # ---- structured output ----
    cdef enum:
        OC_NODE_RETURN
        OC_NODE_BYTES
        OC_NODE_FORK
        OC_NODE_CALL
        OC_NODE_REPEAT
        OC_NODE_TEXT
        OC_NODE_SPACE
    const uint32_t OC_NO_LIMIT
    ctypedef struct oc_grammar_node:
        uint32_t kind, next, a, b, c
    ctypedef struct oc_grammar_spec:
        uint64_t id
        const oc_grammar_node *nodes
        const uint32_t *edges
        const uint64_t *sets
        uint32_t n_nodes, n_edges, n_sets, root
    ctypedef struct oc_grammar:
        pass
    ctypedef struct oc_spellings:
        pass
    ctypedef struct oc_matcher:
        pass
    oc_status oc_grammar_create(const oc_grammar_spec *spec, oc_grammar **out, char *err) noexcept
    void oc_grammar_destroy(oc_grammar *grammar) noexcept
    oc_status oc_spellings_create(const oc_vocab *vocab, int32_t n_vocab, const int32_t *ends, int32_t n_ends,
                                  oc_spellings **out) noexcept
    void oc_spellings_destroy(oc_spellings *spellings) noexcept
    oc_status oc_matcher_create(const oc_grammar *grammar, oc_matcher **out) noexcept
    void oc_matcher_destroy(oc_matcher *matcher) noexcept
    oc_status oc_matcher_accept(oc_matcher *matcher, const uint8_t *bytes, size_t n) noexcept
    int oc_matcher_may_end(const oc_matcher *matcher) noexcept
    int oc_matcher_must_end(const oc_matcher *matcher) noexcept
    oc_status oc_matcher_forced(oc_matcher *matcher, uint8_t *bytes, size_t capacity, size_t *n) noexcept
    oc_status oc_matcher_mask(oc_matcher *matcher, oc_spellings *spellings, uint32_t *mask) noexcept
