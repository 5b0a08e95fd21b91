/* pool.c - persistent workers: spin, then sleep. */
#include "base/pool.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

#include "base/slice.h"
#include "base/spread.h"

/* A thread that waits spins as long as the others may be expected at any moment. sched_yield is no help: it gives a
 * whole time slice to whoever asks for one, and that may be a busy process of somebody else. */
#define SPIN_NS 200000         /* longer than others need to come to the same place */
#define IDLE_SPIN_NS 20000     /* longer than the gap between two steps of a lone stream: in others clients want cores */
#define BRIEF_SPINS 64         /* while cores are contended: a core that waits is a core for the thread waited for */
#define LOST_NS 400000         /* off its core for so long in one run, a thread has lost a time slice to another process, */
#define LOST_SHARE 8           /* if that is more than an eighth of the run: in long ones clients get their moments as well */
#define CONTENDED_NS 50000000  /* for so long after that, more of the kind is expected */

/* Every word that threads poll has a cache line of its own. */
#define OWN_LINE _Alignas(64)

/* What a thread is at, in the low bits of its state; above them what it holds. */
enum {
    IDLE,     /* waits for a run */
    POSTED,   /* has a run to begin */
    AT_WORK,
    BETWEEN,  /* in a loose run, but at nothing that others need */
    HOLDING,  /* at work on something that another thread may do as well */
    ROBBED,   /* somebody else has done it */
    AWAY,     /* the run has ended while it was BETWEEN or ROBBED */
    RECALLED, /* the same, and the next run is to begin when it comes back */
    TAG_BITS = 3,
};

typedef struct seat {
    OWN_LINE atomic_ullong state;
    _Atomic(void *) context; /* of the run that a worker is in, also after that has ended without it; or NULL */
} seat;

static struct {
    pthread_mutex_t run_lock; /* held for a whole run */
    pthread_mutex_t sleep_lock;
    pthread_cond_t wake;
    int n_started; /* workers that exist, without the caller */
    int atfork_set;
    oc_pool_fn fn;
    void *context;
    int n_threads, is_loose; /* of the run in work */
    seat seats[OC_MAX_THREADS];
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

long long oc_pool_now(void) { return clock_ns(CLOCK_MONOTONIC); }

static int is_contended(long long now) { return now < atomic_load_explicit(&pool.contended_until, memory_order_relaxed); }

static _Thread_local long long slept_ns; /* of this thread, on purpose, or in a lock, in the run in work */

int oc_pool_spin(oc_pool_test is_over, const void *context, long long ns) {
    long long from = 0;
    for (;;) {
        for (int i = 0; i < BRIEF_SPINS; i++) {
            if (is_over(context)) return 1;
            cpu_relax();
        }
        if (ns == 0) return 0;
        long long now = oc_pool_now();
        if (from == 0) from = now;
        if (now - from >= ns) return 0;
    }
}

static void spin_or_sleep(oc_pool_test is_over, const void *context, long long spin_ns) {
    if (oc_pool_spin(is_over, context, 0)) return;
    long long now = oc_pool_now();
    if (!is_contended(now) && oc_pool_spin(is_over, context, spin_ns)) return;
    now = oc_pool_now();
    pthread_mutex_lock(&pool.sleep_lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (!is_over(context)) pthread_cond_wait(&pool.wake, &pool.sleep_lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.sleep_lock);
    slept_ns += oc_pool_now() - now;
}

void oc_pool_wait(oc_pool_test is_over, const void *context) { spin_or_sleep(is_over, context, SPIN_NS); }

/* Both sides use sequentially consistent accesses: either the sleeper sees the new value before it sleeps, or we see
 * the sleeper. */
void oc_pool_wake(void) {
    if (atomic_load(&pool.sleepers) == 0) return;
    long long from = oc_pool_now();
    pthread_mutex_lock(&pool.sleep_lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep_lock);
    slept_ns += oc_pool_now() - from;
}

typedef struct change {
    atomic_ullong *word;
    unsigned long long old;
} change;

static int has_changed(const void *context) {
    const change *c = context;
    return atomic_load(c->word) != c->old;
}

static void wait_change(atomic_ullong *word, unsigned long long old) {
    oc_pool_wait(has_changed, &(change){word, old});
}

/* ---- what a thread holds ---- */

static int replace(int thread, unsigned long long old, unsigned long long new) {
    return atomic_compare_exchange_strong(&pool.seats[thread].state, &old, new);
}

void oc_pool_hold(int thread, uint64_t what) { atomic_store(&pool.seats[thread].state, what << TAG_BITS | HOLDING); }

int oc_pool_keep(int thread, uint64_t what) { return replace(thread, what << TAG_BITS | HOLDING, AT_WORK); }

int oc_pool_holds(int thread, uint64_t *what) {
    unsigned long long state = atomic_load(&pool.seats[thread].state);
    *what = state >> TAG_BITS;
    return (state & ((1 << TAG_BITS) - 1)) == HOLDING;
}

int oc_pool_rob(int thread, uint64_t what) { return replace(thread, what << TAG_BITS | HOLDING, ROBBED); }

int oc_pool_return(int thread) { return replace(thread, ROBBED, AT_WORK); }

int oc_pool_enter(int thread) { return replace(thread, BETWEEN, AT_WORK); }

void oc_pool_leave(int thread) { atomic_store(&pool.seats[thread].state, BETWEEN); }

int oc_pool_is_away(int thread) {
    const unsigned long long state = atomic_load(&pool.seats[thread].state);
    return state == AWAY || state == RECALLED;
}

/* ---- runs ---- */

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
static void take_part(int thread) {
    long long wall = oc_pool_now(), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    long before = preemptions();
    slept_ns = 0;
    if (pool.n_threads > 1) oc_spread(thread, is_contended(wall));
    pool.fn(pool.context, thread, pool.n_threads);
    long long now = oc_pool_now(), lost = now - wall - (clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) - slept_ns;
    if (lost > LOST_NS && lost * LOST_SHARE > now - wall && preemptions() > before)
        atomic_store_explicit(&pool.contended_until, now + CONTENDED_NS, memory_order_relaxed);
}

static void *worker(void *argument) {
    int thread = (int)(intptr_t)argument;
    atomic_ullong *state = &pool.seats[thread].state;
    oc_slice_lengthen();
    for (;;) {
        spin_or_sleep(has_changed, &(change){state, IDLE}, IDLE_SPIN_NS);
        if (!replace(thread, POSTED, AT_WORK)) continue; /* the run has ended without us */
        atomic_store(&pool.seats[thread].context, pool.context);
        take_part(thread);
        atomic_store(&pool.seats[thread].context, NULL);
        if (!replace(thread, RECALLED, POSTED)) atomic_store(state, IDLE);
        oc_pool_wake();
    }
    return NULL;
}

/* After fork only the caller's thread exists in the child. */
static void forget_workers(void) {
    pool.n_started = 0;
    for (int i = 0; i < OC_MAX_THREADS; i++) {
        atomic_store(&pool.seats[i].state, IDLE);
        atomic_store(&pool.seats[i].context, NULL);
    }
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
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        int failed = pthread_create(&thread, &attributes, worker, (void *)(intptr_t)(pool.n_started + 1));
        pthread_attr_destroy(&attributes);
        if (failed) return -1;
        pool.n_started++;
    }
    return 0;
}

/* Waits until a worker has left whatever it was at. */
static void await_idle(int thread) {
    atomic_ullong *word = &pool.seats[thread].state;
    for (unsigned long long state = atomic_load(word); state != IDLE; state = atomic_load(word)) wait_change(word, state);
}

/* Ends a run for a worker that need not be there: one that has not begun, or that has nothing left to do. */
static void close_for(int thread) {
    static const unsigned long long ended[] = {[POSTED] = IDLE, [BETWEEN] = AWAY, [ROBBED] = AWAY, [RECALLED] = AWAY};
    atomic_ullong *word = &pool.seats[thread].state;
    for (;;) {
        unsigned long long state = atomic_load(word);
        if (state == IDLE || state == AWAY) return;
        if (state == AT_WORK || (state & ((1 << TAG_BITS) - 1)) == HOLDING) wait_change(word, state);
        else if (replace(thread, state, ended[state])) break;
    }
    oc_pool_wake(); /* a thread that is away may sleep in what it will leave */
}

static int begin(int n_threads, oc_pool_fn fn, void *context, int is_loose) {
    if (n_threads < 1) n_threads = 1;
    if (n_threads > OC_MAX_THREADS) n_threads = OC_MAX_THREADS;
    pthread_mutex_lock(&pool.run_lock);
    if (start_workers(n_threads) != 0) {
        pthread_mutex_unlock(&pool.run_lock);
        return -1;
    }
    for (int t = 1; t < n_threads && !is_loose; t++) await_idle(t);
    pool.fn = fn;
    pool.context = context;
    pool.n_threads = n_threads;
    pool.is_loose = is_loose;
    atomic_store(&pool.seats[0].state, AT_WORK);
    for (int t = 1; t < n_threads; t++)
        if (!replace(t, IDLE, POSTED)) replace(t, AWAY, RECALLED);
    if (n_threads > 1) oc_pool_wake();
    return 0;
}

int oc_pool_begin(int n_threads, oc_pool_fn fn, void *context) { return begin(n_threads, fn, context, 1); }

void oc_pool_finish(void) {
    take_part(0);
    for (int t = 1; t < pool.n_threads; t++) pool.is_loose ? close_for(t) : await_idle(t);
    pthread_mutex_unlock(&pool.run_lock);
}

int oc_pool_run(int n_threads, oc_pool_fn fn, void *context) {
    if (begin(n_threads, fn, context, 0) != 0) return -1;
    oc_pool_finish();
    return 0;
}

typedef struct stay {
    const seat *seat;
    const void *context;
} stay;

static int has_left(const void *context) {
    const stay *s = context;
    return atomic_load(&s->seat->context) != s->context;
}

/* Without the run lock: its holder may be the caller, whose step for another context is under way. */
void oc_pool_settle(const void *context) {
    for (int t = 1; t < OC_MAX_THREADS; t++) oc_pool_wait(has_left, &(stay){&pool.seats[t], context});
}
