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

/* ==== Sampler ======================================================================================================= */

typedef struct oc_sampler_params {
    float temperature;       /* <= 0: the best token, no draw */
    float top_p;             /* >= 1: off */
    float min_p;             /* <= 0: off */
    float typical_p;         /* >= 1: off */
    float repeat_penalty;    /* 1: off */
    float presence_penalty;  /* 0: off */
    float frequency_penalty; /* 0: off */
    int32_t top_k;           /* <= 0: off */
    int32_t repeat_last_n;   /* tokens that the penalties look back on, prompt included; 0: off, < 0: n_ctx */
    uint64_t seed;
} oc_sampler_params;

#define OC_MAX_TOP_LOGPROBS 20

/* The random state, penalty window and candidates of one sequence. Same parameters, accepted tokens and logits give
 * the same tokens, whatever other sequences do. Not for two threads at once. */
typedef struct oc_sampler oc_sampler;

/* n_vocab: logits per call; n_ctx: upper limit of the penalty window. Nothing is allocated later. */
oc_status oc_sampler_create(const oc_sampler_params *params, int32_t n_vocab, int32_t n_ctx, oc_sampler **sampler);
void oc_sampler_destroy(oc_sampler *sampler); /* NULL is fine */

/* Put a token, of the prompt or just sampled, into the penalty window. */
void oc_sampler_accept(oc_sampler *sampler, int32_t token);

/* The next token. `logits` (n_vocab) are changed meanwhile and restored. NaN never wins; if nothing is above -infinity,
 * the answer is what argmax gives. Does not accept the token. */
int32_t oc_sampler_sample(oc_sampler *sampler, float *logits);

/* What oc_sampler_sample would draw from, without drawing: up to `capacity` ids and probabilities; returns how many
 * candidates there are. Greedy sampling has one. */
int32_t oc_sampler_candidates(oc_sampler *sampler, float *logits, int32_t capacity, int32_t *ids, float *probs);

/* Log-probability of `token` over the whole vocabulary, before penalties and samplers, and the n_top (at most
 * OC_MAX_TOP_LOGPROBS) best tokens, best first, equal ones by id. Returns how many of those there are: tokens at
 * -infinity are left out. Values below -9999, and NaN, become -9999. */
int32_t oc_logprobs(const float *logits, int32_t n_vocab, int32_t token, int32_t n_top, float *logprob,
                    int32_t *top_ids, float *top_logprobs);

/* ==== Text: tokenizers and string tables ============================================================================ */

#endif
