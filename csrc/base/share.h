/* share.h - the work of one phase, shared by the threads of a run. */
#ifndef OC_BASE_SHARE_H
#define OC_BASE_SHARE_H

#include <stdatomic.h>
#include <stdint.h>

/* A thread's line: chunks taken of its range, by anyone, and chunks that it has finished, of any range. The epoch of the
 * phase stands in the upper halves: another one means none, so that nothing needs to be reset between phases. */
typedef struct oc_lane {
    _Alignas(64) atomic_ullong taken;
    atomic_ullong done;
} oc_lane;

/* `n` work items of a phase. Each thread takes chunks of a contiguous range of its own, one long stream of memory, and
 * then of the ranges of others: one that loses its core delays the phase by one chunk.
 *
 * In a loose run (see pool.h) a phase ends for a thread when all chunks are done. If the last ones do not come, because
 * who took them has lost its core, and the phase may be done over, they are. */
typedef struct oc_share {
    long n, chunk;
    int thread, n_threads;
    int n_ranges;    /* n_threads, or 1: one range for all */
    unsigned epoch;  /* differs from that of the phase before with the same lanes; not 0 */
    oc_lane *lanes;  /* (n_threads) */
    int is_loose;
    int may_redo;    /* a chunk is computed aside and written down after oc_share_keep */
    uint32_t number; /* of the phase in the run */
    long long begun; /* when this thread came to it, by oc_pool_now, if chunks may be long; or 0 */

    long begin, end; /* the chunk that oc_share_next took */
    int visited;     /* ranges that are used up: one's own, the next thread's, ... */
    int has_chunk, holder; /* whose chunk it is */
    uint64_t held;
    uint32_t n_done;
    int is_inside; /* of a loose run: see oc_pool_enter */
} oc_share;

/* Takes the next chunk; the one before is done. 0 when none is left, in a loose run when all are done, or when it has
 * ended without this thread. */
int oc_share_next(oc_share *share);

/* May the chunk in hand be written down? 0: somebody else has done it; go on with oc_share_next. Without may_redo, 1. */
int oc_share_keep(oc_share *share);

#endif
