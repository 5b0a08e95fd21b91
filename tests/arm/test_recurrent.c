/* test_recurrent.c - the rows of conv and delta, against sums in double. */
#include "check.h"

static float *random_floats(int64_t n) {
    float *x = guarded_floats(n);
    for (int64_t i = 0; i < n; i++) x[i] = random_between(-1, 1);
    return x;
}

/* The input of a channel at position t, those before the first from the state. */
static double conv_input(const oc_conv_args *a, int64_t t, int64_t c) {
    if (t < 0) return a->state[(t + a->width - 1) * a->channels + c];
    return (double)a->x[t * a->x_stride + c] * (a->before ? a->before[t * a->x_stride + c] : 1.0f);
}

void test_conv(const oc_kernel *row) {
    static const int widths[] = {2, 3, 4, OC_CONV_WIDTH};
    for (int i = 0; i < 4 * 6; i++) {
        const int64_t n = 1 + random_below(150), tokens = 1 + random_below(9), width = widths[i / 6];
        oc_conv_args a = {.x = random_floats(tokens * n), .w = random_floats(width * n),
                          .state = random_floats((width - 1) * n), .next = guarded_floats((width - 1) * n),
                          .y = guarded_floats(tokens * n), .n = n, .n_tokens = tokens, .width = width,
                          .x_stride = n, .y_stride = n, .channels = n};
        if (i % 2) a.before = random_floats(tokens * n), a.after = random_floats(tokens * n);
        ((oc_conv_fn)row->fn)(&a);
        int right = 1;
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t c = 0; c < n; c++) {
                double sum = 0;
                for (int64_t j = 0; j < width; j++) sum += a.w[j * n + c] * conv_input(&a, t - (width - 1) + j, c);
                right &= fabs(a.y[t * n + c] - sum * (a.after ? a.after[t * n + c] : 1.0f)) <= 1e-6 * (double)width;
            }
        for (int64_t j = 0; j < width - 1; j++)
            for (int64_t c = 0; c < n; c++)
                right &= a.next[j * n + c] == (float)conv_input(&a, tokens - (width - 1) + j, c);
        check(right, row->symbol, "%d channels, %d tokens, width %d", (int)n, (int)tokens, (int)width);
        release(row->symbol);
    }
}

void test_delta(const oc_kernel *row) {
    for (int i = 0; i < 24; i++) {
        const int64_t n_k = 1 + random_below(70), n_v = 1 + random_below(150);
        const float *state = random_floats(n_k * n_v), *q = random_floats(n_k), *k = random_floats(n_k),
                    *v = random_floats(n_v);
        float *next = guarded_floats(n_k * n_v), *y = guarded_floats(n_v);
        const float decay = random_between(0, 1), beta = random_between(0, 1);
        ((oc_delta_fn)row->fn)(&(oc_delta_args){.state = state, .q = q, .k = k, .v = v, .next = next, .y = y,
                                                .n_k = n_k, .n_v = n_v, .decay = decay, .beta = beta});
        int right = 1;
        for (int64_t c = 0; c < n_v; c++) {
            double known = 0, sum = 0;
            for (int64_t r = 0; r < n_k; r++) known += (double)decay * state[r * n_v + c] * k[r];
            const double change = beta * (v[c] - known), slack = 1e-5 * (double)n_k;
            for (int64_t r = 0; r < n_k; r++) {
                const double moved = (double)decay * state[r * n_v + c] + k[r] * change;
                right &= fabs(next[r * n_v + c] - moved) <= slack;
                sum += q[r] * moved;
            }
            right &= fabs(y[c] - sum) <= slack * (double)n_k;
        }
        check(right, row->symbol, "state of %d by %d", (int)n_k, (int)n_v);
        release(row->symbol);
    }
}
