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

/* ==== Text: tokenizers and string tables ============================================================================ */

typedef enum oc_token_model {
    OC_TOKENS_BPE, /* byte-level BPE: pieces in the GPT-2 alphabet, merges by rank ("gpt2" in GGUF) */
    OC_TOKENS_SPM  /* SentencePiece BPE: merges by the score of the result, byte fallback ("llama" in GGUF) */
} oc_token_model;

typedef enum oc_pretokenizer { OC_PRE_GPT2, OC_PRE_SMOLLM, OC_PRE_LLAMA3, OC_PRE_QWEN2 } oc_pretokenizer;

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
    oc_pretokenizer pre;  /* BPE only */
    int ignore_merges;    /* BPE: a pretoken that is a piece as a whole is not merged */
    int add_space_prefix; /* SPM: a space goes before text at the start and after a special token */
    int32_t unknown;      /* SPM: what stands for text that no token covers; -1: such text is dropped */
    oc_strings tokens;
    oc_strings merges;    /* BPE: "left right" */
    const float *scores;  /* SPM: (tokens.count); NULL with BPE */
    const int32_t *types; /* (tokens.count), or NULL: all normal, byte tokens known by their spelling */
} oc_vocab_spec;

typedef struct oc_vocab oc_vocab;

/* Checks and copies everything; OC_ERR_FORMAT names what is wrong in err. */
oc_status oc_vocab_create(const oc_vocab_spec *spec, oc_vocab **out, char *err);
void oc_vocab_free(oc_vocab *vocab);
/* The vocabulary's own spelling of a token, and the bytes that it adds to a text; id must be in range. */
const uint8_t *oc_vocab_text(const oc_vocab *vocab, int32_t id, size_t *length);
const uint8_t *oc_vocab_bytes(const oc_vocab *vocab, int32_t id, size_t *length);
oc_token_type oc_vocab_type(const oc_vocab *vocab, int32_t id);

typedef struct oc_tokens { /* start with {0}; grows as needed */
    int32_t *ids;
    size_t count, capacity;
} oc_tokens;

/* Append the ids of a text. User-defined tokens are found in it always, control tokens only with parse_special.
 * Any number of threads may encode with one vocabulary. A text of 2 GiB or more is OC_ERR_ARGUMENT. */
oc_status oc_vocab_encode(oc_vocab *vocab, const uint8_t *text, size_t length, int parse_special, oc_tokens *out);
void oc_tokens_free(oc_tokens *tokens);

#endif
