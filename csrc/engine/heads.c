/* heads.c - matrices of which each input meets a part only: one per head here, one per expert in moe.c. */
#include <string.h>

#include "engine/walk.h"

oc_matrix oc_rows_of(const oc_matrix *m, int64_t from, int64_t n) {
    oc_matrix rows = {.format = m->format, .n_rows = n, .k = m->k, .run_rows = n, .n_runs = 1};
    int64_t n_left;
    if (m->packed) {
        rows.packed = (const char *)m->packed + oc_format_packed_bytes(m->format, from, m->k);
        return rows;
    }
    rows.source = oc_source_rows(m, from, &n_left);
    if (n_left < n) rows.n_rows = rows.run_rows = n_left;
    return rows;
}

oc_act oc_act_at(const oc_columns *columns, int64_t at, int64_t n, int64_t k) {
    return (oc_act){.f32 = columns->f32 + at,
                    .codes = columns->codes ? columns->codes + at : NULL,
                    .scale = columns->scale ? columns->scale + at / OC_ACT_BLOCK : NULL,
                    .sum = columns->sum ? columns->sum + at / OC_TILE : NULL,
                    .n = n,
                    .k = k,
                    .stride = k};
}

oc_act oc_gather(const walker *w, int32_t index, const int64_t *at, int32_t n, int64_t k, int with_f32) {
    const oc_columns *from = columns_of(w, index), *to = &w->engine->threads[w->thread].gathered;
    if (n == 1) return oc_act_at(from, at[0], 1, k);
    for (int32_t i = 0; i < n; i++) {
        const oc_act x = oc_act_at(from, at[i], 1, k), y = oc_act_at(to, i * k, 1, k);
        if (with_f32) memcpy((float *)y.f32, x.f32, (size_t)k * sizeof(float));
        if (!x.codes) continue;
        memcpy((int8_t *)y.codes, x.codes, (size_t)k);
        memcpy((float *)y.scale, x.scale, (size_t)(k / OC_ACT_BLOCK) * sizeof(float));
        memcpy((float *)y.sum, x.sum, (size_t)(k / OC_TILE) * sizeof(float));
    }
    return oc_act_at(to, 0, n, k);
}

/* One head of columns [c0, c1). */
static void head_columns(const walker *w, int64_t head, int64_t c0, int64_t c1) {
    const oc_op *op = w->op;
    const oc_matrix *all = &w->engine->matrices[op->matrix];
    const oc_buffer *src = &w->engine->buffers[op->src], *dst = &w->engine->buffers[op->dst];
    const int64_t n_rows = all->n_rows / op->n_head, k = all->k, from = src->n / op->n_head, to = dst->n / op->n_head;
    const oc_matrix m = oc_rows_of(all, head * n_rows, n_rows);
    int64_t at[OC_SLICE];
    for (int64_t c = c0; c < c1; c++) at[c - c0] = c * src->width + head * from;
    const oc_act x = oc_gather(w, op->src, at, (int32_t)(c1 - c0), k, m.format->needs_f32);
    oc_matmul(w, &m, &x, column(w, op->dst, c0) + head * to, dst->width, 0, (long)(n_rows / OC_GROUP));
    for (int64_t c = c0; c < c1; c++) {
        float *y = column(w, op->dst, c) + head * to;
        memcpy(y + n_rows, column(w, op->src, c) + head * from + k, (size_t)(from - k) * sizeof(float));
        if (op->flags & OC_FLAG_QUANTIZE) quantize(w, op->dst, c, head * to, to);
    }
}

void oc_run_head_linear(walker *w) {
    oc_share heads = share(w, w->op->n_head, 1);
    while (oc_share_next(&heads))
        for (int64_t c = 0; c < w->n; c += OC_SLICE)
            head_columns(w, heads.begin, c, c + OC_SLICE < w->n ? c + OC_SLICE : w->n);
}
