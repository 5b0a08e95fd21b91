# ops.pxi - one row of the kernel table at a time, on the caller's buffers: the door of tests/kernels and bench/.
# kernel_rows() of kernels.pxi lists the rows.
from libc.stdlib cimport free, malloc


cdef extern from "kernels/kernels.h" nogil:
    enum: OC_TILE
    ctypedef struct oc_attention_args:
        const float *q
        const int32_t *first
        const int32_t *last
        const void *const *k_tiles
        const void *const *v_tiles
        float *out
        float *max
        float *sum
        float *scratch
        int64_t n_rows
        int64_t head_dim
        int64_t value_dim
        int64_t q_stride
        int64_t out_stride
        float softcap
        const float *slope
        const int32_t *position
    size_t oc_attention_scratch(int64_t head_dim) noexcept
    size_t oc_kv_tile_size(int type, int64_t head_dim) noexcept
    ctypedef void (*oc_rmsnorm_fn)(const float *x, const float *w, float *y, int64_t n, float eps) noexcept
    ctypedef void (*oc_layernorm_fn)(const float *x, const float *w, const float *b, float *y, int64_t n,
                                     float eps) noexcept
    ctypedef void (*oc_gelu_fn)(float *x, int64_t n) noexcept
    ctypedef void (*oc_rope_fn)(float *x, const float *cos, const float *sin, int64_t n_rot, int neox) noexcept
    ctypedef void (*oc_glu_fn)(const float *gate, const float *up, float *y, int64_t n) noexcept
    ctypedef void (*oc_add_fn)(float *y, const float *x, int64_t n) noexcept
    ctypedef void (*oc_attention_fn)(const oc_attention_args *args) noexcept
    ctypedef void (*oc_kv_store_fn)(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                                    int64_t head_dim) noexcept
    enum: OC_CONV_WIDTH
    ctypedef struct oc_conv_args:
        const float *x
        const float *before
        const float *after
        const float *w
        const float *state
        float *next
        float *y
        int64_t n, n_tokens, width, x_stride, y_stride, channels
    ctypedef void (*oc_conv_fn)(const oc_conv_args *args) noexcept
    ctypedef struct oc_delta_args:
        const float *state
        const float *q
        const float *k
        const float *v
        float *next
        float *y
        int64_t n_k, n_v
        float decay, beta
        int is_scan
    ctypedef void (*oc_delta_fn)(const oc_delta_args *args) noexcept
    ctypedef void (*oc_maxima_fn)(const float *x, int64_t n, float *y) noexcept


cdef const oc_kernel *_op_row(int index, tuple ops) except NULL:
    """Row `index`, which must implement one of `ops` and run on this CPU."""
    row = oc_kernel_at(index)
    if row == NULL or row.op.decode() not in ops or not oc_cpu_has(row.isa):
        raise ValueError(f"row {index} is not a runnable implementation of {ops}")
    return row


cdef int _same_length(Py_ssize_t a, Py_ssize_t b) except -1:
    if a != b:
        raise ValueError(f"buffers of {a} and {b} values where both must have the same length")
    return 0


def op_rmsnorm(int row, const float[::1] x, const float[::1] w, float[::1] y, float eps):
    """Run an rmsnorm row; `w` may be None."""
    fn = <oc_rmsnorm_fn>_op_row(row, ("rmsnorm",)).fn
    _same_length(x.shape[0], y.shape[0])
    cdef const float *weight = NULL
    if w is not None:
        _same_length(x.shape[0], w.shape[0])
        weight = &w[0]
    fn(&x[0], weight, &y[0], x.shape[0], eps)


def op_layernorm(int row, const float[::1] x, const float[::1] w, const float[::1] b, float[::1] y, float eps):
    """Run a layernorm row; b may be None (all zeros)."""
    fn = <oc_layernorm_fn>_op_row(row, ("layernorm",)).fn
    for size in (w.shape[0], y.shape[0]):
        _same_length(x.shape[0], size)
    cdef const float *bias = NULL
    if b is not None:
        _same_length(x.shape[0], b.shape[0])
        bias = &b[0]
    fn(&x[0], &w[0], bias, &y[0], x.shape[0], eps)


def op_gelu(int row, float[::1] x):
    """Run a gelu or gelu_tanh row in place."""
    fn = <oc_gelu_fn>_op_row(row, ("gelu", "gelu_tanh")).fn
    fn(&x[0], x.shape[0])


def op_rope(int row, float[::1] x, const float[::1] cos, const float[::1] sin, bint neox):
    """Run a rope row in place on one head; n_rot is twice the length of the tables."""
    fn = <oc_rope_fn>_op_row(row, ("rope",)).fn
    _same_length(cos.shape[0], sin.shape[0])
    if 2 * cos.shape[0] > x.shape[0]:
        raise ValueError("more pairs than the head has")
    fn(&x[0], &cos[0], &sin[0], 2 * cos.shape[0], neox)


def op_glu(int row, const float[::1] gate, const float[::1] up, float[::1] y):
    """Run a swiglu or geglu row."""
    fn = <oc_glu_fn>_op_row(row, ("swiglu", "geglu")).fn
    _same_length(gate.shape[0], up.shape[0])
    _same_length(gate.shape[0], y.shape[0])
    fn(&gate[0], &up[0], &y[0], gate.shape[0])


def op_add(int row, float[::1] y, const float[::1] x):
    """Run an add row."""
    fn = <oc_add_fn>_op_row(row, ("add",)).fn
    _same_length(x.shape[0], y.shape[0])
    fn(&y[0], &x[0], x.shape[0])


def op_conv(int row, const float[::1] x, const float[::1] before, const float[::1] after, const float[::1] w,
            const float[::1] state, float[::1] next, float[::1] y, *, int n_tokens, int width):
    """Run a conv row on (n_tokens, channels) rows; `before` and `after` may be None. OC_CONV_WIDTH bounds the width."""
    fn = <oc_conv_fn>_op_row(row, ("conv",)).fn
    cdef oc_conv_args args
    if not 1 <= width <= OC_CONV_WIDTH or w.shape[0] % width:
        raise ValueError("width out of range")
    args.channels = args.n = args.x_stride = args.y_stride = w.shape[0] // width
    args.n_tokens, args.width = n_tokens, width
    for size in (x.shape[0], y.shape[0]):
        _same_length(size, n_tokens * args.channels)
    for size in (state.shape[0], next.shape[0]):
        _same_length(size, (width - 1) * args.channels)
    args.x, args.w, args.state, args.next, args.y = &x[0], &w[0], &state[0], &next[0], &y[0]
    args.before = args.after = NULL
    if before is not None:
        _same_length(before.shape[0], x.shape[0])
        args.before = &before[0]
    if after is not None:
        _same_length(after.shape[0], x.shape[0])
        args.after = &after[0]
    fn(&args)


def op_delta(int row, const float[::1] state, float[::1] next, const float[::1] q, const float[::1] k,
             const float[::1] v, float[::1] y, float decay, float beta, bint is_scan=False):
    """Run a delta row on one head."""
    fn = <oc_delta_fn>_op_row(row, ("delta",)).fn
    cdef oc_delta_args args
    _same_length(q.shape[0], k.shape[0])
    _same_length(v.shape[0], y.shape[0])
    for size in (state.shape[0], next.shape[0]):
        _same_length(size, k.shape[0] * v.shape[0])
    args.state, args.next, args.q, args.k, args.v, args.y = &state[0], &next[0], &q[0], &k[0], &v[0], &y[0]
    args.n_k, args.n_v, args.decay, args.beta = k.shape[0], v.shape[0], decay, beta
    args.is_scan = is_scan
    fn(&args)


def op_maxima(int row, const float[::1] x, float[::1] y):
    """Run a maxima row; y has a value for each OC_RUN values of x that have begun."""
    fn = <oc_maxima_fn>_op_row(row, ("maxima",)).fn
    _same_length(y.shape[0], (x.shape[0] + OC_RUN - 1) // OC_RUN)
    if x.shape[0]:
        fn(&x[0], x.shape[0], &y[0])


def op_kv_store(int row, const float[::1] k, const float[::1] v, unsigned char[::1] k_tile,
                unsigned char[::1] v_tile, int slot):
    """Run a kv_store row; the tiles are raw bytes, see kv_tile_size. v may be None: v_tile stays as it is."""
    found = _op_row(row, ("kv_store_f16", "kv_store_f32", "kv_store_q8_0"))
    fn = <oc_kv_store_fn>found.fn
    size = kv_tile_size(found.op.decode().removeprefix("kv_store_"), k.shape[0])
    if v is not None:
        _same_length(k.shape[0], v.shape[0])
    _same_length(k_tile.shape[0], size)
    _same_length(v_tile.shape[0], size)
    if not 0 <= slot < OC_TILE:
        raise ValueError("no such slot")
    fn(&k[0], &v[0] if v is not None else NULL, &k_tile[0], &v_tile[0], slot, k.shape[0])


def kv_tile_size(kv_type, int64_t head_dim):
    """Bytes of the K or the V of 32 positions of one kv head."""
    return oc_kv_tile_size(KV_TYPES[kv_type], head_dim)


def op_attention_scratch(int64_t head_dim):
    """Floats of scratch that an attention row needs."""
    return oc_attention_scratch(head_dim)


def op_attention(int row, const float[:, ::1] q, const int32_t[::1] first, const int32_t[::1] last,
                 const unsigned char[:, ::1] k_pool, const unsigned char[:, ::1] v_pool,
                 const int32_t[::1] table, float[:, ::1] out, float[::1] max_score, float[::1] sum,
                 float[::1] scratch, int64_t head_dim, float softcap=0.0, int repeat=1, *, int64_t value_dim=0,
                 const float[::1] slope=None, const int32_t[::1] position=None):
    """Run an attention row `repeat` times. Tile t is row table[t] of the pools, or NULL where table[t] < 0.

    Rows of q and out may be longer than head_dim: that is their stride. With value_dim > 0 values are the first
    elements of their keys, and v_pool is not used.
    """
    found = _op_row(row, ("attention_f16", "attention_f32", "attention_q8_0"))
    fn = <oc_attention_fn>found.fn
    size = kv_tile_size(found.op.decode().removeprefix("attention_"), head_dim)
    cdef oc_attention_args args
    cdef const void **tiles = <const void **>malloc(2 * max(1, table.shape[0]) * sizeof(void *))
    cdef Py_ssize_t t, n_tiles = table.shape[0]
    if tiles == NULL:
        raise MemoryError
    try:
        for n_rows in (first.shape[0], last.shape[0], out.shape[0], max_score.shape[0], sum.shape[0]):
            _same_length(q.shape[0], n_rows)
        _same_length(k_pool.shape[1], size)
        _same_length(v_pool.shape[1], size)
        if not 0 <= value_dim <= head_dim:
            raise ValueError("values are longer than keys")
        if q.shape[1] < head_dim or out.shape[1] < head_dim or max(last) > n_tiles * OC_TILE:
            raise ValueError("a buffer is too small")
        if scratch.shape[0] < <Py_ssize_t>oc_attention_scratch(head_dim):
            raise ValueError("scratch is too small")
        for t in range(n_tiles):
            if table[t] >= min(k_pool.shape[0], v_pool.shape[0]):
                raise ValueError("table names a tile outside the pool")
            tiles[t] = &k_pool[table[t], 0] if table[t] >= 0 else NULL
            tiles[n_tiles + t] = &v_pool[table[t], 0] if table[t] >= 0 else NULL
        args.q, args.out, args.scratch = &q[0, 0], &out[0, 0], &scratch[0]
        args.max, args.sum = &max_score[0], &sum[0]
        args.first, args.last = &first[0], &last[0]
        args.k_tiles, args.v_tiles = tiles, tiles + n_tiles
        args.n_rows, args.head_dim, args.softcap = q.shape[0], head_dim, softcap
        args.value_dim = value_dim or head_dim
        if value_dim:
            args.v_tiles = NULL
        args.q_stride, args.out_stride = q.shape[1], out.shape[1]
        args.slope, args.position = NULL, NULL
        if slope is not None:
            _same_length(q.shape[0], slope.shape[0])
            _same_length(q.shape[0], position.shape[0])
            args.slope, args.position = &slope[0], &position[0]
        with nogil:
            for _ in range(repeat):
                fn(&args)
    finally:
        free(tiles)
