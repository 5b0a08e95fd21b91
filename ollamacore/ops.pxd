"""C declarations of kernels.h and cpu.h for core/ops.pxi; internal, so apart from oc.pxd, which ships."""
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t


cdef extern from "base/cpu.h" nogil:
    ctypedef enum ops_isa "oc_isa":
        pass
    const char *ops_isa_name "oc_isa_name"(ops_isa isa) noexcept
    int ops_cpu_has "oc_cpu_has"(ops_isa isa) noexcept


cdef extern from "kernels/kernels.h" nogil:
    enum: OPS_TILE "OC_TILE"

    ctypedef struct ops_row "oc_kernel":
        const char *op
        const char *symbol
        ops_isa isa
        void (*fn)() noexcept nogil
    int ops_count "oc_kernel_count"() noexcept
    const ops_row *ops_at "oc_kernel_at"(int index) noexcept

    ctypedef struct ops_attention_args "oc_attention_args":
        const float *q
        const int32_t *first
        const int32_t *last
        const void *const *k_tiles
        const void *const *v_tiles
        float *out
        float *scratch
        int64_t n_rows
        int64_t head_dim
        int64_t q_stride
        int64_t out_stride
        float softcap
    size_t oc_attention_scratch(int64_t n_rows, int64_t head_dim) noexcept

    ctypedef void (*oc_rmsnorm_fn)(const float *x, const float *w, float *y, int64_t n, float eps) noexcept
    ctypedef void (*oc_rope_fn)(float *x, const float *cos, const float *sin, int64_t n_rot,
                                int neox) noexcept
    ctypedef void (*oc_glu_fn)(const float *gate, const float *up, float *y, int64_t n) noexcept
    ctypedef void (*oc_add_fn)(float *y, const float *x, int64_t n) noexcept
    ctypedef void (*oc_attention_fn)(const ops_attention_args *args) noexcept
    ctypedef void (*oc_kv_store_fn)(const float *k, const float *v, void *k_tile, void *v_tile, int64_t slot,
                                    int64_t head_dim) noexcept
    ctypedef int64_t (*oc_argmax_fn)(const float *x, int64_t n) noexcept
