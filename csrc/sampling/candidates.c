/* candidates.c - finds, orders and weighs candidates. No step sorts the vocabulary: the best k come from one scan
 * against the worst of the best k so far, which looks at the maxima of runs first and opens a run only if its maximum
 * beats that; an exponential over the vocabulary is computed only if nothing narrows it down. */
#include <math.h>
#include <string.h>

#include "kernels/vecmath.h"
#include "sampling/sampling.h"

static int better(oc_candidate a, oc_candidate b) { return a.key > b.key || (a.key == b.key && a.id < b.id); }

/* Sink the element at `at` of a heap of n whose root is the worst (sign < 0) or the best (sign > 0). */
static void sink(oc_candidate *heap, int32_t n, int32_t at, int sign) {
    oc_candidate moving = heap[at];
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && better(heap[child + 1], heap[child]) == (sign > 0)) child++;
        if (better(moving, heap[child]) == (sign > 0)) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void heapify(oc_candidate *heap, int32_t n, int sign) {
    for (int32_t at = n / 2 - 1; at >= 0; at--) sink(heap, n, at, sign);
}

/* ---- scans ---- */

enum { LANES = 8, STEP = 32 };
typedef float float4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));

/* Whether one of STEP values is above `floor`; vectors by the compiler's extension, as no loop shape makes it use
 * them. */
static int any_above(const float *x, float floor) {
    float4 limit = {floor, floor, floor, floor};
    int4 above = {0};
    for (int32_t i = 0; i < STEP; i += 4) {
        float4 values;
        memcpy(&values, x + i, sizeof values);
        above |= values > limit;
    }
    uint64_t halves[2];
    memcpy(halves, &above, sizeof halves);
    return (halves[0] | halves[1]) != 0;
}

static int32_t run_count(const oc_logits *logits) { return (logits->n + OC_RUN - 1) / OC_RUN; }

/* The first run from `run` on whose maximum is above `floor`, or the number of runs. */
static int32_t next_run(const oc_logits *logits, int32_t run, float floor) {
    int32_t runs = run_count(logits);
    while (run < runs) {
        if (run % STEP == 0 && run + STEP <= runs && !any_above(logits->maxima + run, floor))
            run += STEP;
        else if (logits->maxima[run] > floor)
            return run;
        else
            run++;
    }
    return runs;
}

static int32_t end_of(const oc_logits *logits, int32_t run) {
    return (run + 1) * OC_RUN < logits->n ? (run + 1) * OC_RUN : logits->n;
}

int32_t oc_best_logit(const oc_logits *logits) {
    float highest = -INFINITY;
    int32_t runs = run_count(logits), first = 0;
    for (int32_t run = next_run(logits, 0, highest); run < runs; run = next_run(logits, run + 1, highest)) {
        highest = logits->maxima[run];
        first = run * OC_RUN;
    }
    for (int32_t i = first; i < logits->n; i++)
        if (logits->values[i] == highest) return i;
    return 0; /* nothing but NaN */
}

/* The k best values seen so far; `floor` is the worst of them once there are k. */
typedef struct leaders {
    oc_candidate *heap;
    int32_t k, count;
    float floor;
} leaders;

/* Values [begin, end) of x, ids rising, so that of equal values the lower ids stay. */
static void offer(leaders *l, const float *x, int32_t begin, int32_t end) {
    for (int32_t i = begin; i < end; i++) {
        if (!(x[i] > l->floor)) continue;
        oc_candidate new = {x[i], x[i], 0, i};
        if (l->count < l->k) {
            l->heap[l->count++] = new;
            if (l->count < l->k) continue;
            heapify(l->heap, l->k, -1);
        } else {
            l->heap[0] = new;
            sink(l->heap, l->k, 0, -1);
        }
        l->floor = l->heap[0].key;
    }
}

/* The k-th best maximum: k runs hold something as good, so nothing below is among the k best. */
static float raise_floor(const oc_logits *logits, float floor, int32_t k, oc_candidate *heap) {
    leaders l = {heap, k, 0, floor};
    int32_t runs = run_count(logits);
    for (int32_t run = 0; run < runs; run += STEP) {
        int32_t end = run + STEP < runs ? run + STEP : runs;
        if (end - run < STEP || any_above(logits->maxima + run, l.floor)) offer(&l, logits->maxima, run, end);
    }
    return l.count < k ? floor : nextafterf(l.floor, -INFINITY);
}

int32_t oc_find_top(const oc_logits *logits, float floor, int32_t k, oc_candidate *found) {
    int32_t runs = run_count(logits);
    leaders l = {found, k, 0, k < runs ? raise_floor(logits, floor, k, found) : floor};
    for (int32_t run = next_run(logits, 0, l.floor); run < runs; run = next_run(logits, run + 1, l.floor))
        offer(&l, logits->values, run * OC_RUN, end_of(logits, run));
    return l.count;
}

int32_t oc_find_all(const oc_logits *logits, float floor, oc_candidate *found) {
    int32_t count = 0, runs = run_count(logits);
    for (int32_t run = next_run(logits, 0, floor); run < runs; run = next_run(logits, run + 1, floor)) {
        for (int32_t i = run * OC_RUN, end = end_of(logits, run); i < end; i++) {
            float logit = logits->values[i];
            if (logit > floor) found[count++] = (oc_candidate){logit, logit, 0, i};
        }
    }
    return count;
}

/* ---- order ---- */

int32_t oc_take_best(oc_candidate *c, int32_t n, double enough, int beyond) {
    double sum = 0;
    int32_t kept = 0;
    heapify(c, n, 1);
    while (kept < n && (kept == 0 || (beyond ? sum <= enough : sum < enough))) {
        oc_candidate best = c[0];
        sum += best.weight;
        kept++;
        c[0] = c[n - kept];
        sink(c, n - kept, 0, 1);
        c[n - kept] = best; /* taken ones collect at the end, backwards */
    }
    memmove(c, c + n - kept, (size_t)kept * sizeof *c);
    for (int32_t i = 0, j = kept - 1; i < j; i++, j--) {
        oc_candidate swap = c[i];
        c[i] = c[j];
        c[j] = swap;
    }
    return kept;
}

void oc_sort_candidates(oc_candidate *c, int32_t n) { oc_take_best(c, n, INFINITY, 0); }

/* ---- weights ---- */

float oc_highest_logit(const oc_candidate *c, int32_t n) {
    float highest = -INFINITY;
    for (int32_t i = 0; i < n; i++) highest = c[i].logit > highest ? c[i].logit : highest;
    return highest;
}

/* Replace n values, at most BLOCK, by e^value; NaN by 0. A function of its own, so that the loop is vectorised. */
enum { BLOCK = 64 };
static void exponentials(float *x, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        float y = oc_expf(x[i]);
        x[i] = y > 0 ? y : 0.0f;
    }
}

double oc_weigh(oc_candidate *c, int32_t n, float temperature) {
    float highest = oc_highest_logit(c, n), weight[BLOCK];
    double total = 0;
    for (int32_t start = 0; start < n; start += BLOCK) {
        int32_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int32_t i = 0; i < count; i++) {
            float drop = oc_below(c[start + i].logit, highest);
            weight[i] = drop == 0 ? 0.0f : drop / temperature; /* infinity / infinity is NaN */
        }
        exponentials(weight, count);
        for (int32_t i = 0; i < count; i++) total += c[start + i].weight = weight[i];
    }
    return total;
}

/* Terms in float, eight sums in double. */
double oc_total_weight(const oc_logits *logits, float highest) {
    double sums[LANES] = {0}, total = 0;
    for (int32_t start = 0; start < logits->n; start += BLOCK) {
        float term[BLOCK] = {0};
        int32_t count = logits->n - start < BLOCK ? logits->n - start : BLOCK;
        for (int32_t i = 0; i < count; i++) term[i] = oc_below(logits->values[start + i], highest);
        exponentials(term, count);
        for (int32_t i = 0; i < BLOCK; i += LANES) /* beyond count the terms are 0 */
            for (int32_t lane = 0; lane < LANES; lane++) sums[lane] += term[i + lane];
    }
    for (int32_t i = 0; i < LANES; i++) total += sums[i];
    return total;
}
