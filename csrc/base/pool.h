/* pool.h - the process's worker threads and their barrier.
 *
 * One pool serves every engine: two models on two cores take turns step by step instead of fighting for the cores.
 * A waiting worker spins for some microseconds, then sleeps: an idle server uses no CPU. Where other processes want the
 * same cores it sleeps almost at once, so that the thread it waits for can have its core.
 */
#ifndef OC_BASE_POOL_H
#define OC_BASE_POOL_H

#include <stdatomic.h>

#define OC_MAX_THREADS 64

typedef void (*oc_pool_fn)(void *context, int thread, int n_threads);

/* Runs fn on n_threads threads (the caller is thread 0) and returns when all are done. 0, or -1 if a worker could not
 * be started. One run at a time: a second caller waits. */
int oc_pool_run(int n_threads, oc_pool_fn fn, void *context);
/* The same in two halves: the workers begin, and the caller, who still is thread 0, joins them in the second one. */
int oc_pool_begin(int n_threads, oc_pool_fn fn, void *context);
void oc_pool_finish(void);

/* Inside fn: returns when every thread of the run has called it. Writes before it are visible after it. */
void oc_pool_barrier(void);

/* What has been taken of one thread's range: the epoch of the phase in the upper half, chunks in the lower. A line each,
 * for its owner takes chunk after chunk and others only come when they are done. */
typedef struct oc_lane {
    _Alignas(64) atomic_ullong taken;
} oc_lane;

/* `n` work items of a phase. Each thread takes chunks of a contiguous range of its own, one long stream of memory, and
 * then of the ranges of others: one that loses its core delays the phase by one chunk. An epoch that a lane has not seen
 * stands for a range that nobody has touched, so that nothing needs to be reset between phases. */
typedef struct oc_share {
    long n, chunk;
    int thread, n_threads;
    unsigned epoch; /* differs from that of the phase before with the same lanes; not 0 */
    oc_lane *lanes; /* (n_threads) */
    int visited;    /* ranges that are used up: one's own, the next thread's, ... */
    long begin, end; /* the chunk that oc_share_next took */
} oc_share;

/* Takes the next chunk; 0 when none is left. */
int oc_share_next(oc_share *share);

#endif
