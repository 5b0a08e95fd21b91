/* pool.h - the process's worker threads: runs, and runs that go on without a thread.
 *
 * One pool serves every engine: two models on two cores take turns step by step instead of fighting for the cores.
 * A waiting worker spins for some microseconds, then sleeps: an idle server uses no CPU. Where other processes want the
 * same cores it sleeps almost at once, so that the thread it waits for can have its core.
 */
#ifndef OC_BASE_POOL_H
#define OC_BASE_POOL_H

#include <stdatomic.h>
#include <stdint.h>

#define OC_MAX_THREADS 64

typedef void (*oc_pool_fn)(void *context, int thread, int n_threads);

/* Runs fn on n_threads threads (the caller is thread 0) and returns when all are done. 0, or -1 if a worker could not
 * be started. One run at a time: a second caller waits. */
int oc_pool_run(int n_threads, oc_pool_fn fn, void *context);

/* The same in two halves: the workers begin, and the caller, who still is thread 0, joins them in the second one.
 *
 * Such a run is loose: it goes on without those who are not there. It ends when fn has returned on the caller's thread
 * and no other one is at work - not one that has not begun because its core is taken, nor one that has left, or was
 * robbed of what it holds. Such a thread may still read what it was reading: oc_pool_settle before that goes. */
int oc_pool_begin(int n_threads, oc_pool_fn fn, void *context);
void oc_pool_finish(void);

/* Returns when every thread has left the runs with this context, all of which must have ended. */
void oc_pool_settle(const void *context);

/* A thread in a loose run says what it is at, so that another one can do the same if this one has lost its core. `what`
 * is any number below 2^61 that comes once in a run. Whoever has done it first wins: the thread itself by oc_pool_keep,
 * another one by oc_pool_rob. Both answer 1 to one of them. */
void oc_pool_hold(int thread, uint64_t what);
int oc_pool_keep(int thread, uint64_t what);
int oc_pool_holds(int thread, uint64_t *what);
int oc_pool_rob(int thread, uint64_t what);

/* For a thread that was robbed: 1 if the run still goes on and it takes part again; 0: it must leave fn at once. */
int oc_pool_return(int thread);

/* A thread in a loose run says that it is at nothing that others need: the run may end without it. Before it touches
 * again what they share it enters; 0: the run has ended, and it must leave fn at once. A run begins inside. */
void oc_pool_leave(int thread);
int oc_pool_enter(int thread);

/* Has the run ended without this thread? */
int oc_pool_is_away(int thread);

/* Waits until something holds that another thread brings about: spins, then sleeps. Who brings it about does so by a
 * sequentially consistent store and then calls oc_pool_wake. In a loose run, oc_pool_is_away has to end a wait too. */
typedef int (*oc_pool_test)(const void *context);
void oc_pool_wait(oc_pool_test is_over, const void *context);
void oc_pool_wake(void);

/* Waits for so many nanoseconds of oc_pool_now at most; 1 if it holds. */
int oc_pool_spin(oc_pool_test is_over, const void *context, long long ns);
long long oc_pool_now(void);

#endif
