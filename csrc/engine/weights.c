/* weights.c - brings the matrices of a file into the layout that the kernels stream. Three ways:
 *   load          packs them in parallel into one arena on huge pages, and lets go of the source pages behind the
 *                 cursor: memory holds one copy, not two
 *   load_packed   takes over what an earlier load made of the same matrices, from a file
 *   load_source   leaves them in the file; exec.c packs a few groups at a time, just before it multiplies them
 * A matrix has a source before loading, and in the third way for ever; otherwise its packed form. */
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/share.h"
#include "engine/engine.h"

/* Source bytes packed between two looks at the cancel flag: the unit of stealing, and of mapping and dropping pages. */
#define CHUNK_BYTES (1 << 20)

/* All matrices are packed in one run: their chunks are numbered through. */
typedef struct packing {
    oc_engine *engine;
    long *first; /* (n_matrices + 1) number of each matrix's first chunk */
    oc_lane lane;
    int64_t *progress;
    const int32_t *cancel;
} packing;

static int is_cancelled(const int32_t *cancel) { return cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED); }

int64_t oc_progress(const int64_t *progress) { return __atomic_load_n(progress, __ATOMIC_RELAXED); }
void oc_cancel(int32_t *cancel) { __atomic_store_n(cancel, 1, __ATOMIC_RELAXED); }

static long groups_of(const oc_matrix *m) { return (long)((m->n_rows + OC_GROUP - 1) / OC_GROUP); }

static long chunk_groups(const oc_matrix *m) {
    size_t group = OC_GROUP * oc_format_row_bytes(m->format, m->k);
    return group < CHUNK_BYTES ? (long)(CHUNK_BYTES / group) : 1;
}

const void *oc_source_rows(const oc_matrix *m, int64_t row, int64_t *n) {
    const int64_t rows = m->n_rows / m->n_runs, run = row / rows;
    *n = m->run_rows - row % rows;
    return (const char *)(m->runs ? m->runs[run] : m->source) + (size_t)(row % rows) * oc_format_row_bytes(m->format, m->k);
}

static void pack_chunk(const packing *work, const oc_matrix *m, long chunk) {
    int64_t row = chunk * chunk_groups(m) * OC_GROUP, end = row + chunk_groups(m) * OC_GROUP, n;
    if (end > m->n_rows) end = m->n_rows;
    for (; row < end; row += oc_whole_groups(n)) {
        const void *from = oc_source_rows(m, row, &n);
        if (n > end - row) n = end - row;
        const size_t bytes = (size_t)n * oc_format_row_bytes(m->format, m->k);
        char *to = (char *)m->packed + oc_format_packed_bytes(m->format, row, m->k);
        oc_pages_want(from, bytes);
        oc_kernels.pack[m->format->gguf_type](from, n, m->k, to, 0, (n + OC_GROUP - 1) / OC_GROUP);
        oc_pages_drop(from, bytes);
        if (work->progress) __atomic_fetch_add(work->progress, (int64_t)bytes, __ATOMIC_RELAXED);
    }
}

static void pack_range(void *context, int thread, int n_threads) {
    packing *work = context;
    const oc_engine *engine = work->engine;
    oc_share chunks = {.n = work->first[engine->n_matrices], .chunk = 1, .n_threads = 1, .n_ranges = 1, .epoch = 1, .lanes = &work->lane};
    int32_t i = 0;
    while (oc_share_next(&chunks)) {
        if (is_cancelled(work->cancel)) return;
        while (chunks.begin >= work->first[i + 1]) i++; /* one range for all: chunks of one thread ascend */
        pack_chunk(work, &engine->matrices[i], chunks.begin - work->first[i]);
    }
}

static oc_status packed_total(const oc_engine *engine, size_t *total, char *err) {
    *total = 0;
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        const oc_matrix *m = &engine->matrices[i];
        size_t bytes = oc_arena_round(oc_format_packed_bytes(m->format, m->n_rows, m->k));
        if (bytes == 0 || __builtin_add_overflow(*total, bytes, total))
            return oc_fail(OC_ERR_FORMAT, err, "matrix %a is too large", i, 0);
    }
    return OC_OK;
}

/* Matrices lie one after another in the order of the plan, each from a multiple of 64 bytes on. */
static void place(oc_engine *engine, const unsigned char *base) {
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        oc_matrix *m = &engine->matrices[i];
        m->packed = base;
        base += oc_arena_round(oc_format_packed_bytes(m->format, m->n_rows, m->k));
    }
}

static oc_status pack_all(packing *work, char *err) {
    oc_engine *engine = work->engine;
    work->first = malloc(((size_t)engine->n_matrices + 1) * sizeof *work->first);
    if (!work->first) return oc_fail(OC_ERR_NOMEM, err, "out of memory", 0, 0);
    work->first[0] = 0;
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        const oc_matrix *m = &engine->matrices[i];
        work->first[i + 1] = work->first[i] + (groups_of(m) + chunk_groups(m) - 1) / chunk_groups(m);
    }
    int failed = oc_pool_run(engine->n_threads, pack_range, work);
    free(work->first);
    if (failed) return oc_fail(OC_ERR_THREAD, err, oc_status_text(OC_ERR_THREAD), 0, 0);
    if (is_cancelled(work->cancel)) return oc_fail(OC_ERR_CANCELLED, err, "the load was cancelled", 0, 0);
    return OC_OK;
}

static oc_status check_state(const oc_engine *engine, char *err) {
    if (engine->is_finished && !engine->is_loaded) return OC_OK;
    return oc_fail(OC_ERR_ARGUMENT, err, "load comes once, after finish", 0, 0);
}

static void forget_sources(oc_engine *engine) {
    for (int32_t i = 0; i < engine->n_matrices; i++) engine->matrices[i].source = NULL;
}

oc_status oc_engine_load(oc_engine *engine, int64_t *progress, const int32_t *cancel, char *err) {
    size_t total;
    oc_status status = check_state(engine, err);
    if (status == OC_OK) status = packed_total(engine, &total, err);
    if (status != OC_OK) return status;
    if (oc_arena_map(&engine->weights, total) != 0)
        return oc_fail(OC_ERR_NOMEM, err, "cannot reserve %a bytes for weights", (int64_t)total, 0);
    place(engine, oc_arena_take(&engine->weights, total));
    packing work = {.engine = engine, .progress = progress, .cancel = cancel};
    status = pack_all(&work, err);
    if (status != OC_OK) return status;
    forget_sources(engine);
    engine->is_loaded = 1;
    return OC_OK;
}

oc_status oc_engine_load_packed(oc_engine *engine, const void *packed, size_t n_bytes, char *err) {
    size_t total;
    oc_status status = check_state(engine, err);
    if (status == OC_OK) status = packed_total(engine, &total, err);
    if (status != OC_OK) return status;
    if (n_bytes != total || (uintptr_t)packed % OC_ARENA_ALIGN != 0)
        return oc_fail(OC_ERR_FORMAT, err, "packed weights have %a bytes instead of %b", (int64_t)n_bytes, (int64_t)total);
    place(engine, packed);
    forget_sources(engine);
    engine->weights.size = engine->weights.used = total; /* without a base: not ours to give back */
    engine->is_loaded = 1;
    return OC_OK;
}

oc_status oc_engine_load_source(oc_engine *engine, char *err) {
    oc_status status = check_state(engine, err);
    if (status != OC_OK) return status;
    size_t panel = OC_SOURCE_PANEL;
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        const oc_matrix *m = &engine->matrices[i];
        size_t group = oc_format_packed_bytes(m->format, OC_GROUP, m->k);
        if (group > panel) panel = group;
    }
    panel = oc_arena_round(panel);
    size_t total = panel * (size_t)engine->params.n_threads;
    if (oc_arena_map(&engine->weights, total) != 0)
        return oc_fail(OC_ERR_NOMEM, err, "cannot reserve %a bytes for weights", (int64_t)total, 0);
    for (int32_t t = 0; t < engine->params.n_threads; t++)
        engine->threads[t].panel = oc_arena_take(&engine->weights, panel);
    engine->is_loaded = 1;
    return OC_OK;
}

const void *oc_engine_packed_weights(const oc_engine *engine, size_t *n_bytes) {
    *n_bytes = engine->is_loaded && engine->matrices[0].packed ? engine->weights.used : 0;
    return *n_bytes ? engine->matrices[0].packed : NULL;
}
