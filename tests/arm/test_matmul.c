/* test_matmul.c - one matmul row against exact arithmetic, the reference row and itself. */
#include "base/fp16.h"
#include "check.h"
#include "quant/format.h"

enum { RANDOM, HIGH, LOW, EXTREMES, N_FILLS };
static const char *const fill_names[N_FILLS] = {"random", "high", "low", "extremes"};

#define GUARD -12345.5f

/* ---- weights: (n_rows, k) as in a GGUF file, packed, and decoded ---- */

typedef struct weights {
    const oc_format *format;
    int64_t n_rows, n_groups, k;
    size_t row_bytes;
    uint8_t *file;
    void *packed;
    float *decoded;
} weights;

static uint8_t code_byte(int fill, uint8_t low, uint8_t high) {
    switch (fill) {
    case RANDOM: return (uint8_t)random_bits();
    case HIGH: return high;
    case LOW: return low;
    default: return random_bits() >> 16 & 1 ? high : low;
    }
}

static uint16_t f16_bits(float value) { return oc_f32_to_f16(value); }

/* Where a block holds its scale as a half float */
static int scale_at(const oc_format *format) {
    static const struct {
        const char *name;
        int at;
    } late[] = {{"Q2_K", 80}, {"Q3_K", 108}, {"Q6_K", 208}, {"TQ1_0", 52}, {"TQ2_0", 64}};
    for (size_t i = 0; i < sizeof late / sizeof *late; i++)
        if (!strcmp(format->name, late[i].name)) return late[i].at;
    return 0;
}

/* MXFP4 has powers of two from 2^-128 on instead; IQ1_M spreads the bits over four 16-bit words. */
static void set_scale(const oc_format *format, uint8_t *block, float d) {
    const uint16_t half = f16_bits(d);
    if (!strcmp(format->name, "MXFP4"))
        block[0] = (uint8_t)(d == 1 ? 128 : 120 + random_below(12));
    else if (!strcmp(format->name, "IQ1_M"))
        for (int i = 0; i < 4; i++) {
            uint8_t *top = block + 49 + 2 * i;
            *top = (uint8_t)((*top & 15) | (half >> 4 * i & 15) << 4);
        }
    else
        memcpy(block + scale_at(format), &half, 2);
}

/* One block; `unit`: scale 1 and minimum -1, 0 or 1, so that no float operation rounds. */
static void fill_block(const oc_format *format, uint8_t *block, int fill, int unit) {
    const char *name = format->name;
    if (format->needs_f32) {
        const float extreme =
            fill == HIGH || (fill == EXTREMES && random_bits() >> 16 & 1) ? 60000.0f : -60000.0f;
        const float value = fill == RANDOM ? random_between(-2, 2) : extreme;
        const uint16_t half =
            format->gguf_type == 1 ? f16_bits(value) : (uint16_t)(oc_f32_to_bits(value) >> 16);
        memcpy(block, format->gguf_type == 0 ? (const void *)&value : (const void *)&half,
               (size_t)format->block_bytes);
        return;
    }
    const int is_signed = !strcmp(name, "Q8_0"), is_q6_k = !strcmp(name, "Q6_K");
    for (int i = 0; i < format->block_bytes; i++) {
        const int signed_byte = is_signed || (is_q6_k && i >= 192);
        block[i] = code_byte(fill, signed_byte ? 0x80 : 0x00, signed_byte ? 0x7F : 0xFF);
    }
    const int has_min =
        !strcmp(name, "Q4_1") || !strcmp(name, "Q5_1") || !strcmp(name, "Q4_K") || !strcmp(name, "Q5_K");
    const int is_q2_k = !strcmp(name, "Q2_K");
    const uint16_t m = f16_bits(unit ? (float)(random_below(3) - 1) : random_between(-0.1f, 0.1f));
    set_scale(format, block, unit ? 1.0f : random_between(-0.1f, 0.1f));
    if (has_min || is_q2_k) memcpy(block + scale_at(format) + 2, &m, 2);
}

static void pack(weights *w) {
    oc_kernels.pack[w->format->gguf_type](w->file, w->n_rows, w->k, w->packed, 0, w->n_groups);
    for (int64_t r = 0; r < w->n_rows; r++)
        w->format->dequantize(w->file + (size_t)r * w->row_bytes, w->decoded + r * w->k, w->k);
}

static weights make_weights(int gguf_type, int64_t n_rows, int64_t k, int fill, int unit) {
    weights w = {.format = oc_format_get(gguf_type), .n_rows = n_rows, .n_groups = (n_rows + 7) / 8, .k = k};
    w.row_bytes = oc_format_row_bytes(w.format, k);
    w.file = guarded(w.row_bytes * (size_t)n_rows);
    for (size_t at = 0; at < w.row_bytes * (size_t)n_rows; at += (size_t)w.format->block_bytes)
        fill_block(w.format, w.file + at, fill, unit);
    w.packed = guarded(oc_format_packed_bytes(w.format, n_rows, k));
    w.decoded = guarded_floats(n_rows * k);
    pack(&w);
    return w;
}

/* ---- activations ---- */

typedef struct activations {
    int64_t n, k;
    float *f32, *scale, *sum;
    int8_t *codes;
} activations;

static oc_act columns(const activations *x, int64_t first, int64_t n) {
    const int64_t k = x->k;
    return (oc_act){x->f32 + first * k,
                    x->codes + first * k,
                    x->scale + first * (k / 16),
                    x->sum + first * (k / 32),
                    n,
                    k,
                    k};
}

/* [from, to): where the codes are not zero */
static activations make_activations(int64_t n, int64_t k, int fill, int unit, int64_t from, int64_t to) {
    activations x = {
        n, k, guarded_floats(n * k), guarded_floats(n * (k / 16)), guarded_floats(n * (k / 32)), NULL};
    x.codes = guarded((size_t)(n * k));
    for (int64_t i = 0; i < n * k; i++) {
        const int code = fill == RANDOM ? random_below(255) - 127 : (int8_t)code_byte(fill, 0x81, 0x7F);
        x.codes[i] = i % k >= from && i % k < to ? (int8_t)code : 0;
        x.f32[i] = (float)x.codes[i] * 0.01f;
    }
    for (int64_t i = 0; i < n * (k / 16); i++) x.scale[i] = unit ? 1.0f : random_between(0.001f, 0.1f);
    for (int64_t i = 0; i < n * (k / 32); i++) {
        double sum = 0;
        for (int j = 0; j < 32; j++) sum += (double)x.scale[2 * i + j / 16] * x.codes[32 * i + j];
        x.sum[i] = (float)sum;
    }
    return x;
}

static double value_at(const activations *x, int needs_f32, int64_t c, int64_t i) {
    return needs_f32 ? x->f32[c * x->k + i]
                     : (double)x->scale[c * (x->k / 16) + i / 16] * x->codes[c * x->k + i];
}

/* ---- running a row ---- */

static int64_t stride(const weights *w) { return 8 * w->n_groups + 8; }

/* Groups [g0, g1) of columns [first, first + n) between red zones. */
static float *multiply(const oc_kernel *row, const weights *w, const activations *x, int64_t first, int64_t n,
                       int64_t g0, int64_t g1) {
    const int64_t ldy = stride(w), size = n * ldy - 8;
    float *y = guarded_floats(size);
    for (int64_t i = 0; i < size; i++) y[i] = GUARD;
    const oc_act act = columns(x, first, n);
    ((oc_matmul_fn)row->fn)(w->packed, &act, y, ldy, g0, g1);
    int intact = 1;
    for (int64_t i = 0; i < size; i++)
        if (i % ldy < 8 * g0 || i % ldy >= 8 * g1) intact &= y[i] == GUARD;
    check(intact, row->symbol, "wrote outside of groups %d to %d", (int)g0, (int)g1);
    return y;
}

/* Against the exact product: no difference if `exact`, else the tolerance of kernels.h; and against the
 * reference. */
static void compare(const oc_kernel *row, const weights *w, const activations *x, int exact,
                    const char *what) {
    const float *y = multiply(row, w, x, 0, x->n, 0, w->n_groups);
    const float *reference = multiply(generic_of(row), w, x, 0, x->n, 0, w->n_groups);
    int right = 1, close = 1, zero = 1;
    for (int64_t c = 0; c < x->n; c++)
        for (int64_t r = 0; r < 8 * w->n_groups; r++) {
            const float got = y[c * stride(w) + r], ref = reference[c * stride(w) + r];
            double expected = 0, size = 0;
            if (r >= w->n_rows) {
                zero &= got == 0;
                continue;
            }
            for (int64_t b = 0; b < w->k; b += 32) {
                double largest = 0, total = 0;
                for (int64_t i = b; i < w->k && i < b + 32; i++) {
                    const double weight = w->decoded[r * w->k + i],
                                 value = value_at(x, w->format->needs_f32, c, i);
                    expected += weight * value;
                    largest = fmax(largest, fabs(weight));
                    total += fabs(value);
                }
                size += largest * total;
            }
            const double allowed = exact ? 0 : 1e-5 * size;
            right &= fabs(got - expected) <= allowed;
            close &= fabs((double)got - ref) <= allowed;
        }
    check(right, row->symbol, "%s, %dx%d, %d columns: not the exact product", what, (int)w->n_rows, (int)w->k,
          (int)x->n);
    check(close, row->symbol, "%s, %dx%d, %d columns: not the reference", what, (int)w->n_rows, (int)w->k,
          (int)x->n);
    check(zero, row->symbol, "%s: rows past the end are not zero", what);
}

/* ---- the tests ---- */

static void test_values(const oc_kernel *row, const oc_format *format, int64_t k) {
    for (int wf = 0; wf < N_FILLS; wf++)
        for (int xf = 0; xf < N_FILLS; xf++) {
            const weights w = make_weights(row->gguf_type, 9, k, wf, 0);
            const activations x = make_activations(7, k, xf, 0, 0, k);
            compare(row, &w, &x, 0, fill_names[wf]);
            release(row->symbol);
        }
    for (int64_t n_rows = 1; n_rows <= 37; n_rows += 12)
        for (int i = 1; i <= 13; i++) {
            const int64_t length = format->block == 1
                                       ? 1 + random_below(75)
                                       : format->block * (1 + random_below(format->block == 32 ? 9 : 3));
            const weights w = make_weights(row->gguf_type, n_rows, length, RANDOM, 0);
            const activations x = make_activations(i, length, RANDOM, 0, 0, length);
            compare(row, &w, &x, 0, "any shape");
            release(row->symbol);
        }
}

/* Integer parts: with unit scales every float operation is exact as well, as long as sums stay below 2^24. */
static void test_integers(const oc_kernel *row, int64_t k) {
    const weights random = make_weights(row->gguf_type, 24, k, RANDOM, 1);
    const activations any = make_activations(7, k, RANDOM, 1, 0, k);
    compare(row, &random, &any, 1, "unit scales");
    release(row->symbol);
    for (int wf = HIGH; wf < N_FILLS; wf++)
        for (int64_t from = 0; from < k; from += 16) { /* one block of activations at a time */
            const weights w = make_weights(row->gguf_type, 8, k, wf, 1);
            const activations x = make_activations(5, k, HIGH + (int)(from / 16) % 3, 1, from, from + 16);
            compare(row, &w, &x, 1, fill_names[wf]);
            release(row->symbol);
        }
}

/* Bits depend neither on the number of columns nor on the split into groups. */
static void test_bits(const oc_kernel *row, int64_t k) {
    const weights w = make_weights(row->gguf_type, 37, k, RANDOM, 0);
    const activations x = make_activations(13, k, RANDOM, 0, 0, k);
    const int64_t ldy = stride(&w), width = 8 * w.n_groups;
    const float *whole = multiply(row, &w, &x, 0, 13, 0, w.n_groups);
    for (int64_t n = 1; n <= 13; n++) {
        const float *part = multiply(row, &w, &x, 13 - n, n, 0, w.n_groups);
        int equal = 1;
        for (int64_t c = 0; c < n; c++)
            equal &= !memcmp(part + c * ldy, whole + (13 - n + c) * ldy, (size_t)width * sizeof *part);
        check(equal, row->symbol, "other bits in %d columns", (int)n);
    }
    for (int64_t g0 = 0; g0 <= w.n_groups; g0++)
        for (int64_t g1 = g0; g1 <= w.n_groups; g1++) {
            const float *part = multiply(row, &w, &x, 0, 13, g0, g1);
            int equal = 1;
            for (int64_t c = 0; c < 13; c++)
                equal &= !memcmp(part + c * ldy + 8 * g0, whole + c * ldy + 8 * g0,
                                 (size_t)(8 * (g1 - g0)) * sizeof *part);
            check(equal, row->symbol, "other bits in groups %d to %d", (int)g0, (int)g1);
        }
    /* Vector rows agree to the bit, so a newer processor does not change what a model says. */
    for (int i = 0; row->isa != OC_ISA_GENERIC && i < oc_kernel_count(); i++) {
        const oc_kernel *other = oc_kernel_at(i);
        if (other->gguf_type != row->gguf_type || other->isa >= row->isa || other->isa == OC_ISA_GENERIC)
            continue;
        const float *same = multiply(other, &w, &x, 0, 13, 0, w.n_groups);
        check(!memcmp(same, whole, (size_t)(13 * ldy - 8) * sizeof *same), row->symbol, "other bits than %s",
              other->symbol);
    }
    release(row->symbol);
}

/* NaN and infinities stay in their own rows and columns. */
static void test_not_finite(const oc_kernel *row, const oc_format *format, int64_t k) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    weights w = make_weights(row->gguf_type, 8, k, RANDOM, 0);
    const activations x = make_activations(7, k, RANDOM, 0, 0, k);
    const float *before = multiply(row, &w, &x, 0, 7, 0, 1);
    for (int64_t i = 0; i < k; i++) x.f32[4 * k + i] = NAN;
    for (int64_t i = 0; i < k / 16; i++) x.scale[4 * (k / 16) + i] = NAN;
    for (int64_t i = 0; i < k / 32; i++) x.sum[4 * (k / 32) + i] = NAN;
    const float *after = multiply(row, &w, &x, 0, 7, 0, 1);
    for (int c = 0; c < 7; c++) {
        int ok = 1;
        for (int r = 0; r < 8; r++)
            ok &= c == 4 ? isnan(after[c * 16 + r]) : after[c * 16 + r] == before[c * 16 + r];
        check(ok, row->symbol, "NaN in column 4, column %d", c);
    }
    for (int i = 0; strcmp(format->name, "MXFP4") && i < 3; i++) {
        const uint16_t bf16 = (uint16_t)(oc_f32_to_bits(bad[i]) >> 16);
        uint8_t *block = w.file + 3 * w.row_bytes;
        if (format->gguf_type == 0)
            memcpy(block, &bad[i], 4);
        else if (format->gguf_type == 30)
            memcpy(block, &bf16, 2);
        else
            set_scale(format, block, bad[i]);
        pack(&w);
        after = multiply(row, &w, &x, 0, 4, 0, 1);
        for (int c = 0; c < 4; c++) {
            int ok = 1;
            for (int r = 0; r < 8; r++)
                ok &= r == 3 ? !isfinite(after[c * 16 + r]) : after[c * 16 + r] == before[c * 16 + r];
            check(ok, row->symbol, "%f in row 3, column %d", (double)bad[i], c);
        }
    }
    release(row->symbol);
}

void test_matmul(const oc_kernel *row) {
    const oc_format *format = oc_format_get(row->gguf_type);
    const int64_t block = format->block;
    test_values(row, format, block > 64 ? block : 64);
    if (!format->needs_f32) test_integers(row, block > 96 ? block : 96);
    test_bits(row, block > 96 ? 2 * block : 160);
    test_not_finite(row, format, block > 64 ? block : 64);
}
