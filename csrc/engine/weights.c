/* weights.c - packs the matrices of a file into the layout that the kernels stream, in parallel, into one arena on huge
 * pages, and lets go of the source pages behind the cursor: memory holds one copy, not two. */
#include <string.h>

#include "base/pool.h"
#include "engine/engine.h"

#define PACK_GROUPS 16 /* packed between two looks at the cancel flag, and the unit of stealing */

typedef struct packing {
    const oc_matrix *matrix;
    atomic_long next;
    const int32_t *cancel;
} packing;

static void pack_range(void *context, int thread, int n_threads) {
    packing *work = context;
    const oc_matrix *m = work->matrix;
    oc_share groups = {.n = (long)((m->n_rows + OC_GROUP - 1) / OC_GROUP), .chunk = PACK_GROUPS, .next = &work->next};
    while (oc_share_next(&groups)) {
        if (work->cancel && __atomic_load_n(work->cancel, __ATOMIC_RELAXED)) return;
        m->format->pack(m->source, m->n_rows, m->k, m->packed, groups.begin, groups.end);
    }
}

static oc_status place(oc_engine *engine, char *err) {
    size_t total = 0;
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        const oc_matrix *m = &engine->matrices[i];
        size_t bytes = oc_arena_round(oc_format_packed_bytes(m->format, m->n_rows, m->k));
        if (bytes == 0 || __builtin_add_overflow(total, bytes, &total)) return oc_fail(OC_ERR_FORMAT, err, "matrix %a is too large", i, 0);
    }
    if (oc_arena_map(&engine->weights, total) != 0) return oc_fail(OC_ERR_NOMEM, err, "cannot reserve %a bytes for weights", (int64_t)total, 0);
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        oc_matrix *m = &engine->matrices[i];
        m->packed = oc_arena_take(&engine->weights, oc_format_packed_bytes(m->format, m->n_rows, m->k));
    }
    return OC_OK;
}

oc_status oc_engine_load(oc_engine *engine, int64_t *progress, const int32_t *cancel, char *err) {
    if (!engine->is_finished || engine->is_loaded) return oc_fail(OC_ERR_ARGUMENT, err, "load comes once, after finish", 0, 0);
    oc_status status = place(engine, err);
    if (status != OC_OK) return status;
    for (int32_t i = 0; i < engine->n_matrices; i++) {
        oc_matrix *m = &engine->matrices[i];
        packing work = {.matrix = m, .cancel = cancel};
        if (oc_pool_run(engine->n_threads, pack_range, &work) != 0) return oc_fail(OC_ERR_THREAD, err, oc_status_text(OC_ERR_THREAD), 0, 0);
        if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED)) return oc_fail(OC_ERR_CANCELLED, err, "the load was cancelled", 0, 0);
        oc_pages_drop(m->source, m->source_bytes);
        m->source = NULL;
        if (progress) __atomic_fetch_add(progress, (int64_t)m->source_bytes, __ATOMIC_RELAXED);
    }
    engine->is_loaded = 1;
    return OC_OK;
}
