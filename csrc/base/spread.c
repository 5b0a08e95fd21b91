/* spread.c - the cores that threads of a run were last seen on, and the affinity of workers. */
#include "base/spread.h"

#ifdef __linux__
#include <sched.h>
#include <stdatomic.h>

#include "base/pool.h"

static atomic_int seen[OC_MAX_THREADS]; /* core + 1, where the thread began its last part */
static _Thread_local cpu_set_t allowed; /* of this thread, before it was narrowed */
static _Thread_local int is_narrowed;

/* The cores of the threads before this one, who need not give way to it; returns whether `core` is one of them. */
static int find_taken(int thread, int core, cpu_set_t *taken) {
    CPU_ZERO(taken);
    for (int t = 0; t < thread; t++) {
        const int other = atomic_load_explicit(&seen[t], memory_order_relaxed) - 1;
        if (other >= 0) CPU_SET(other, taken);
    }
    return CPU_ISSET(core, taken);
}

static void widen(void) {
    if (is_narrowed) sched_setaffinity(0, sizeof allowed, &allowed);
    is_narrowed = 0;
}

/* Leaves out the cores that are taken, as long as one is left. */
static void narrow(const cpu_set_t *taken) {
    cpu_set_t common, rest;
    if (!is_narrowed && sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    CPU_AND(&common, &allowed, taken);
    CPU_XOR(&rest, &allowed, &common);
    if (CPU_COUNT(&rest) > 0 && sched_setaffinity(0, sizeof rest, &rest) == 0) is_narrowed = 1;
}

void oc_spread(int thread, int is_contended) {
    cpu_set_t taken;
    const int core = sched_getcpu();
    if (core < 0 || core >= CPU_SETSIZE) return;
    if (thread > 0 && !is_contended) widen();
    if (thread > 0 && is_contended && find_taken(thread, core, &taken)) narrow(&taken);
    atomic_store_explicit(&seen[thread], sched_getcpu() + 1, memory_order_relaxed);
}
#else
void oc_spread(int thread, int is_contended) {}
#endif
