"""C declarations of oc.h, nothing else."""
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "oc.h" nogil:
    enum: OC_ERR_LEN
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

    # ---- sampler ----

    # ---- text ----
    ctypedef enum oc_token_model:
        OC_TOKENS_BPE
        OC_TOKENS_SPM
    ctypedef enum oc_pretokenizer:
        OC_PRE_GPT2
        OC_PRE_SMOLLM
        OC_PRE_LLAMA3
        OC_PRE_QWEN2
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
        oc_pretokenizer pre
        int ignore_merges
        int add_space_prefix
        int32_t unknown
        oc_strings tokens
        oc_strings merges
        const float *scores
        const int32_t *types
    ctypedef struct oc_vocab:
        pass
    oc_status oc_vocab_create(const oc_vocab_spec *spec, oc_vocab **out, char *err) noexcept
    void oc_vocab_free(oc_vocab *vocab) noexcept
    const uint8_t *oc_vocab_text(const oc_vocab *vocab, int32_t id, size_t *length) noexcept
    const uint8_t *oc_vocab_bytes(const oc_vocab *vocab, int32_t id, size_t *length) noexcept
    oc_token_type oc_vocab_type(const oc_vocab *vocab, int32_t id) noexcept
    ctypedef struct oc_tokens:
        int32_t *ids
        size_t count
        size_t capacity
    oc_status oc_vocab_encode(oc_vocab *vocab, const uint8_t *text, size_t length, int parse_special,
                              oc_tokens *out) noexcept
    void oc_tokens_free(oc_tokens *tokens) noexcept
