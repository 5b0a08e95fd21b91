/* pool.h - the process's worker threads and their barrier.
 *
 * One pool serves every engine: two models on two cores take turns step by step instead of fighting for the cores.
 * A waiting worker spins for some microseconds, then yields, then sleeps, so a busy event loop or another process on
 * the same cores slows a step in proportion and an idle server uses no CPU.
 */
#ifndef OC_BASE_POOL_H
#define OC_BASE_POOL_H

#include <stdatomic.h>

#define OC_MAX_THREADS 64

typedef void (*oc_pool_fn)(void *context, int thread, int n_threads);

/* Runs fn on n_threads threads (the caller is thread 0) and returns when all are done. 0, or -1 if a worker could not
 * be started. One run at a time: a second caller waits. */
int oc_pool_run(int n_threads, oc_pool_fn fn, void *context);

/* Inside fn: returns when every thread of the run has called it. Writes before it are visible after it. */
void oc_pool_barrier(void);

/* Static share plus stolen tail of `n` work items: most items lie in one contiguous range per thread, the last fifth
 * is handed out in chunks, so a thread that loses its core delays a phase by one chunk and not by a time slice. */
typedef struct oc_share {
    long begin, end;   /* this thread's own range, then the chunk it took */
    long tail, n;      /* items from `tail` on are shared */
    long chunk;
    atomic_long *next; /* first item of the tail that is still free, relative to tail; 0 at the start of the phase */
} oc_share;

/* `chunk` is the granularity of every range. Use: oc_share_init(...); do { work(begin, end) } while (oc_share_next()). */
void oc_share_init(oc_share *share, long n, long chunk, int thread, int n_threads, atomic_long *next);
int oc_share_next(oc_share *share);

#endif
