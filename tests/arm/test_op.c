/* test_op.c - the rows of all other ops: quantize, the norms, rope, the activations, add, maxima, kv_store. */
#include "check.h"

static const int sizes[] = {1,  2,  3,  4,  5,  6,  7,   8,   9,   11,  12,  13,  15,
                            16, 17, 19, 20, 23, 24, 28,  31,  32,  33,  36,  39,  40,
                            47, 63, 64, 65, 96, 97, 100, 127, 128, 255, 256, 257, 300};
#define N_SIZES (int)(sizeof sizes / sizeof *sizes)

static float *random_floats(int64_t n, float size) {
    float *x = guarded_floats(n);
    for (int64_t i = 0; i < n; i++) x[i] = random_between(-size, size);
    return x;
}

static float *copy_of(const float *x, int64_t n) {
    return memcpy(guarded_floats(n), x, (size_t)n * sizeof *x);
}

/* ---- quantize: bits are the contract ---- */

static void quantize_like_reference(const oc_kernel *row, const float *x, int64_t n, int64_t k,
                                    const char *what) {
    int8_t *codes[2];
    float *scale[2], *sum[2];
    for (int i = 0; i < 2; i++) {
        codes[i] = guarded((size_t)(n * k));
        scale[i] = guarded_floats(n * k / 16);
        sum[i] = guarded_floats(n * k / 32);
        ((oc_quantize_fn)(i ? row : generic_of(row))->fn)(x, n, k, codes[i], scale[i], sum[i]);
    }
    check(!memcmp(codes[0], codes[1], (size_t)(n * k)), row->symbol, "%s: other codes", what);
    check(same_floats(scale[0], scale[1], n * k / 16), row->symbol, "%s: other scales", what);
    check(same_floats(sum[0], sum[1], n * k / 32), row->symbol, "%s: other sums", what);
    int right = 1; /* also against the contract */
    for (int64_t b = 0; b < n * k / 16; b++) {
        float peak = 0;
        int finite = 1;
        for (int i = 0; i < 16; i++) {
            finite &= isfinite(x[16 * b + i]) != 0;
            peak = fmaxf(peak, fabsf(x[16 * b + i]));
        }
        const float expected = peak < 0x1p-100f ? 0.0f : peak / 127.0f, inverse = 127.0f / peak;
        right &= finite ? scale[1][b] == expected : isnan(scale[1][b]);
        for (int i = 0; i < 16; i++) {
            const volatile float scaled = x[16 * b + i] * inverse;
            right &= codes[1][16 * b + i] == (finite && expected > 0 ? (int)rintf(scaled) : 0);
        }
    }
    for (int64_t b = 0; b < n * k / 16; b += 2) {
        int total[2] = {0, 0};
        for (int i = 0; i < 32; i++) total[i / 16] += codes[1][16 * b + i];
        const double products = (double)scale[1][b] * total[0] + (double)scale[1][b + 1] * total[1];
        right &= isnan(products) ? isnan(sum[1][b / 2]) : sum[1][b / 2] == (float)products;
    }
    check(right, row->symbol, "%s: not the contract", what);
    release(row->symbol);
}

static void test_quantize(const oc_kernel *row) {
    static const float peaks[] = {0.0f,    0x1p-149f, 0x1p-101f, 0x1p-100f, 1.0f,
                                  3.4e38f, INFINITY,  -INFINITY, NAN};
    for (int exponent = -130; exponent <= 127; exponent += 3) {
        const int64_t n = 1 + random_below(3), k = 32 * (1 + random_below(5));
        quantize_like_reference(row, random_floats(n * k, ldexpf(1, exponent)), n, k, "random");
    }
    for (size_t p = 0; p < sizeof peaks / sizeof *peaks; p++)
        for (int at = 0; at < 32; at += 5) {
            float *x = random_floats(96, 1);
            x[32 + at] = peaks[p];
            for (int i = 64; i < 96; i++) x[i] = peaks[p] / 3;
            x[64 + at] = peaks[p];
            quantize_like_reference(row, x, 1, 96, "extreme peaks");
        }
    float *x = guarded_floats(32);
    for (int i = 0; i < 32; i++) x[i] = i % 16 == 0 ? 127.0f : (float)(i - 16) + 0.5f;
    quantize_like_reference(row, x, 1, 32, "ties");
    x = guarded_floats(64);
    memset(x, 0, 64 * sizeof *x);
    x[40] = -0.0f;
    quantize_like_reference(row, x, 2, 32, "zeros");
}

/* ---- rmsnorm ---- */

static void rmsnorm_of(const oc_kernel *row, const float *x, const float *w, int64_t n, float eps,
                       const char *what) {
    float *y = guarded_floats(n), *own = copy_of(x, n);
    ((oc_rmsnorm_fn)row->fn)(x, w, y, n, eps);
    ((oc_rmsnorm_fn)row->fn)(own, w, own, n, eps);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    int right = 1;
    for (int64_t i = 0; i < n; i++) {
        const double expected = x[i] / sqrt(sum / (double)n + (double)eps) * (w ? w[i] : 1.0f);
        right &= fabs(y[i] - expected) <= 1e-5 * fabs(expected) + 1e-38;
    }
    check(right, row->symbol, "%s, n = %d", what, (int)n);
    check(same_floats(y, own, n), row->symbol, "%s in place, n = %d", what, (int)n);
}

static void test_rmsnorm(const oc_kernel *row) {
    static const float scales[] = {0.0f, 1e-30f, 1e-3f, 1e5f, 1e25f};
    for (int i = 0; i < N_SIZES; i++) {
        const float *x = random_floats(sizes[i], 5), *w = random_floats(sizes[i], 2);
        rmsnorm_of(row, x, w, sizes[i], 1e-5f, "weighted");
        rmsnorm_of(row, x, NULL, sizes[i], 1e-5f, "plain");
        release(row->symbol);
    }
    for (int i = 0; i < 5; i++) rmsnorm_of(row, random_floats(77, scales[i]), NULL, 77, 1e-6f, "extremes");
    for (int i = 18; i < 27; i++) /* squares that lose bits or vanish */
        rmsnorm_of(row, random_floats(77, powf(10, (float)-i)), NULL, 77, 0, "tiny values");
    release(row->symbol);
}

/* ---- layernorm ---- */

static void test_layernorm(const oc_kernel *row) {
    static const float scales[] = {1e-20f, 1e-3f, 1.0f, 1e5f, 1e25f};
    for (int i = 0; i < N_SIZES + 5; i++) {
        const int n = i < N_SIZES ? sizes[i] : 77;
        const float *x = random_floats(n, i < N_SIZES ? 5 : scales[i - N_SIZES]), *w = random_floats(n, 2),
                    *b = random_floats(n, 2);
        float *y = guarded_floats(n), *own = copy_of(x, n);
        ((oc_layernorm_fn)row->fn)(x, w, b, y, n, 1e-12f);
        ((oc_layernorm_fn)row->fn)(own, w, b, own, n, 1e-12f);
        double mean = 0, squares = 0, peak = 0;
        for (int j = 0; j < n; j++) mean += (double)x[j] / n;
        for (int j = 0; j < n; j++) {
            squares += (x[j] - mean) * (x[j] - mean);
            peak = fmax(peak, fabs(x[j]));
        }
        const double scale = 1 / sqrt(squares / n + (double)1e-12f);
        int right = same_floats(y, own, n);
        for (int j = 0; j < n; j++)
            right &= fabs(y[j] - ((x[j] - mean) * scale * w[j] + b[j])) <=
                     1e-5 * (peak * scale * fabs(w[j]) + fabs(b[j]));
        check(right, row->symbol, "n = %d", n);
        release(row->symbol);
    }
}

/* ---- gelu ---- */

static double exact_gelu(const oc_kernel *row, double x) {
    if (!strcmp(row->op, "gelu")) return 0.5 * x * erfc(-x * 0.70710678118654752);
    return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}

static void test_gelu(const oc_kernel *row) {
    const double slack = !strcmp(row->op, "gelu") ? 1e-7 : 1e-6;
    for (int i = 0; i < N_SIZES; i++) {
        const int n = sizes[i];
        float *x = random_floats(n, 8), *old = copy_of(x, n);
        ((oc_gelu_fn)row->fn)(x, n);
        int right = 1;
        for (int j = 0; j < n; j++) {
            float alone = old[j]; /* a value does not depend on its place */
            ((oc_gelu_fn)row->fn)(&alone, 1);
            const double expected = exact_gelu(row, old[j]);
            right &= fabs(x[j] - expected) <= 2e-6 * fabs(expected) + slack && alone == x[j];
        }
        check(right, row->symbol, "n = %d", n);
        release(row->symbol);
    }
    float extremes[] = {-INFINITY, -3e38f, -30, 30, 3e38f, INFINITY, NAN};
    ((oc_gelu_fn)row->fn)(extremes, 7);
    const int is_zero = extremes[0] == 0 || !strcmp(row->op, "gelu_tanh"); /* there it is infinity times 0 */
    check(is_zero && extremes[1] == 0 && extremes[2] == 0 && extremes[3] == 30 && extremes[4] == 3e38f &&
              isinf(extremes[5]) && isnan(extremes[6]),
          row->symbol, "extremes");
}

/* ---- rope ---- */

static void test_rope(const oc_kernel *row) {
    for (int i = 0; i < 2 * N_SIZES; i++) {
        const int half = sizes[i / 2], neox = i % 2, rest = half % 4, n = 2 * half + rest;
        float *x = random_floats(n, 3), *cos = guarded_floats(half), *sin = guarded_floats(half),
              *old = copy_of(x, n);
        for (int j = 0; j < half; j++) {
            const float angle = random_between(0, 1000);
            cos[j] = cosf(angle);
            sin[j] = sinf(angle);
        }
        ((oc_rope_fn)row->fn)(x, cos, sin, 2 * half, neox);
        int right = !memcmp(x + 2 * half, old + 2 * half, (size_t)rest * sizeof *x);
        for (int j = 0; j < half; j++) {
            const int p = neox ? j : 2 * j, q = neox ? j + half : 2 * j + 1;
            const double a = old[p], b = old[q];
            right &= fabs(x[p] - (a * cos[j] - b * sin[j])) <= 2e-6 &&
                     fabs(x[q] - (b * cos[j] + a * sin[j])) <= 2e-6;
        }
        check(right, row->symbol, "%d pairs, neox %d", half, neox);
        release(row->symbol);
    }
}

/* ---- swiglu, geglu ---- */

static int glu_is_right(const oc_kernel *row, float gate, float up, float got) {
    const double g = gate,
                 u = !strcmp(row->op, "swiglu") ? g : 2 * 0.7978845608028654 * (g + 0.044715 * g * g * g);
    const double expected = g / (1 + exp(-u)) * up;
    return fabs(got - expected) <= 2e-6 * fabs(expected) + 1e-7;
}

static void test_glu(const oc_kernel *row) {
    for (int i = 0; i < N_SIZES; i++) {
        const int n = sizes[i];
        const float *gate = random_floats(n, 8), *up = random_floats(n, 3);
        float *y = guarded_floats(n), *own = copy_of(gate, n);
        ((oc_glu_fn)row->fn)(gate, up, y, n);
        ((oc_glu_fn)row->fn)(own, up, own, n);
        int right = same_floats(y, own, n);
        for (int j = 0; j < n; j++) {
            float alone = 0; /* a value does not depend on its place */
            ((oc_glu_fn)row->fn)(gate + j, up + j, &alone, 1);
            right &= glu_is_right(row, gate[j], up[j], y[j]) && alone == y[j];
        }
        check(right, row->symbol, "n = %d", n);
        release(row->symbol);
    }
    static const float extremes[] = {0, 1e-40f, 86.8f, 86.9f, 87.4f, 88.7f, 89, 104, 1e4f, 1e13f, 3e38f};
    float *gate = guarded_floats(4000), *up = guarded_floats(4000), *y = guarded_floats(4000);
    for (int i = 0; i < 4000; i++) {
        const float size = i / 2 < 11 ? extremes[i / 2] : (float)i * 0.03f;
        gate[i] = i % 2 ? -size : size;
        up[i] = 1;
    }
    gate[3001] = NAN;
    ((oc_glu_fn)row->fn)(gate, up, y, 4000);
    int right = 1;
    for (int i = 0; i < 4000; i++) right &= i == 3001 ? isnan(y[i]) : glu_is_right(row, gate[i], 1, y[i]);
    check(right, row->symbol, "wide range");
    release(row->symbol);
}

/* ---- add, maxima, kv_store ---- */

static void test_add(const oc_kernel *row) {
    for (int i = 0; i < N_SIZES; i++) {
        const float *x = random_floats(sizes[i], 5);
        float *y = random_floats(sizes[i], 5), *old = copy_of(y, sizes[i]);
        ((oc_add_fn)row->fn)(y, x, sizes[i]);
        int right = 1;
        for (int j = 0; j < sizes[i]; j++) right &= y[j] == old[j] + x[j];
        check(right, row->symbol, "n = %d", sizes[i]);
        release(row->symbol);
    }
}

static void maxima_are(const oc_kernel *row, const float *x, int n, const char *what) {
    float found[256];
    int right = 1;
    ((oc_maxima_fn)row->fn)(x, n, found);
    for (int start = 0; start < n; start += OC_RUN) {
        float top = -INFINITY;
        for (int i = start; i < n && i < start + OC_RUN; i++) top = x[i] > top ? x[i] : top;
        right &= found[start / OC_RUN] == top;
    }
    check(right, row->symbol, "%s, n = %d", what, n);
}

static void test_maxima(const oc_kernel *row) {
    for (int i = 0; i < N_SIZES; i++) {
        const int n = sizes[i];
        float *x = random_floats(n, 100);
        maxima_are(row, x, n, "random");
        for (int at = 0; at < n; at += 1 + n / 16) {
            for (int j = 0; j < n; j++) x[j] = j == at ? -5 : -INFINITY;
            maxima_are(row, x, n, "one finite");
            const uint32_t signalling = 0x7FA00000u;
            for (int j = 0; j < n; j++)
                if (j != at) memcpy(x + j, &signalling, 4);
            maxima_are(row, x, n, "one number");
        }
        for (int j = 0; j < n; j++) x[j] = NAN;
        maxima_are(row, x, n, "nothing but NaN");
        release(row->symbol);
    }
}

static void test_kv_store(const oc_kernel *row) {
    static const int head_dims[] = {1, 4, 6, 8, 12, 20, 64, 128};
    const int is_f32 = strstr(row->op, "f32") != NULL;
    const oc_kv_type type = is_f32 ? OC_KV_F32 : strstr(row->op, "f16") ? OC_KV_F16 : OC_KV_Q8_0;
    for (int i = 0; i < 8 * 8; i++) {
        const int head_dim = head_dims[i / 8], slot = i % 8 < 7 ? 5 * (i % 8) : 31;
        const size_t bytes = oc_kv_tile_size(type, head_dim);
        float *k = guarded_floats(head_dim), *v = guarded_floats(head_dim);
        uint8_t *tile[2][2];
        for (int d = 0; d < head_dim; d++) { /* any bits: NaN, subnormal, too large; and ordinary numbers */
            const uint32_t a = random_bits() & (slot % 2 && type == OC_KV_Q8_0 ? 0xBFFFFFFFu : 0xFFFFFFFFu);
            const uint32_t b = (random_bits() & 0x8FFFFFFFu) + 0x30000000u;
            memcpy(k + d, &a, 4);
            memcpy(v + d, &b, 4);
        }
        for (int j = 0; j < 2; j++) {
            tile[j][0] = guarded(bytes);
            tile[j][1] = guarded(bytes);
            ((oc_kv_store_fn)(j ? row : generic_of(row))->fn)(k, v, tile[j][0], tile[j][1], slot, head_dim);
            ((oc_kv_store_fn)row->fn)(k, NULL, tile[j][0], tile[j][1], slot, head_dim); /* the same key, no value */
        }
        check(!memcmp(tile[0][0], tile[1][0], bytes), row->symbol, "K, head size %d, slot %d", head_dim,
              slot);
        check(!memcmp(tile[0][1], tile[1][1], bytes), row->symbol, "V, head size %d, slot %d", head_dim,
              slot);
        int right = 1;
        for (int d = 0; is_f32 && d < head_dim; d++)
            right &= !memcmp(tile[1][0] + 4 * (d * OC_TILE + slot), k + d, 4) &&
                     !memcmp(tile[1][1] + 4 * (slot * head_dim + d), v + d, 4);
        check(right, row->symbol, "head size %d, slot %d: not what was stored", head_dim, slot);
        release(row->symbol);
    }
}

void test_op(const oc_kernel *row) {
    static const struct {
        const char *op;
        void (*test)(const oc_kernel *row);
    } tests[] = {
        {"quantize", test_quantize},
        {"rmsnorm", test_rmsnorm},
        {"layernorm", test_layernorm},
        {"rope", test_rope},
        {"swiglu", test_glu},
        {"geglu", test_glu},
        {"gelu", test_gelu},
        {"gelu_tanh", test_gelu},
        {"add", test_add},
        {"maxima", test_maxima},
        {"kv_store_f16", test_kv_store},
        {"kv_store_f32", test_kv_store},
        {"kv_store_q8_0", test_kv_store},
        {"conv", test_conv},
        {"delta", test_delta},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(row->op, tests[i].op)) {
            tests[i].test(row);
            return;
        }
    check(0, row->symbol, "no test for op %s", row->op);
}
