"""What goes wrong for a client: a status and a text, and how exceptions of the layers below become one."""

from ollamacore.errors import (
    ClosedError,
    ContextLengthError,
    InvalidFormatError,
    InvalidPromptError,
    OllamaCoreError,
    OptionRangeError,
    TemplateError,
)
from server.store.errors import (
    CreateError,
    DigestMismatchError,
    InvalidDigestError,
    InvalidNameError,
    ModelNotFoundError,
    NoSpaceError,
    ReadOnlyModelError,
    StoreError,
)

PROMPT_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)
BUSY = "server busy, please try again.  maximum pending requests exceeded"


class ApiError(Exception):
    """An answer other than success: sent as ``{"error": text}`` with the status."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status
        self.text = text


class BusyError(Exception):
    """Too many requests are waiting already."""


class LoadTimeoutError(Exception):
    """A model's load made no progress for too long."""


#: Exception -> status; the text is the exception's own. A class stands before its base.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TemplateError, 400),
    (InvalidFormatError, 400),
    (InvalidPromptError, 400),
    (OptionRangeError, 400),
    (InvalidNameError, 400),
    (ModelNotFoundError, 404),
    (InvalidDigestError, 400),
    (DigestMismatchError, 400),
    (ReadOnlyModelError, 403),
    (NoSpaceError, 507),
    (StoreError, 500),
    (LoadTimeoutError, 500),
    (OllamaCoreError, 500),
)


def api_error(error: Exception) -> ApiError | None:
    """The answer to an exception of the library, store or model table; None for one that nobody foresaw."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(503, BUSY)
    if isinstance(error, ContextLengthError):
        return ApiError(400, PROMPT_TOO_LONG)
    if isinstance(error, ClosedError):
        return ApiError(503, "the model was unloaded, please try again")
    if isinstance(error, CreateError):
        return ApiError(error.status, str(error))
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return ApiError(status, str(error))
    return None
