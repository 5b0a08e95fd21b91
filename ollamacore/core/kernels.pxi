# kernels.pxi - the kernel table and the formats as tests and benchmarks see them, and the CPU mask.
# The rows are internal to csrc: their headers are not shipped, so the externs stand here and not in oc.pxd.
import os


cdef extern from "kernels/kernels.h" nogil:
    ctypedef enum oc_isa:
        pass
    const char *oc_isa_name(oc_isa isa) noexcept nogil
    int oc_cpu_has(oc_isa isa) noexcept nogil
    void oc_cpu_mask(const char *name) noexcept nogil
    ctypedef struct oc_act:
        const float *f32
        const int8_t *codes
        const float *scale
        const float *sum
        int64_t n
        int64_t k
        int64_t stride
    ctypedef void (*oc_quantize_fn)(const float *x, int64_t n, int64_t k, int8_t *codes, float *scale,
                                    float *sum) noexcept nogil
    ctypedef void (*oc_matmul_fn)(const void *packed, const oc_act *x, float *y, int64_t ldy, int64_t g0,
                                  int64_t g1) noexcept nogil
    ctypedef void (*oc_pack_fn)(const void *src, int64_t n_rows, int64_t k, void *dst, int64_t g0,
                                int64_t g1) noexcept nogil
    ctypedef void (*oc_any_fn)() noexcept nogil
    ctypedef struct oc_kernel:
        const char *op
        const char *format
        const char *symbol
        int gguf_type
        oc_isa isa
        oc_any_fn fn
    int oc_kernel_count() noexcept nogil
    const oc_kernel *oc_kernel_at(int index) noexcept nogil
    void oc_kernels_init() noexcept nogil
    int oc_kernel_choose(const oc_kernel *const *candidates, int n) noexcept nogil
    int oc_kernel_is_chosen(const oc_kernel *row) noexcept nogil


cdef extern from "quant/format.h" nogil:
    ctypedef struct oc_format:
        int gguf_type
        const char *name
        int block
        int block_bytes
        int group_bytes
        int needs_f32
        void (*dequantize)(const void *row, float *y, int64_t k) noexcept nogil
        void (*unpack_row)(const void *packed, int64_t k, int64_t row, float *y) noexcept nogil
    const oc_format *oc_format_get(int gguf_type) noexcept nogil
    int oc_format_count() noexcept nogil
    const oc_format *oc_format_at(int index) noexcept nogil
    size_t oc_format_row_bytes(const oc_format *format, int64_t k) noexcept nogil
    size_t oc_format_packed_bytes(const oc_format *format, int64_t n_rows, int64_t k) noexcept nogil


def set_cpu_mask(name=None):
    """Choose every kernel anew, with no instruction set above `name` ("generic", ...); None allows all."""
    cdef bytes text = b"" if name is None else name.encode()
    oc_cpu_mask(text)
    oc_kernels_init()


def kernel_rows():
    """List the rows of kernels.def as (op, format, symbol, gguf_type, isa, runnable), in the order of indices."""
    rows = []
    cdef const oc_kernel *row
    for index in range(oc_kernel_count()):
        row = oc_kernel_at(index)
        rows.append((row.op.decode(), row.format.decode(), row.symbol.decode(), row.gguf_type,
                     oc_isa_name(row.isa).decode(), bool(oc_cpu_has(row.isa))))
    return rows


def chosen_rows():
    """List the indices of the rows in use."""
    return [index for index in range(oc_kernel_count()) if oc_kernel_is_chosen(oc_kernel_at(index))]


def choose_row(indices):
    """Return which of these rows would be used, the first being the reference and the rest in rising preference."""
    cdef const oc_kernel *candidates[16]
    rows = kernel_rows()
    _need(0 < len(indices) <= 16, "1 to 16 rows")
    for at, index in enumerate(indices):
        _need(0 <= index < len(rows), "no such row")
        _need(rows[index][0] == rows[indices[0]][0], "rows of several ops")
        candidates[at] = oc_kernel_at(index)
        if candidates[at].gguf_type >= 0:
            _need(_format(candidates[at].gguf_type).needs_f32 == _format(candidates[0].gguf_type).needs_f32,
                  "rows of float and of quantised weights")
    return indices[oc_kernel_choose(candidates, len(indices))]


def format_rows():
    """List the rows of formats.def as (gguf_type, name, block, block_bytes, group_bytes, needs_f32)."""
    rows = []
    cdef const oc_format *row
    for index in range(oc_format_count()):
        row = oc_format_at(index)
        rows.append((row.gguf_type, row.name.decode(), row.block, row.block_bytes, row.group_bytes,
                     bool(row.needs_f32)))
    return rows


cdef const oc_format *_format(int gguf_type) except NULL:
    cdef const oc_format *format = oc_format_get(gguf_type)
    if format == NULL:
        raise ValueError(f"GGUF tensor type {gguf_type} is not supported")
    return format


cdef int _need(bint holds, what) except -1:
    if not holds:
        raise ValueError(what)
    return 0


def dequantize(int gguf_type, const uint8_t[::1] data, float[::1] y):
    """Decode one GGUF row of len(y) elements into y."""
    cdef const oc_format *format = _format(gguf_type)
    _need(len(y) > 0 and <size_t>len(data) == oc_format_row_bytes(format, len(y)),
          "data is not one row of len(y)")
    format.dequantize(&data[0], &y[0], len(y))


def packed_bytes(int gguf_type, int64_t n_rows, int64_t k):
    """Bytes of a packed (n_rows, k) matrix."""
    cdef const oc_format *format = _format(gguf_type)
    _need(n_rows >= 0 and k >= 0 and k % format.block == 0, "k is not a multiple of the block")
    return oc_format_packed_bytes(format, n_rows, k)


def unpack_row(int gguf_type, const uint8_t[::1] packed, int64_t row, float[::1] y):
    """Decode one row of a packed matrix whose rows have len(y) elements."""
    cdef const oc_format *format = _format(gguf_type)
    _need(row >= 0 and len(y) > 0 and len(y) % format.block == 0, "no such row")
    _need(oc_format_packed_bytes(format, row + 1, len(y)) <= <size_t>len(packed), "packed is too short")
    format.unpack_row(&packed[0], len(y), row, &y[0])


cdef const oc_kernel *_row(int index, op) except NULL:
    cdef const oc_kernel *row = oc_kernel_at(index)
    if row == NULL or row.op.decode() != op or not oc_cpu_has(row.isa):
        raise ValueError(f"row {index} is no {op} kernel that this processor can run")
    return row


def run_quantize(int index, const float[::1] x, int64_t k, int8_t[::1] codes, float[::1] scale,
                 float[::1] sum):
    """Call a quantize row of the kernel table on rows of k values."""
    cdef oc_quantize_fn fn = <oc_quantize_fn>_row(index, "quantize").fn
    _need(k > 0 and k % 32 == 0 and len(x) > 0 and len(x) % k == 0, "x is not rows of k values")
    _need(len(codes) == len(x), "sizes do not agree")
    _need(len(sum) == len(x) // 32 and len(scale) == 2 * len(sum), "sizes do not agree")
    with nogil:
        fn(&x[0], x.shape[0] // k, k, &codes[0], &scale[0], &sum[0])


def run_pack(int index, const uint8_t[::1] data, int64_t n_rows, int64_t k, uint8_t[::1] out, int64_t g0=0,
             g1=None):
    """Call a pack row of the kernel table for the groups of 8 rows [g0, g1), by default all, of a GGUF matrix; `out`
    is the whole packed matrix."""
    cdef const oc_kernel *row = _row(index, "pack")
    cdef const oc_format *format = _format(row.gguf_type)
    cdef oc_pack_fn fn = <oc_pack_fn>row.fn
    cdef int64_t last = (n_rows + 7) // 8 if g1 is None else g1
    _need(n_rows > 0 and k > 0 and <size_t>len(data) == n_rows * oc_format_row_bytes(format, k),
          "data has another size")
    _need(<size_t>len(out) == oc_format_packed_bytes(format, n_rows, k), "out has another size")
    _need(0 <= g0 <= last <= (n_rows + 7) // 8, "no such groups")
    with nogil:
        fn(&data[0], n_rows, k, &out[0], g0, last)


def run_matmul(int index, const uint8_t[::1] packed, const float[::1] f32, const int8_t[::1] codes,
               const float[::1] scale, const float[::1] sum, int64_t n, int64_t k, float[::1] y, int64_t ldy,
               int64_t g0, int64_t g1, int repeat=1):
    """Call a matmul row `repeat` times for the groups [g0, g1); y holds n columns of ldy floats, f32 n of k or more."""
    cdef const oc_kernel *row = _row(index, "matmul")
    cdef const oc_format *format = _format(row.gguf_type)
    cdef oc_matmul_fn fn = <oc_matmul_fn>row.fn
    cdef oc_act act
    cdef int64_t stride = len(f32) // n if n > 0 else 0
    _need(n > 0 and k > 0 and stride >= k and len(codes) == n * k, "activations have another size")
    _need(len(sum) == n * (k // 32) and len(scale) == 2 * len(sum), "activations have another size")
    _need(k % format.block == 0, "k is not a multiple of the block")
    _need(0 <= g0 <= g1 and 8 * g1 <= ldy and len(y) == n * ldy, "y has another size")
    _need(oc_format_packed_bytes(format, 8 * g1, k) <= <size_t>len(packed), "packed is too short")
    act.f32 = &f32[0]
    act.codes = &codes[0]
    act.scale = &scale[0] if len(scale) else NULL
    act.sum = &sum[0] if len(sum) else NULL
    act.n, act.k, act.stride = n, k, stride
    with nogil:
        for _ in range(repeat):
            fn(&packed[0], &act, &y[0], ldy, g0, g1)


set_cpu_mask(os.environ.get("OLLAMACORE_CPU"))
