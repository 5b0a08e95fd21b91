"""C declarations of oc.h, nothing else."""
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "oc.h" nogil:
    enum: OC_ERR_LEN
    ctypedef enum oc_status:
        OC_OK
        OC_ERR_NOMEM
        OC_ERR_ARGUMENT
        OC_ERR_FORMAT
        OC_ERR_CANCELLED
        OC_ERR_FULL
        OC_ERR_THREAD
    const char *oc_status_text(oc_status status) noexcept

    # ---- kernels ----

    # ---- engine ----

    # ---- sampler ----

    # ---- text ----
    oc_status oc_strings_index(const uint8_t *data, size_t size, size_t count, uint64_t max_bytes,
                               uint64_t *offsets) noexcept
