"""Helpers of gguf.py whose loops are too long for Python."""


def index_strings(const uint8_t[::1] data, uint64_t max_bytes, uint64_t[::1] offsets):
    """Fill `offsets` with where the len(offsets) - 1 records of a GGUF string array at the start of `data` begin, and
    where the last one ends. InvalidFileError when a string is longer than `max_bytes` or than the data."""
    cdef size_t size = data.shape[0], count
    if offsets.shape[0] == 0:
        raise ValueError("offsets needs one item more than there are strings")
    count = offsets.shape[0] - 1
    cdef const uint8_t *start = &data[0] if size else NULL
    cdef oc_status status
    with nogil:
        status = oc_strings_index(start, size, count, max_bytes, &offsets[0])
    _check(status, b"a string is longer than the file or than the limit")
