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

/* Finds `count` records (length as uint64, bytes) at the start of `data`: offsets[i] is where record i begins and
 * offsets[count] where the last one ends, so that string i is data[offsets[i] + 8 .. offsets[i + 1]).
 * OC_ERR_FORMAT when a string is longer than max_bytes or than the data. */
oc_status oc_strings_index(const uint8_t *data, size_t size, size_t count, uint64_t max_bytes,
                           uint64_t *offsets /* (count + 1) */);

#endif
