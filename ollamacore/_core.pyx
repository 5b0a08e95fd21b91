"""The one extension module: Python's door to csrc. The bodies stand in core/*.pxi, one file per part of oc.h."""
from ollamacore.errors import ClosedError, EngineError, InvalidFileError, InvalidOptionError, OutOfMemoryError
cimport cython
from libc.string cimport memcpy
from ollamacore.oc cimport *


cdef int _check(oc_status status, const char *err=NULL) except -1:
    """Raise the exception that stands for a status; `err` is the detail text or NULL."""
    if status == OC_OK:
        return 0
    text = (err if err != NULL and err[0] != 0 else oc_status_text(status)).decode("utf-8", "replace")
    if status == OC_ERR_NOMEM:
        raise OutOfMemoryError(text)
    if status == OC_ERR_FORMAT:
        raise InvalidFileError(text)
    if status == OC_ERR_ARGUMENT:
        raise InvalidOptionError(text)
    raise EngineError(text)


include "core/gguf.pxi"
include "core/kernels.pxi"
include "core/ops.pxi"
include "core/engine.pxi"
include "core/text.pxi"
include "core/sampler.pxi"
include "core/decode.pxi"
include "core/grammar.pxi"
