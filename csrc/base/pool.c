/* pool.c - persistent workers: spin, yield, sleep. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#define SPINS 3000 /* about 30-60 us of pause: longer than the gap between two steps */
#define YIELDS 50

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
} pool = {.run_lock = PTHREAD_MUTEX_INITIALIZER, .sleep_lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *word differs from `old`. */
static void wait_change(atomic_uint *word, unsigned old) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        cpu_relax();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        sched_yield();
    }
    pthread_mutex_lock(&pool.sleep_lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (atomic_load(word) == old) pthread_cond_wait(&pool.wake, &pool.sleep_lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.sleep_lock);
}

/* Sets *word and wakes those that went to sleep on it. Both sides use sequentially consistent accesses: either the
 * sleeper sees the new value before it sleeps, or we see the sleeper. */
static void announce(atomic_uint *word, unsigned value) {
    atomic_store(word, value);
    if (atomic_load(&pool.sleepers) == 0) return;
    pthread_mutex_lock(&pool.sleep_lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep_lock);
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
        pool.fn(pool.context, start.thread, n_threads);
        oc_pool_barrier(); /* the run cannot end, nor the next one begin, before we arrive here */
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

int oc_pool_run(int n_threads, oc_pool_fn fn, void *context) {
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
    fn(context, 0, n_threads);
    oc_pool_barrier();
    pthread_mutex_unlock(&pool.run_lock);
    return 0;
}

void oc_share_init(oc_share *share, long n, long chunk, int thread, int n_threads, atomic_long *next) {
    long chunks = (n + chunk - 1) / chunk;
    long per_thread = n_threads > 1 ? chunks * 4 / 5 / n_threads : chunks;
    long own = per_thread * chunk;
    *share = (oc_share){.begin = own * thread, .end = own * (thread + 1), .tail = own * n_threads, .n = n, .chunk = chunk, .next = next};
    if (share->end > n) share->end = n;
    if (share->begin >= share->end) oc_share_next(share); /* nothing of our own: go to the tail at once */
}

int oc_share_next(oc_share *share) {
    long at = share->tail < share->n ? share->tail + atomic_fetch_add_explicit(share->next, share->chunk, memory_order_relaxed) : share->n;
    share->begin = at < share->n ? at : share->n;
    share->end = at + share->chunk < share->n ? at + share->chunk : share->n;
    if (share->begin >= share->end) share->end = share->begin;
    return share->begin < share->end;
}
