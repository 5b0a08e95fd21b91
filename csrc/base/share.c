/* share.c - chunks of a phase: taken in turn, done, and done over for a thread that has lost its core. */
#include "base/share.h"

#include "base/pool.h"

/* So long the last chunks may take after a thread has run out of its own, or, if they are long ones, as long as
 * PATIENCE_CHUNKS of these took: more than one needs, and less than a thread is off its core for. This one may have been
 * off its own meanwhile. */
#define PATIENCE_NS 30000
#define PATIENCE_CHUNKS 3
#define MOST_PATIENCE_NS 1000000

static long chunks_of(const oc_share *share) { return (share->n + share->chunk - 1) / share->chunk; }

static void show_chunk(oc_share *share, long at) {
    share->begin = at * share->chunk;
    share->end = share->begin + share->chunk < share->n ? share->begin + share->chunk : share->n;
    share->has_chunk = 1;
}

static int take_chunk(oc_share *share) {
    const unsigned long long epoch = (unsigned long long)share->epoch << 32;
    const long chunks = chunks_of(share);
    for (; share->visited < share->n_ranges; share->visited++) {
        const int lane = (share->thread + share->visited) % share->n_ranges;
        atomic_ullong *taken = &share->lanes[lane].taken;
        unsigned long long seen = atomic_load_explicit(taken, memory_order_relaxed);
        if (seen >> 32 != share->epoch) /* who fails here was overtaken by somebody who did it */
            atomic_compare_exchange_strong_explicit(taken, &seen, epoch, memory_order_relaxed, memory_order_relaxed);
        const long first = chunks * lane / share->n_ranges, end = chunks * (lane + 1) / share->n_ranges;
        const long at = first + (long)(atomic_fetch_add_explicit(taken, 1, memory_order_relaxed) & 0xFFFFFFFFu);
        if (at >= end) continue;
        show_chunk(share, at);
        share->holder = share->thread;
        share->held = (uint64_t)share->number << 32 | (uint64_t)at;
        if (share->may_redo) oc_pool_hold(share->thread, share->held);
        return 1;
    }
    return 0;
}

static int is_complete(const void *context) {
    const oc_share *share = context;
    long done = 0;
    for (int t = 0; t < share->n_threads; t++) {
        unsigned long long seen = atomic_load(&share->lanes[t].done);
        if (seen >> 32 == share->epoch) done += (long)(seen & 0xFFFFFFFFu);
    }
    return done == chunks_of(share);
}

/* A thread that holds a chunk of this phase, or -1. */
static int find_holder(const oc_share *share, uint64_t *held) {
    for (int t = 0; share->may_redo && t < share->n_threads; t++)
        if (t != share->thread && oc_pool_holds(t, held) && *held >> 32 == share->number) return t;
    return -1;
}

static int is_over(const void *context) {
    const oc_share *share = context;
    return is_complete(share) || oc_pool_is_away(share->thread);
}

static int can_go_on(const void *share) {
    uint64_t held;
    return is_over(share) || find_holder(share, &held) >= 0;
}

static long long patience(const oc_share *share) {
    if (!share->begun || !share->n_done) return PATIENCE_NS;
    const long long ns = (oc_pool_now() - share->begun) / share->n_done * PATIENCE_CHUNKS;
    return ns < PATIENCE_NS ? PATIENCE_NS : ns < MOST_PATIENCE_NS ? ns : MOST_PATIENCE_NS;
}

/* Every chunk is taken, but not all are done: waits, or takes one over. */
static int await_others(oc_share *share) {
    while (!oc_pool_spin(is_over, share, patience(share))) {
        share->holder = find_holder(share, &share->held);
        if (share->holder >= 0) {
            show_chunk(share, (long)(share->held & 0xFFFFFFFFu));
            return 1;
        }
        oc_pool_wait(can_go_on, share);
    }
    return 0;
}

static void finish_chunk(oc_share *share) {
    share->has_chunk = 0;
    if (!share->is_loose) return;
    atomic_store(&share->lanes[share->thread].done, (unsigned long long)share->epoch << 32 | ++share->n_done);
    oc_pool_wake();
}

/* Comes to what the threads share; 0 if the run has ended. */
static int enter(oc_share *share) {
    if (!share->is_inside) share->is_inside = oc_pool_enter(share->thread);
    return share->is_inside;
}

static void leave(oc_share *share) {
    share->is_inside = 0;
    oc_pool_leave(share->thread);
}

int oc_share_next(oc_share *share) {
    if (share->has_chunk) finish_chunk(share);
    if (!share->is_loose) return take_chunk(share);
    if (!enter(share)) return 0;
    if (take_chunk(share)) return 1;
    leave(share);
    return await_others(share);
}

int oc_share_keep(oc_share *share) {
    if (!share->may_redo) return 1;
    if (share->holder == share->thread) {
        share->has_chunk = oc_pool_keep(share->thread, share->held);
        if (!share->has_chunk) share->is_inside = oc_pool_return(share->thread);
    } else {
        share->has_chunk = enter(share) && oc_pool_rob(share->holder, share->held);
    }
    return share->has_chunk;
}
