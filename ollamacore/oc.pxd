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
    enum: OC_MAX_TOP_LOGPROBS
    ctypedef struct oc_sampler_params:
        float temperature
        float top_p
        float min_p
        float typical_p
        float repeat_penalty
        float presence_penalty
        float frequency_penalty
        int32_t top_k
        int32_t repeat_last_n
        uint64_t seed
    ctypedef struct oc_sampler:
        pass
    oc_status oc_sampler_create(const oc_sampler_params *params, int32_t n_vocab, int32_t n_ctx,
                                oc_sampler **sampler) noexcept
    void oc_sampler_destroy(oc_sampler *sampler) noexcept
    void oc_sampler_accept(oc_sampler *sampler, int32_t token) noexcept
    int32_t oc_sampler_sample(oc_sampler *sampler, float *logits) noexcept
    int32_t oc_sampler_candidates(oc_sampler *sampler, float *logits, int32_t capacity, int32_t *ids,
                                  float *probs) noexcept
    int32_t oc_logprobs(const float *logits, int32_t n_vocab, int32_t token, int32_t n_top, float *logprob,
                        int32_t *top_ids, float *top_logprobs) noexcept

    # ---- text ----
