/* pool.c - persistent workers: spin, then sleep. */
#include "base/pool.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

/* A thread that waits spins as long as the others may be expected at any moment. sched_yield is no help: it gives a
 * whole time slice to whoever asks for one, and that may be a busy process of somebody else. */
#define SPIN_NS 200000         /* longer than the gap between two steps */
#define BRIEF_SPINS 64         /* while cores are contended: a core that waits is a core for the thread waited for */
#define LOST_NS 400000         /* off its core for so long in one run, a thread has lost a time slice to another process */
#define CONTENDED_NS 50000000  /* for so long after that, more of the kind is expected */

/* Every word that threads poll has a cache line of its own. */
#define OWN_LINE _Alignas(64)

static struct {
    pthread_mutex_t run_lock; /* held for a whole run */
    pthread_mutex_t sleep_lock;
    pthread_cond_t wake;
    int n_started; /* workers that exist, without the caller */
    int atfork_set;
    oc_pool_fn fn;
    void *context;
    int n_threads; /* of the run in work */
    OWN_LINE atomic_uint job;        /* run counter * 256 + threads of the run, in one word: a worker never mixes two runs */
    OWN_LINE atomic_int arrived;     /* threads in the current barrier */
    OWN_LINE atomic_uint generation; /* barriers passed */
    OWN_LINE atomic_int sleepers;
    OWN_LINE atomic_llong contended_until; /* on the monotonic clock */
} pool = {.run_lock = PTHREAD_MUTEX_INITIALIZER, .sleep_lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static long long clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static _Thread_local long long slept_ns; /* of this thread, on purpose, or in a lock, in the run in work */

static int spin(atomic_uint *word, unsigned old, int pauses) {
    for (int i = 0; i < pauses; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return 1;
        cpu_relax();
    }
    return 0;
}

/* Waits until *word differs from `old`. */
static void wait_change(atomic_uint *word, unsigned old) {
    if (spin(word, old, BRIEF_SPINS)) return;
    long long from = clock_ns(CLOCK_MONOTONIC), now = from;
    int contended = from < atomic_load_explicit(&pool.contended_until, memory_order_relaxed);
    for (; !contended && now - from < SPIN_NS; now = clock_ns(CLOCK_MONOTONIC))
        if (spin(word, old, BRIEF_SPINS)) return;
    pthread_mutex_lock(&pool.sleep_lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (atomic_load(word) == old) pthread_cond_wait(&pool.wake, &pool.sleep_lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.sleep_lock);
    slept_ns += clock_ns(CLOCK_MONOTONIC) - now;
}

/* Sets *word and wakes those that went to sleep on it. Both sides use sequentially consistent accesses: either the
 * sleeper sees the new value before it sleeps, or we see the sleeper. */
static void announce(atomic_uint *word, unsigned value) {
    atomic_store(word, value);
    if (atomic_load(&pool.sleepers) == 0) return;
    long long from = clock_ns(CLOCK_MONOTONIC);
    pthread_mutex_lock(&pool.sleep_lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep_lock);
    slept_ns += clock_ns(CLOCK_MONOTONIC) - from;
}

void oc_pool_barrier(void) {
    if (pool.n_threads == 1) return;
    unsigned generation = atomic_load(&pool.generation);
    if (atomic_fetch_add(&pool.arrived, 1) + 1 == pool.n_threads) {
        atomic_store(&pool.arrived, 0);
        announce(&pool.generation, generation + 1);
    } else {
        wait_change(&pool.generation, generation);
    }
}

/* How often this thread was put off its core for another one. A hypervisor that takes the whole core does not count:
 * to sleep would leave the core to nobody. */
static long preemptions(void) {
#ifdef RUSAGE_THREAD
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
#else
    return 0;
#endif
}

/* One thread's part of a run. Time that it neither computed nor slept was taken from it. */
static void take_part(int thread, int n_threads) {
    long long wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    long before = preemptions();
    slept_ns = 0;
    pool.fn(pool.context, thread, n_threads);
    long long now = clock_ns(CLOCK_MONOTONIC), lost = now - wall - (clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) - slept_ns;
    if (lost > LOST_NS && preemptions() > before) atomic_store_explicit(&pool.contended_until, now + CONTENDED_NS, memory_order_relaxed);
    oc_pool_barrier(); /* the run cannot end, nor the next one begin, before all arrive here */
}

typedef struct worker_start {
    int thread;
    unsigned seen; /* the job word when the worker was made: that run is not its business */
} worker_start;

static worker_start starts[OC_MAX_THREADS];

static void *worker(void *argument) {
    worker_start start = *(worker_start *)argument;
    unsigned seen = start.seen;
    for (;;) {
        wait_change(&pool.job, seen);
        seen = atomic_load(&pool.job);
        int n_threads = (int)(seen & 255);
        if (start.thread >= n_threads) continue; /* a run without us; the next one may come before we look again */
        take_part(start.thread, n_threads);
    }
    return NULL;
}

/* After fork only the caller's thread exists in the child. */
static void forget_workers(void) {
    pool.n_started = 0;
    atomic_store(&pool.arrived, 0);
    atomic_store(&pool.sleepers, 0);
    pthread_mutex_init(&pool.run_lock, NULL);
    pthread_mutex_init(&pool.sleep_lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
}

static int start_workers(int n_threads) {
    if (!pool.atfork_set) {
        pthread_atfork(NULL, NULL, forget_workers);
        pool.atfork_set = 1;
    }
    while (pool.n_started < n_threads - 1) {
        worker_start *start = &starts[pool.n_started];
        *start = (worker_start){.thread = pool.n_started + 1, .seen = atomic_load(&pool.job)};
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        int failed = pthread_create(&thread, &attributes, worker, start);
        pthread_attr_destroy(&attributes);
        if (failed) return -1;
        pool.n_started++;
    }
    return 0;
}

int oc_pool_begin(int n_threads, oc_pool_fn fn, void *context) {
    if (n_threads < 1) n_threads = 1;
    if (n_threads > OC_MAX_THREADS) n_threads = OC_MAX_THREADS;
    pthread_mutex_lock(&pool.run_lock);
    if (start_workers(n_threads) != 0) {
        pthread_mutex_unlock(&pool.run_lock);
        return -1;
    }
    pool.fn = fn;
    pool.context = context;
    pool.n_threads = n_threads;
    if (n_threads > 1) announce(&pool.job, ((atomic_load(&pool.job) >> 8) + 1) << 8 | (unsigned)n_threads);
    return 0;
}

void oc_pool_finish(void) {
    take_part(0, pool.n_threads);
    pthread_mutex_unlock(&pool.run_lock);
}

int oc_pool_run(int n_threads, oc_pool_fn fn, void *context) {
    if (oc_pool_begin(n_threads, fn, context) != 0) return -1;
    oc_pool_finish();
    return 0;
}

int oc_share_next(oc_share *share) {
    const unsigned long long epoch = (unsigned long long)share->epoch << 32;
    const long chunks = (share->n + share->chunk - 1) / share->chunk;
    for (; share->visited < share->n_threads; share->visited++) {
        const int lane = (share->thread + share->visited) % share->n_threads;
        atomic_ullong *taken = &share->lanes[lane].taken;
        unsigned long long seen = atomic_load_explicit(taken, memory_order_relaxed);
        if (seen >> 32 != share->epoch) /* who fails here was overtaken by somebody who did it */
            atomic_compare_exchange_strong_explicit(taken, &seen, epoch, memory_order_relaxed, memory_order_relaxed);
        const long first = chunks * lane / share->n_threads, end = chunks * (lane + 1) / share->n_threads;
        const long at = first + (long)(atomic_fetch_add_explicit(taken, 1, memory_order_relaxed) & 0xFFFFFFFFu);
        if (at >= end) continue;
        share->begin = at * share->chunk;
        share->end = share->begin + share->chunk < share->n ? share->begin + share->chunk : share->n;
        return 1;
    }
    return 0;
}
