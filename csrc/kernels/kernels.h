/* kernels.h - the contract of every op: one typedef each, one row per implementation in kernels.def.
 *
 * A generic implementation of every op exists and is the reference. A variant must agree with it: integer parts bit for
 * bit, float parts within the tolerance named at the op. No kernel allocates, and none assumes alignment beyond what
 * its contract says. Outputs never alias inputs unless said.
 *
 * Determinism: an output value depends only on its own inputs, never on how many columns, rows or threads a call covers.
 * Each output accumulates its blocks in ascending order with one fused multiply-add chain.
 */
#ifndef OC_KERNELS_H
#define OC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "oc.h"

#define OC_GROUP 8 /* rows of a weight matrix that are interleaved into one packed group */
#define OC_TILE 32 /* keys of one KV tile; activations that share a sum */
#define OC_ACT_BLOCK 16 /* activations that share a scale */

/* Activations quantised once and shared by every matmul that reads them:
 *     x[16 b + i] ~ scale[b] * code[16 b + i],  code in [-127, 127].
 * Blocks of 16 for the sake of outlier channels: a few values of a layer are far larger than the rest, and each takes
 * the precision of its whole block. Against blocks of 32 this halves the divergence from the exact logits.
 * Offsets and minima are for 32 weights, so `sum` covers 32 values, two blocks; but for Q2_K and Q3_K, which
 * add up the codes of 16 themselves.
 * `f32` is the unquantised vector, for float weight formats. Column c starts at f32 + c*stride, codes + c*k,
 * scale + c*k/16, sum + c*k/32. k is a multiple of 32 wherever codes are used. */
typedef struct oc_act {
    const float *f32;    /* (n, k) */
    const int8_t *codes; /* (n, k), 32-byte aligned */
    const float *scale;  /* (n, k/16) */
    const float *sum;    /* (n, k/32): of 32 products scale * code, for offsets and block minima */
    int64_t n;           /* columns (tokens) */
    int64_t k;           /* values per column */
    int64_t stride;      /* floats from one column of f32 to the next */
} oc_act;

/* Quantise n rows of k floats in blocks of 16: scale = max|x| / 127, code = round-half-even(x * (127 / max|x|)). With
 * t[b] the sum of the codes of block b, sum[b / 2] = scale[b] * t[b] + scale[b + 1] * t[b + 1] for even b, in double (where
 * the products are exact) and rounded to float. All implementations give the same bits. A block whose peak is below
 * 2^-100 counts as zero: codes and scale 0. A block with a NaN or an infinity has codes 0 and a scale of NaN, and so its
 * sum is NaN: it shows. k % 32 == 0. */
#define OC_QUANTIZE_ZERO 0x0D800000u       /* bits of 2^-100 */
#define OC_QUANTIZE_NOT_FINITE 0x7F800000u /* bits of infinity */
typedef void (*oc_quantize_fn)(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale, float *sum);

/* y[c*ldy + r] = sum over k of W[r, k] * x[c, k]  for the rows r of groups [g0, g1) and every column c of x.
 * `packed` is the whole matrix in the packed layout of its format (see quant/blocks.h); rows of a last, partial group are
 * zero rows and ARE written: y has room for a multiple of 8 rows.
 * Integer dot products are exact (int16 and int32 never overflow for any weight codes). Floats: within 1e-5 * the sum
 * over blocks of (largest |w| of the block) * sum|x|; all products of a block with an offset or a minimum pass through
 * that size. NaN and infinities in scales or in f32 give NaN or infinities in their own rows and columns only. */
typedef void (*oc_matmul_fn)(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0, int64_t g1);

/* Pack rows [8 g0, 8 g1) of a GGUF matrix (n_rows, k) at `src` into the packed layout (quant/blocks.h) of the whole
 * matrix at `dst`; rows from n_rows on become zero rows. All implementations give the same bytes. */
typedef void (*oc_pack_fn)(const void *src, int64_t n_rows, int64_t k, void *dst, int64_t g0, int64_t g1);

/* y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i], i < n.  w may be NULL (all ones). y may be x. Sum in double or in a fixed
 * number of lanes; relative tolerance 1e-5. */
typedef void (*oc_rmsnorm_fn)(const float *x, const float *w, float *y, int64_t n, float eps);

/* y[i] = (x[i] - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * w[i] + b[i], i < n.  b may be NULL (all zeros). y may
 * be x. Sums in double or in a fixed number of lanes; within 1e-5 * (max|x| / sqrt(... + eps) * |w[i]| + |b[i]|). */
typedef void (*oc_layernorm_fn)(const float *x, const float *w, const float *b, float *y, int64_t n, float eps);

/* Rotate pairs of one head vector in place: pairs (i, i + n_rot/2) if neox, else (2i, 2i+1); cos/sin hold n_rot/2 values
 * for this position. Values from n_rot on are untouched. */
typedef void (*oc_rope_fn)(float *x, const float *cos, const float *sin, int64_t n_rot, int neox);

/* y[i] = act(gate[i]) * up[i]: SiLU, or GELU in its tanh form. y may be gate. Relative tolerance 2e-6 of |y| + 1e-7. */
typedef void (*oc_glu_fn)(const float *gate, const float *up, float *y, int64_t n);

/* x[i] = x[i] * P(N <= x[i]), N standard normal: GELU as it is defined, with the error function. Relative tolerance
 * 2e-6 of |y| + 1e-7. Op gelu_tanh is the tanh form, as in geglu. */
typedef void (*oc_gelu_fn)(float *x, int64_t n);

/* y[i] += x[i] */
typedef void (*oc_add_fn)(float *y, const float *x, int64_t n);

/* How keys and values lie in tiles of 32 positions of one kv head, K transposed (head_dim, 32), V as (32, head_dim).
 * Where values are no more than the first elements of their keys there are no tiles of them.
 * F16 and F32 are plain numbers. Q8_0 has int8 codes in that order, then f16 scales (blocks, 32) of the blocks of 32
 * elements of each key: x = scale * code, the bytes of GGUF's Q8_0. A tile begins at a multiple of 64 bytes. */
#define OC_KV_BLOCK 32 /* elements of a key or value that share a scale in Q8_0 */
#define OC_KV_SCALE_NAN 0x7E00u
size_t oc_kv_tile_size(oc_kv_type type, int64_t head_dim); /* bytes of a K tile, and of a V tile */

/* Attention of n_rows query rows of ONE kv head over the tiles of one sequence.
 * A row is one (token, query head) pair: q + row*q_stride holds head_dim floats, already scaled; it attends to the keys
 * [first[row], last[row]) in positions of the sequence, none if last <= first. k_tiles[t] / v_tiles[t] hold positions
 * 32t .. 32t+31; slots never written may hold anything (their keys are outside every row's range and must not
 * influence it, not even as NaN), and a tile that no row attends to is never read.
 * The result can be joined with that of other keys: max[row] is the largest score, sum[row] the sum of
 * e^(score - max), out + row*out_stride the value_dim sums of e^(score - max) * v; -FLT_MAX, 0 and zeros without keys.
 * Without v_tiles v is the first value_dim elements of the key; with them value_dim is head_dim.
 * Online softmax in f32, keys ascending in passes from OC_ATTENTION_KEYS*(first/OC_ATTENTION_KEYS), or tiles, on: the
 * result of a row depends on its own range only.
 * softcap > 0: score = softcap * tanh(score / softcap). With `slope` (ALiBi) score -= slope[row] * |key - position[row]|.
 * scratch: oc_attention_scratch(head_dim) floats, private to the caller. Tolerance of out/sum: 1e-5 relative to
 * max|v|. */
typedef struct oc_attention_args {
    const float *q;
    const int32_t *first, *last; /* (n_rows) */
    const void *const *k_tiles, *const *v_tiles; /* v_tiles: or NULL */
    float *out, *max, *sum, *scratch;
    int64_t n_rows, head_dim, value_dim, q_stride, out_stride;
    float softcap;
    const float *slope;      /* (n_rows), or NULL: no bias by distance */
    const int32_t *position; /* (n_rows) of the rows' own tokens; read with slope only */
} oc_attention_args;
typedef void oc_attention_row(const oc_attention_args *args);
typedef oc_attention_row *oc_attention_fn;
#define OC_ATTENTION_KEYS 256 /* positions that a variant takes in one pass */
#define OC_ATTENTION_ROWS 48  /* rows of a pass */
size_t oc_attention_scratch(int64_t head_dim); /* floats */

/* Write one key / value row into slot `slot` of its tile; no value if v is NULL. Q8_0: scale = max|x| / 127 rounded to f16, code =
 * round-half-even(x * (1 / scale)) within [-127, 127], all codes 0 where the scale is 0; a block with a NaN or an
 * infinity has codes 0 and a scale of NaN. All implementations give the same bits. */
typedef void oc_kv_store_row(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                             int64_t head_dim);
typedef oc_kv_store_row *oc_kv_store_fn;

/* Depthwise causal convolution of n channels over n_tokens consecutive positions of one sequence, width <=
 * OC_CONV_WIDTH:
 *     u[t][c] = x[t][c] * before[t][c]
 *     y[t][c] = (sum over j < width of w[j][c] * u[t - (width - 1) + j][c], j ascending) * after[t][c]
 * before and after may be NULL (ones). `state` has the width - 1 inputs u in front of the first position, oldest first;
 * `next`, which does not overlap it, gets those in front of the position that follows. Rows of x, before and after are
 * x_stride apart, of y y_stride, of w, state and next `channels`. Tolerance: 1e-6 of sum |w u|, times |after|. */
#define OC_CONV_WIDTH 16
typedef struct oc_conv_args {
    const float *x, *before, *after, *w, *state;
    float *next, *y;
    int64_t n, n_tokens, width, x_stride, y_stride, channels;
} oc_conv_args;
typedef void oc_conv_row(const oc_conv_args *args);
typedef oc_conv_row *oc_conv_fn;

/* The gated delta rule (Yang et al., arXiv 2412.06464), one position of one head with the state S, (n_k, n_v):
 *     S := decay * S;  S := S + k (beta * (v - k S))^T;  y = q S
 * or with is_scan a state space (Dao and Gu, Mamba 2, arXiv 2405.21060), in which v is added as it is: v in place of
 * v - k S.
 * `next` gets the new state and may be `state`. Sums over n_k ascending. Tolerance: 1e-5 of the largest product. */
typedef struct oc_delta_args {
    const float *state, *q, *k, *v;
    float *next, *y;
    int64_t n_k, n_v;
    float decay, beta;
    int is_scan;
} oc_delta_args;
typedef void oc_delta_row(const oc_delta_args *args);
typedef oc_delta_row *oc_delta_fn;

/* y[i] = the largest of run i, x[OC_RUN * i .. OC_RUN * (i + 1)), the last one cut at n; NaN never wins, and a run of
 * nothing else gives -infinity. */
typedef void (*oc_maxima_fn)(const float *x, int64_t n, float *y);

/* Every op: X(op name, function type). `matmul` and `kv`-typed ops are indexed by format, see kernels.def. */
#define OC_OPS(X)             \
    X(quantize, oc_quantize_fn) \
    X(rmsnorm, oc_rmsnorm_fn) \
    X(layernorm, oc_layernorm_fn) \
    X(rope, oc_rope_fn)       \
    X(swiglu, oc_glu_fn)      \
    X(geglu, oc_glu_fn)       \
    X(gelu, oc_gelu_fn)       \
    X(gelu_tanh, oc_gelu_fn)  \
    X(add, oc_add_fn)         \
    X(attention_f16, oc_attention_fn)  \
    X(attention_f32, oc_attention_fn)  \
    X(attention_q8_0, oc_attention_fn) \
    X(kv_store_f16, oc_kv_store_fn)    \
    X(kv_store_f32, oc_kv_store_fn)    \
    X(kv_store_q8_0, oc_kv_store_fn)   \
    X(conv, oc_conv_fn)       \
    X(delta, oc_delta_fn)     \
    X(maxima, oc_maxima_fn)

#define OC_MAX_GGUF_TYPE 48

/* Whether the compiler knows 256-bit vpdpbusd without AVX-512: GCC 11 and clang 12 do. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define OC_BUILDS_AVXVNNI 1
#endif

/* The chosen implementation of every op, filled once at import by oc_kernels_init (and again by a mask change in tests). */
typedef struct oc_kernel_table {
#define OC_FIELD(name, type) type name;
    OC_OPS(OC_FIELD)
#undef OC_FIELD
    oc_matmul_fn matmul[OC_MAX_GGUF_TYPE]; /* by GGUF tensor type; NULL where the type is not supported */
    oc_pack_fn pack[OC_MAX_GGUF_TYPE];
} oc_kernel_table;

extern oc_kernel_table oc_kernels;
void oc_kernels_init(void);

/* One implementation, as tests and benchmarks see it. */
typedef struct oc_kernel {
    const char *op;     /* "matmul", "rmsnorm", ... */
    const char *format; /* GGUF type name for matmul and pack, "" otherwise */
    const char *symbol; /* the C function's name */
    int gguf_type;      /* for matmul and pack, else -1 */
    oc_isa isa;
    void (*fn)(void);
} oc_kernel;
int oc_kernel_count(void);
const oc_kernel *oc_kernel_at(int index); /* rows whose ISA this CPU lacks are listed too: check oc_cpu_has(isa) */

/* 1 if a matmul row gives, on a few fixed products with extreme codes, exactly what the reference does. */
int oc_matmul_agrees(int gguf_type, oc_matmul_fn row, oc_matmul_fn reference);
/* Which of n rows of one op, the reference first and in rising preference, should run: the last that this
 * processor can run and, of matmul rows, that agrees with the reference. The result is an index. */
int oc_kernel_choose(const oc_kernel *const *candidates, int n);
/* 1 if a row is in the table. */
int oc_kernel_is_chosen(const oc_kernel *row);

#endif
