/* altup.c - several residual streams of a token, of which one passes through the blocks (AltUp, Baykal et al.,
 * arXiv 2301.13310): what a layer makes of the others is predicted from all, and corrected by what its block made of
 * the one.
 *
 * Streams are private buffers: in a step of one token every thread computes all of them for itself.
 */
#include <math.h>
#include <string.h>

#include "engine/walk.h"

#define STRIP OC_GROUP /* widths of buffers are whole groups */

/* Runs `work` on every column: on this thread's own, or on its share of all. */
static void each_column(const walker *w, void (*work)(const walker *w, int64_t c)) {
    if (is_own(w, w->op->dst)) {
        work(w, 0);
        return;
    }
    oc_share columns = share_columns(w);
    while (oc_share_next(&columns)) work(w, columns.begin);
}

/* y[i] = the product of row i of a matrix of n columns, and x. */
static void multiply(const float *rows, const float *x, float *y, int32_t n_rows, int32_t n) {
    for (int32_t i = 0; i < n_rows; i++) {
        y[i] = 0;
        for (int32_t j = 0; j < n; j++) y[i] += rows[i * n + j] * x[j];
    }
}

/* A strip of all streams, each plus its mixture of them. */
static void mix_strip(float *const *streams, const float *mix, int32_t n, int64_t at) {
    float was[OC_MAX_STREAMS][STRIP];
    for (int32_t i = 0; i < n; i++) memcpy(was[i], streams[i] + at, sizeof was[i]);
    for (int32_t j = 0; j < n; j++)
        for (int32_t i = 0; i < n; i++)
            for (int32_t k = 0; k < STRIP; k++) streams[j][at + k] += mix[j * n + i] * was[i][k];
}

static void predict_column(const walker *w, int64_t c) {
    const oc_op *op = w->op;
    const int32_t n = op->n_stream;
    const int64_t width = w->engine->buffers[op->dst].width;
    float mix[OC_MAX_STREAMS * OC_MAX_STREAMS], *streams[OC_MAX_STREAMS];
    multiply(vector(w, op->vector), column(w, op->src, c), mix, n * n, n);
    for (int32_t i = 0; i < n; i++) streams[i] = column(w, op->dst + i, c);
    for (int64_t at = 0; at < width; at += STRIP) mix_strip(streams, mix, n, at);
    memcpy(column(w, op->dst2, c), streams[0], (size_t)width * sizeof(float));
}

void oc_run_predict(walker *w) { each_column(w, predict_column); }

static void correct_column(const walker *w, int64_t c) {
    const oc_op *op = w->op;
    const int32_t n = op->n_stream;
    const int64_t width = w->engine->buffers[op->dst].width;
    float factor[OC_MAX_STREAMS], *first = column(w, op->dst, c), *news = column(w, op->dst2, c);
    multiply(vector(w, op->vector), column(w, op->src, c), factor, n, n);
    for (int64_t k = 0; k < width; k++) {
        const float was = news[k];
        news[k] = first[k] - was;
        first[k] = was;
    }
    for (int32_t i = 0; i < n; i++) {
        float *stream = column(w, op->dst + i, c);
        const float by = 1.0f + factor[i];
        for (int64_t k = 0; k < width; k++) stream[k] += by * news[k];
    }
}

void oc_run_correct(walker *w) { each_column(w, correct_column); }

static double mean_square(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum / (double)n;
}

static void match_column(const walker *w, int64_t c) {
    const oc_op *op = w->op;
    const int64_t n = w->engine->buffers[op->dst].n;
    const float *x = column(w, op->src, c);
    float *y = column(w, op->dst, c);
    const double own = mean_square(x, n), least = 1e-5; /* as the models were trained with */
    const float factor = (float)sqrt(mean_square(column(w, op->src2, c), n) / (own > least ? own : least));
    for (int64_t i = 0; i < n; i++) y[i] = factor * x[i];
}

void oc_run_match(walker *w) { each_column(w, match_column); }
